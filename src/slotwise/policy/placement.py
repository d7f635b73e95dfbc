"""Which models are resident where: loads and evictions, one at a time, shared by every scheduler but Clockwork's.

An executor loads one model at a time. What requests wait for comes first, by deadline; then, if asked for,
memory that lies idle is filled with copies, the models in most demand first. To make room the model goes whose
memory is worth least: demand times the cost of loading it again, per page, and less where other executors
hold it too. A model with a batch under way is never evicted, nor, unless the settings say so, one that
requests wait for.
"""

from __future__ import annotations

from collections.abc import Callable

from slotwise.facts.events import (
    Event,
    ExecutorLost,
    ExecutorUp,
    Loaded,
    LoadFailed,
    ModelAdded,
    ModelRemoved,
    Unloaded,
)
from slotwise.facts.types import ModelSpec
from slotwise.facts.value import value
from slotwise.policy.bids import Bids
from slotwise.policy.demand import Demand
from slotwise.policy.scheduling import LoadModel, UnloadModel
from slotwise.policy.view import ExecutorView, View

SHORT_NS = 1_000_000_000
CHANGES = (ModelAdded, ModelRemoved, Loaded, LoadFailed, Unloaded, ExecutorUp, ExecutorLost)


@value
class PlacementSettings:
    """`spread` fills idle memory with copies of models; without it a model is loaded only when it is asked for."""

    spread: bool = True
    evict_waiting: bool = False
    """Whether a model that requests wait for may be evicted where no other may; a promise to them is broken."""
    copy_discount: float = 0.2
    """What holding a model is worth where another executor holds it too, beside holding the only copy."""


class Placement:
    """Chooses loads and evictions. `is_waiting(model, executor)` tells which residents have requests waiting."""

    def __init__(
        self,
        view: View,
        demand: Demand,
        settings: PlacementSettings,
        is_waiting: Callable[[str, str], bool],
        bids: Bids | None = None,
        per_ns: Callable[[ExecutorView, int], float] = lambda executor, now_ns: 0.0,
    ) -> None:
        self._view = view
        self._demand = demand
        self._settings = settings
        self._is_waiting = is_waiting
        self._bids = bids
        self._per_ns = per_ns
        self._evicted_ns: int | None = None
        self._wanted: dict[tuple[str, str], int] = {}
        self._is_stale = False
        self._is_short = False
        """Whether a load was wanted for which nothing could go."""

    def want(self, executor: str, model: str, deadline_ns: int) -> None:
        """Requests wait for this model to be loaded there; the earliest deadline counts."""
        key = (executor, model)
        self._wanted[key] = min(deadline_ns, self._wanted.get(key, deadline_ns))
        self._is_stale = True

    def look_again(self) -> None:
        """There are new bids."""
        self._is_stale = True

    def forgo(self, executor: str, model: str) -> None:
        """Nothing waits for this load any more."""
        self._wanted.pop((executor, model), None)

    def noted(self, event: Event) -> None:
        """Something happened that may call for a load."""
        if type(event) is Loaded or type(event) is LoadFailed:
            self._wanted.pop((event.executor, event.model), None)
        elif type(event) is ExecutorLost:
            for key in [key for key in self._wanted if key[0] == event.executor]:
                del self._wanted[key]
        elif type(event) is ModelRemoved:
            for key in [key for key in self._wanted if key[1] == event.model]:
                del self._wanted[key]
        self._is_stale = self._is_stale or type(event) in CHANGES or self._is_short

    def wait_ns(self, executor: ExecutorView, now_ns: int) -> int:
        """How long a load asked for now would wait behind those under way and wanted before it."""
        wanted_ns = sum(
            self._view.estimates.load_ns(self._view.models[model].spec)
            for (name, model) in self._wanted
            if name == executor.name and model in self._view.models and not executor.residency.is_here(model)
        )
        return self._view.load_wait_ns(executor, now_ns) + wanted_ns

    def is_short(self, now_ns: int) -> bool:
        """Whether models had to make way for others lately."""
        if self._bids is not None and len(self._bids):
            self._evicted_ns = now_ns
        return self._evicted_ns is not None and now_ns - self._evicted_ns < SHORT_NS

    def can_hold(self, executor: ExecutorView, spec: ModelSpec) -> bool:
        """Whether the model would fit if everything that may go went."""
        residency = executor.residency
        # One that is here is being loaded, or leaves to be loaded anew: the room is its own.
        if residency.is_here(spec.id) or residency.can_load(spec.profile.memory_bytes):
            return True
        freed = sum(residency.pages_needed(victim.profile.memory_bytes) for victim in self._victims(executor))
        return residency.pages_needed(spec.profile.memory_bytes) <= residency.pages_free + freed

    def choose(self, now_ns: int) -> LoadModel | UnloadModel | None:
        """The next load, or the eviction that makes room for it; None when all is well placed."""
        if not self._is_stale:
            return None
        self._is_short = False
        for executor in self._view.executors.values():
            if executor.loads or executor.is_replacing:
                continue
            choice = self._choose_for(executor, now_ns)
            if choice is not None:
                return choice
        self._is_stale = False
        return None

    def _choose_for(self, executor: ExecutorView, now_ns: int) -> LoadModel | UnloadModel | None:
        wanted = self._most_wanted(executor)
        if wanted is not None:
            if executor.residency.can_load(wanted.profile.memory_bytes):
                return LoadModel(executor=executor.name, model=wanted.id)
            victims = self._victims(executor)
            if victims:
                victim = min(victims, key=lambda spec: self._worth(spec, executor, now_ns))
                return UnloadModel(executor=executor.name, model=victim.id)
            self._is_short = True
        bid = self._bids.best_load(executor, self._per_ns(executor, now_ns), now_ns) if self._bids is not None else None
        if bid is not None and self._bids is not None:
            spec = self._view.models[bid.model].spec
            if executor.residency.can_load(spec.profile.memory_bytes):
                return LoadModel(executor=executor.name, model=spec.id)
            short = executor.residency.pages_needed(spec.profile.memory_bytes) - executor.residency.pages_free
            victims = sorted(self._victims(executor), key=lambda spec: self._worth(spec, executor, now_ns))
            lost = 0.0
            for victim in victims:
                lost += self._bids.keeping(executor, victim, 0.0, now_ns) * (
                    self._settings.copy_discount if self._is_elsewhere(victim.id, executor) else 1.0
                )
                short -= executor.residency.pages_needed(victim.profile.memory_bytes)
                if short <= 0:
                    break
            if short <= 0 and lost < bid.worth:
                self._evicted_ns = now_ns
                return UnloadModel(executor=executor.name, model=victims[0].id)
            self._is_short = True
        return self._copy_to(executor, now_ns) if self._settings.spread else None

    def _most_wanted(self, executor: ExecutorView) -> ModelSpec | None:
        keys = [
            (deadline_ns, model)
            for (name, model), deadline_ns in self._wanted.items()
            if name == executor.name and model in self._view.models and not executor.residency.is_here(model)
        ]
        return self._view.models[min(keys)[1]].spec if keys else None

    def _copy_to(self, executor: ExecutorView, now_ns: int) -> LoadModel | None:
        """Fill idle memory: a model held nowhere first, then the one most asked for."""
        free_bytes = executor.residency.pages_free * executor.residency.page_bytes
        best: tuple[bool, float] | None = None
        chosen = ""
        for model in self._view.models.values():
            spec = model.spec
            if executor.residency.is_here(spec.id) or model.broken or spec.profile.memory_bytes > free_bytes:
                continue
            rank = (not self._is_elsewhere(spec.id, executor), self._demand.per_s(spec.id, now_ns))
            if best is None or rank > best:
                best, chosen = rank, spec.id
        if best is None or not executor.residency.can_load(self._view.models[chosen].spec.profile.memory_bytes):
            return None
        return LoadModel(executor=executor.name, model=chosen)

    def _victims(self, executor: ExecutorView) -> list[ModelSpec]:
        idle = [
            self._view.models[model].spec
            for model in executor.residency.models()
            if model in self._view.models and executor.can_run(model) and not executor.uses(model)
        ]
        free = [spec for spec in idle if not self._is_waiting(spec.id, executor.name)]
        return free or (idle if self._settings.evict_waiting else [])

    def _worth(self, spec: ModelSpec, executor: ExecutorView, now_ns: int) -> float:
        pages = max(1, executor.residency.pages_needed(spec.profile.memory_bytes))
        worth = (self._demand.per_s(spec.id, now_ns) + 1e-6) * self._view.estimates.load_ns(spec) / pages
        return worth * (self._settings.copy_discount if self._is_elsewhere(spec.id, executor) else 1.0)

    def _is_elsewhere(self, model: str, executor: ExecutorView) -> bool:
        return any(other is not executor and other.residency.is_here(model) for other in self._view.executors.values())
