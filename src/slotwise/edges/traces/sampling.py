"""Which requests are traced: a share of them, spread evenly, by settings that may change while the server runs. Pure.

A model may set for itself whether, how many and until when; what it leaves open is the server's setting, and what that
leaves open is what the server was started with. A count that is used up stays at 0 until another is set.
"""

from __future__ import annotations

from slotwise.engine.ports import UNBOUNDED, OwnTraceSetting, TraceSetting
from slotwise.facts.types import Request

SPREAD, RANGE = 0x9E3779B97F4A7C15, 1 << 64
"""Multiplying by the one modulo the other spreads successive numbers evenly."""
ALL = ""
"""Stands for every model that sets nothing for itself."""


class _Budget:
    """How many more; shared by all that set no count of their own."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class _Scope:
    """What holds for the requests of one model, ready for use."""

    __slots__ = ("below", "budget", "setting")

    def __init__(self, setting: TraceSetting, below: int, budget: _Budget) -> None:
        self.setting = setting
        self.below = below if setting.is_on else 0
        self.budget = budget


class Sampling:
    """Picks requests by their numbers; a `ports.Tracing`."""

    def __init__(self, ratio: float) -> None:
        """`ratio` is the share that is traced until something else is set."""
        self._start = _Scope(TraceSetting(is_on=True, one_in=round(1 / ratio)), int(ratio * RANGE), _Budget(UNBOUNDED))
        self._own: dict[str, OwnTraceSetting] = {}
        self._budgets: dict[str, _Budget] = {}
        self._all = self._start
        self._scopes: dict[str, _Scope] = {}

    def takes(self, request: Request, by_client: bool | None = None) -> bool:
        """Whether this one is traced, which is counted.

        Of a trace that its client has begun, the client says whether; that stands for the share, not for the rest.
        """
        scope = self._all
        if self._scopes:
            scope = self._scopes.get(request.model.rpartition("/")[0], scope)
        is_meant = request.id * SPREAD % RANGE < scope.below if by_client is None else by_client and scope.setting.is_on
        if not is_meant or not scope.budget.left:
            return False
        if scope.budget.left < UNBOUNDED:
            scope.budget.left -= 1
        return True

    def setting(self, model: str = ALL) -> TraceSetting:
        """What holds for a model."""
        scope = self._scopes.get(model, self._all)
        return TraceSetting(is_on=scope.setting.is_on, one_in=scope.setting.one_in, left=scope.budget.left)

    def own(self, model: str = ALL) -> OwnTraceSetting:
        """What of it the model sets for itself, with what is left of its count."""
        own, budget = self._own.get(model, OwnTraceSetting()), self._budgets.get(model)
        return OwnTraceSetting(is_on=own.is_on, one_in=own.one_in, left=budget.left if budget is not None else None)

    def put(self, own: OwnTraceSetting, model: str = ALL) -> None:
        """Have a model set this for itself from now on."""
        self._own.pop(model, None)
        self._budgets.pop(model, None)
        if own != OwnTraceSetting():
            self._own[model] = own
        if own.left is not None:
            self._budgets[model] = _Budget(own.left)
        self._all = self._scope(ALL, self._start)
        self._scopes = {name: self._scope(name, self._all) for name in self._own if name != ALL}

    def _scope(self, model: str, above: _Scope) -> _Scope:
        own = self._own.get(model, OwnTraceSetting())
        is_on = above.setting.is_on if own.is_on is None else own.is_on
        one_in = above.setting.one_in if own.one_in is None else own.one_in
        below = self._below(model, one_in)
        return _Scope(TraceSetting(is_on=is_on, one_in=one_in), below, self._budgets.get(model, above.budget))

    def _below(self, model: str, one_in: int) -> int:
        """The start's share is exact; one in so many is what is set later."""
        is_set = any(self._own.get(name, OwnTraceSetting()).one_in is not None for name in (model, ALL))
        return RANGE // one_in if is_set else self._start.below
