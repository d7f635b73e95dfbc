"""Which models are resident where: loads and evictions, one at a time, shared by every scheduler but Clockwork's.

An executor loads one model at a time. What requests were promised comes first, by deadline; then the load that is worth
most to those that bid for one, if there is an auction; then models whose requests were refused because no
load could be in time, if more is asked of them than of those that would make way; and last, if asked for, memory that
lies idle is filled with copies, the models in most demand first. To make room the model goes whose memory is worth
least: demand times the cost of loading it again, per page, and less where other executors hold it too. A model with a
batch under way is never evicted, nor, unless the settings say so, one that requests wait for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Protocol

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
from slotwise.facts.types import FOREVER_NS, ModelSpec
from slotwise.facts.units import MS, US, S
from slotwise.facts.value import value
from slotwise.policy.demand import Demand
from slotwise.policy.scheduling import LoadModel, UnloadModel
from slotwise.policy.view import ExecutorView, View

CHANGES: frozenset[type[Event]] = frozenset(
    (ModelAdded, ModelRemoved, Loaded, LoadFailed, Unloaded, ExecutorUp, ExecutorLost)
)


@value
class PlacementSettings:
    """`spread` fills idle memory with copies of models; without it a model is loaded only when it is asked for."""

    spread: bool = True
    evict_waiting: bool = False
    """Whether a model that requests wait for may be evicted where no other may; a promise to them is broken."""
    copy_discount: float = 0.2
    """What holding a model is worth where another executor holds it too, beside holding the only copy."""
    ahead_ns: int = 150 * US
    """How long before a load ends the next is sent that requests bid for, so that no time is lost between them."""
    again_ns: int = 2 * MS
    """How soon all bids are looked at again where no load was worth making; new ones are looked at when they come."""
    missed_ns: int = 2 * S
    """For how long a refused request makes its model wanted."""
    exchange_ratio: float = 2.0
    """How much more must be asked of a model that nobody waits for than of those that make way for it."""


class Bidder(Protocol):
    """A model that requests would have loaded, and what that is worth in all."""

    spec: ModelSpec
    worth: float


class Auction(Protocol):
    """Where requests bid for loads; its length is how many there are."""

    def __len__(self) -> int: ...

    def best_load(self, executor: ExecutorView, only: Collection[str] | None, now_ns: int) -> Bidder | None:
        """The load that goes first, of `only` these models where given."""

    def keeping(self, executor: ExecutorView, spec: ModelSpec, now_ns: int) -> float:
        """What holding a model is worth, as a bid's worth counts it."""


class Placement:
    """Chooses loads and evictions. `is_waiting(model, executor)` tells which residents have requests waiting."""

    def __init__(
        self,
        view: View,
        demand: Demand,
        settings: PlacementSettings,
        is_waiting: Callable[[str, str], bool],
        auction: Auction | None = None,
    ) -> None:
        self._view = view
        self._demand = demand
        self._settings = settings
        self._is_waiting = is_waiting
        self._auction = auction
        self._wanted: dict[tuple[str, str], int] = {}
        self._missed: dict[str, int] = {}
        self._fresh: dict[str, None] = {}
        self._is_stale = False
        self._is_short = False
        """Whether something was left to be desired, so that whatever happens next may help."""
        self._room_for: dict[str, str] = {}
        self._again_ns: dict[str, int] = {}
        self._due_ns = FOREVER_NS

    def want(self, executor: str, model: str, deadline_ns: int) -> None:
        """Requests wait for this model to be loaded there; the earliest deadline counts."""
        key = (executor, model)
        self._wanted[key] = min(deadline_ns, self._wanted.get(key, deadline_ns))
        self._is_stale = True

    def look_at(self, model: str) -> None:
        """A request bids for a load of this model."""
        self._fresh[model] = None

    def miss(self, model: str, now_ns: int) -> None:
        """A request was refused because the model is nowhere and no load could be in time."""
        self._missed[model] = now_ns
        self._is_stale = True

    def forgo(self, executor: str, model: str) -> None:
        """Nothing waits for this load any more."""
        self._wanted.pop((executor, model), None)

    def noted(self, event: Event) -> None:
        """Something happened that may call for a load."""
        if type(event) is Loaded or type(event) is LoadFailed:
            self._wanted.pop((event.executor, event.model), None)
        elif type(event) is ExecutorLost:
            self._again_ns.pop(event.executor, None)
            for key in [key for key in self._wanted if key[0] == event.executor]:
                del self._wanted[key]
        elif type(event) is ModelRemoved:
            for key in [key for key in self._wanted if key[1] == event.model]:
                del self._wanted[key]
            self._missed.pop(event.model, None)
        self._is_stale = self._is_stale or self._is_short or type(event) in CHANGES

    def is_anywhere(self, model: str) -> bool:
        """Whether any executor holds the model, or is loading it."""
        return self._view.copies(model) > 0

    def wait_ns(self, executor: ExecutorView, now_ns: int) -> int:
        """How long a load asked for now would wait behind those under way and promised before it."""
        if not self._wanted:
            return self._view.load_wait_ns(executor, now_ns)
        wanted_ns = sum(
            self._view.estimates.load_ns(self._view.models[model].spec)
            for (name, model) in self._wanted
            if name == executor.name and model in self._view.models and not executor.residency.is_here(model)
        )
        return self._view.load_wait_ns(executor, now_ns) + wanted_ns

    def can_hold(self, executor: ExecutorView, spec: ModelSpec) -> bool:
        """Whether the model would fit if everything that may go went."""
        residency = executor.residency
        # One that is here is being loaded, or leaves to be loaded anew: the room is its own.
        if residency.is_here(spec.id) or residency.can_load(spec.profile.memory_bytes):
            return True
        freed = sum(residency.pages_needed(victim.profile.memory_bytes) for victim in self._victims(executor))
        return residency.pages_needed(spec.profile.memory_bytes) <= residency.pages_free + freed

    def fits(self, executor: ExecutorView, spec: ModelSpec) -> bool:
        """Whether the model would fit if it were alone."""
        residency = executor.residency
        return residency.pages_needed(spec.profile.memory_bytes) <= residency.pages_total

    def choose(self, now_ns: int) -> LoadModel | UnloadModel | None:
        """The next load, or the eviction that makes room for it; None when all is well placed."""
        is_stale = self._is_stale or now_ns >= self._due_ns
        if not is_stale and not self._fresh:
            return None
        self._is_stale = is_stale  # a load may be due, and stays so until there is none to choose
        self._is_short = False if is_stale else self._is_short
        self._due_ns = FOREVER_NS
        for executor in self._view.executors.values():
            if executor.is_replacing or self._is_loading(executor, now_ns):
                continue
            choice = self._choose_for(executor, None if is_stale else self._fresh, now_ns)
            if choice is not None:
                return choice
        self._is_stale = False
        self._fresh.clear()
        return None

    def due_ns(self) -> int:
        """When a load is so near its end that the next may be sent."""
        return self._due_ns

    def _is_loading(self, executor: ExecutorView, now_ns: int) -> bool:
        """Whether an executor has enough to load for now."""
        if not executor.loads or executor.name in self._room_for:
            return False
        if len(executor.loads) > 1 or self._auction is None or not len(self._auction):
            return True
        (load,) = executor.loads.values()
        soon_ns = load.predicted_end_ns - self._settings.ahead_ns
        if now_ns < soon_ns:
            self._due_ns = min(self._due_ns, soon_ns)
        return now_ns < soon_ns

    def _choose_for(
        self, executor: ExecutorView, only: Collection[str] | None, now_ns: int
    ) -> LoadModel | UnloadModel | None:
        model = self._room_for.pop(executor.name, "")
        if model in self._view.models:
            return self._make_room(executor, self._view.models[model].spec, math.inf, now_ns)
        choice = None
        wanted = self._most_wanted(executor)
        if wanted is not None:
            choice = self._make_room(executor, wanted, math.inf, now_ns)
        if choice is None and self._auction is not None and len(self._auction):
            choice = self._sell(self._auction, executor, only, now_ns)
        if choice is None and only is None:
            choice = self._exchange(executor, now_ns) or self._copy(executor, now_ns)
        return choice

    def _sell(
        self, auction: Auction, executor: ExecutorView, only: Collection[str] | None, now_ns: int
    ) -> LoadModel | UnloadModel | None:
        """The load that is worth most to those who bid, if it is worth its room."""
        self._is_short = True
        if not executor.residency.pages_free and not self._has_victim(executor):
            return None
        again_ns = self._again_ns.get(executor.name, 0)
        if only is None and now_ns < again_ns:
            self._due_ns = min(self._due_ns, again_ns)
            only = self._fresh
        group = auction.best_load(executor, only, now_ns)
        choice = None
        if group is not None:
            leaving = self._cheapest(executor, group.spec, now_ns)
            if leaving is None:
                return None
            choice = self._replace(executor, leaving, group.spec, group.worth, now_ns)
        if choice is None and only is None and len(self._victims(executor)) == len(executor.residency.models()):
            # Nobody has to be waited for: only prices may change, and they do so slowly.
            self._again_ns[executor.name] = again_ns = now_ns + self._settings.again_ns
            self._due_ns = min(self._due_ns, again_ns) if again_ns > now_ns else self._due_ns
        return choice

    def _make_room(
        self, executor: ExecutorView, spec: ModelSpec, worth: float, now_ns: int
    ) -> LoadModel | UnloadModel | None:
        """Load, once there is room; evict until there is, unless those that must go are worth more."""
        victims = self._cheapest(executor, spec, now_ns)
        if victims is None:
            self._is_short = True
            return None
        return self._replace(executor, victims, spec, worth, now_ns)

    def _replace(
        self, executor: ExecutorView, victims: list[ModelSpec], spec: ModelSpec, worth: float, now_ns: int
    ) -> LoadModel | UnloadModel | None:
        if not victims:
            return LoadModel(executor=executor.name, model=spec.id)
        if worth < math.inf and worth <= sum(self._kept(victim, executor, now_ns) for victim in victims):
            return None
        self._room_for[executor.name] = spec.id
        return UnloadModel(executor=executor.name, model=victims[0].id)

    def _cheapest(self, executor: ExecutorView, spec: ModelSpec, now_ns: int) -> list[ModelSpec] | None:
        """The models of least worth that must go for this one; None where too few may."""
        residency = executor.residency
        short = residency.pages_needed(spec.profile.memory_bytes) - residency.pages_free
        if short <= 0:
            return []
        victims = self._victims(executor)
        worths = [self._worth(victim, executor, now_ns) for victim in victims]
        chosen: list[ModelSpec] = []
        while victims and short > 0:
            place = _first_least(worths)
            victim = victims.pop(place)
            del worths[place]
            chosen.append(victim)
            short -= residency.pages_needed(victim.profile.memory_bytes)
        return chosen if short <= 0 else None

    def _kept(self, spec: ModelSpec, executor: ExecutorView, now_ns: int) -> float:
        assert self._auction is not None, "only bids are weighed against what is kept"
        kept = self._auction.keeping(executor, spec, now_ns)
        return kept * (self._settings.copy_discount if self._view.is_elsewhere(spec.id, executor) else 1.0)

    def _exchange(self, executor: ExecutorView, now_ns: int) -> LoadModel | UnloadModel | None:
        """Fetch what is asked for and on no executor, if much less is asked of what would have to go."""
        best: ModelSpec | None = None
        best_per_s = 0.0
        for model, missed_ns in list(self._missed.items()):
            known = self._view.models.get(model)
            if known is None or known.broken or now_ns - missed_ns > self._settings.missed_ns:
                del self._missed[model]
            elif not self.is_anywhere(model) and self.fits(executor, known.spec):
                per_s = self._demand.per_s(model, now_ns)
                if best is None or per_s > best_per_s:
                    best, best_per_s = known.spec, per_s
        victims = None if best is None else self._cheapest(executor, best, now_ns)
        if best is None or victims is None:
            return None
        lost_per_s = sum(self._demand.per_s(victim.id, now_ns) for victim in victims)
        if victims and best_per_s <= self._settings.exchange_ratio * lost_per_s:
            return None
        return self._replace(executor, victims, best, math.inf, now_ns)

    def _most_wanted(self, executor: ExecutorView) -> ModelSpec | None:
        if not self._wanted:
            return None
        keys = [
            (deadline_ns, model)
            for (name, model), deadline_ns in self._wanted.items()
            if name == executor.name and model in self._view.models and not executor.residency.is_here(model)
        ]
        return self._view.models[min(keys)[1]].spec if keys else None

    def _copy(self, executor: ExecutorView, now_ns: int) -> LoadModel | None:
        """Fill idle memory: a model held nowhere first, then the one most asked for."""
        has_bids = self._auction is not None and len(self._auction) > 0
        if has_bids or not self._settings.spread or not executor.residency.pages_free:
            return None
        free_bytes = executor.residency.pages_free * executor.residency.page_bytes
        chosen: ModelSpec | None = None
        is_best_only, best_per_s = False, 0.0
        for model, known in self._view.models.items():
            if executor.residency.is_here(model) or known.broken or known.spec.profile.memory_bytes > free_bytes:
                continue
            is_only = not self._view.is_elsewhere(model, executor)
            per_s = self._demand.per_s(model, now_ns)
            if chosen is None or is_only > is_best_only or (is_only == is_best_only and per_s > best_per_s):
                chosen, is_best_only, best_per_s = known.spec, is_only, per_s
        if chosen is None or not executor.residency.can_load(chosen.profile.memory_bytes):
            return None
        return LoadModel(executor=executor.name, model=chosen.id)

    def _victims(self, executor: ExecutorView) -> list[ModelSpec]:
        """The models that may go: those no batch needs, and of them those nobody waits for, if there are any."""
        busy = [batch.spec.id for batch in executor.batches]
        models, free, idle = self._view.models, [], []
        for model in executor.residency.models():
            known = models.get(model)
            if known is None or model in busy or not executor.can_run(model):
                continue
            idle.append(known.spec)
            if not self._is_waiting(model, executor.name):
                free.append(known.spec)
        return free or (idle if self._settings.evict_waiting else [])

    def _has_victim(self, executor: ExecutorView) -> bool:
        """Whether any model may go; most can, so most often the first one tells."""
        busy = [batch.spec.id for batch in executor.batches]
        for model in executor.residency.models():
            is_idle = model in self._view.models and model not in busy and executor.can_run(model)
            if is_idle and (self._settings.evict_waiting or not self._is_waiting(model, executor.name)):
                return True
        return False

    def _worth(self, spec: ModelSpec, executor: ExecutorView, now_ns: int) -> float:
        model = spec.id
        pages = max(1, executor.residency.pages_needed(spec.profile.memory_bytes))
        worth = (self._demand.per_s(model, now_ns) + 1e-6) * self._view.estimates.load_ns(spec) / pages
        return worth * (self._settings.copy_discount if self._view.is_elsewhere(model, executor) else 1.0)


def _first_least(worths: list[float]) -> int:
    """The place of the least, the first of equals."""
    least, at = worths[0], 0
    for place, worth in enumerate(worths):
        if worth < least:
            least, at = worth, place
    return at
