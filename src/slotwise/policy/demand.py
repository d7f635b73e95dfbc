"""How much is asked of whom, what it costs, and who is served when there is not enough time for all.

Requests of one model and priority are a *kind*. For each kind the recent rate and the executor time that an
answer really took are known, both forgetting exponentially. When together they exceed what the executors have,
time has a price: the kinds are served in the order of what an answer is worth per nanosecond that it takes, until
the time is used up (the greedy solution of the fractional knapsack, which is exact). The last kind served is
served in part; those behind it are not.
"""

from __future__ import annotations

import math

from slotwise.facts.units import S
from slotwise.facts.value import value

Kind = tuple[str, int]
"""A model and a priority."""


@value
class DemandSettings:
    """`memory_ns` is the time constant of the rates. Scarcity begins above `full_share` of the executors' time."""

    memory_ns: int = 2 * S
    full_share: float = 1.0
    period_ns: int = S // 10


class KindDemand:
    """What is asked of one kind. `cost_ns` is the executor time that an answer adds, `worth` what it is worth."""

    __slots__ = ("_first_ns", "_last_ns", "_sum", "cost_ns", "credit", "share", "worth")

    def __init__(self, worth: float, cost_ns: float, now_ns: int) -> None:
        self.worth = worth
        self.cost_ns = cost_ns
        self.share = 1.0
        self.credit = 0.0
        self._sum = 0.0
        self._first_ns = self._last_ns = now_ns

    def note(self, now_ns: int, memory_ns: int) -> None:
        """A request arrived."""
        self._sum = self._sum * math.exp((self._last_ns - now_ns) / memory_ns) + 1.0
        self._last_ns = now_ns

    def per_s(self, now_ns: int, memory_ns: int) -> float:
        """Requests per second; unbiased by the short past of a kind that is new."""
        seen = 1.0 - math.exp((self._first_ns - now_ns) / memory_ns - 0.05)
        return self._sum * math.exp((self._last_ns - now_ns) / memory_ns) / (memory_ns * seen) * S

    def take_credit(self) -> bool:
        """Whether this arrival is among the share that is served; the share is kept exactly, without chance."""
        self.credit = min(1.0, self.credit + self.share)
        return self.credit >= 1.0

    def spend_credit(self) -> None:
        """One of the share was served."""
        self.credit -= 1.0


class Demand:
    """What is asked of each kind, and the share of each that is served."""

    def __init__(self, settings: DemandSettings) -> None:
        self._settings = settings
        self._kinds: dict[Kind, KindDemand] = {}
        self._by_model: dict[str, list[KindDemand]] = {}
        self._due_ns = 0
        self.price_per_ns = 0.0
        """What a nanosecond of executor time is worth; zero while there is enough."""

    def note(self, model: str, priority: int, worth: float, cost_ns: int, now_ns: int) -> KindDemand:
        """A request arrived, which would take `cost_ns` by itself."""
        kind = self._kinds.get((model, priority))
        if kind is None:
            kind = self._kinds[model, priority] = KindDemand(worth, cost_ns, now_ns)
            self._by_model.setdefault(model, []).append(kind)
        kind.worth = worth
        kind.note(now_ns, self._settings.memory_ns)
        return kind

    def per_s(self, model: str, now_ns: int) -> float:
        """Requests for a model per second."""
        return sum(kind.per_s(now_ns, self._settings.memory_ns) for kind in self._by_model.get(model, ()))

    def forget(self, model: str) -> None:
        """The model is gone."""
        self._by_model.pop(model, None)
        for key in [key for key in self._kinds if key[0] == model]:
            del self._kinds[key]

    def is_due(self, now_ns: int) -> bool:
        """Whether the shares are older than their period."""
        return now_ns >= self._due_ns

    def share_out(self, executors: int, now_ns: int) -> None:
        """Set every kind's share anew."""
        self._due_ns = now_ns + self._settings.period_ns
        room = executors * self._settings.full_share
        self.price_per_ns = 0.0
        for kind in sorted(self._kinds.values(), key=lambda kind: kind.cost_ns / kind.worth):
            load = kind.per_s(now_ns, self._settings.memory_ns) * kind.cost_ns / S
            kind.share = min(1.0, room / load) if load > 0 else 1.0
            if load > room and not self.price_per_ns:
                self.price_per_ns = kind.worth / kind.cost_ns
            room = max(0.0, room - load)

    def note_cost(self, kind: KindDemand, added_ns: int) -> None:
        """An answer of a kind was promised and adds so much work."""
        kind.cost_ns += (added_ns - kind.cost_ns) * 0.05
