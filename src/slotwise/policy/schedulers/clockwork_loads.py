"""Which model Clockwork loads next, and which one goes: demand, replication by priority, eviction by last use.

Demand is executor time asked for, in nanoseconds, scaled so that `capacity_ns` is what an executor can give: of all
requests under way, shared among the executors that hold the model in inverse proportion to their load; and
of those that wait and could still use a load. A model's priority is the second less the part of it that its
holders can serve. It is computed anew, lazily, when something about the model itself has changed.
"""

from __future__ import annotations

import heapq
import itertools

from slotwise.facts.types import FOREVER_NS, ModelSpec
from slotwise.facts.units import MS
from slotwise.facts.value import value
from slotwise.policy.schedulers.clockwork_lines import Line, LineName, Tracker, Waiting
from slotwise.policy.scheduling import LoadModel, UnloadModel
from slotwise.policy.view import ExecutorView, View

IDLE_LOAD_NS = 1.0 * MS
"""The load that every executor starts with, so that none is ever zero."""
IDLE_WEIGHT = 0.01


@value
class LoadSettings:
    """How models are replicated. The two last are True where Clockwork's published code errs."""

    capacity_ns: int
    ahead_ns: int
    is_replication_endless: bool
    """Whether a model that requests wait for is loaded though its holders can serve them all."""
    is_demand_endless: bool
    """Whether a request counts towards loads even when none could help it any more."""


class Model:
    """A model's requests and its holders: executors on which it is resident or being loaded, and their share of it."""

    __slots__ = ("holders", "last_use", "lines", "load_work_ns", "priority", "run_work_ns", "spec", "version")

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.lines: dict[LineName, Line] = {}
        self.holders: dict[str, float] = {}
        self.run_work_ns = 0
        self.load_work_ns = 0
        self.priority = 0.0
        self.last_use = 0
        self.version = 0


class Site:
    """An executor as Clockwork's loads see it: its loads under way, its share of the demand, its models by last use."""

    __slots__ = ("load_ns", "models", "tracker", "weight")

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.load_ns = IDLE_LOAD_NS
        self.weight = IDLE_WEIGHT
        self.models: dict[str, None] = {}

    def add(self, load_ns: float, capacity_ns: int) -> None:
        """Take demand on, or off where negative."""
        self.load_ns += load_ns
        self.weight = capacity_ns / self.load_ns


class Loads:
    """Chooses loads and evictions."""

    def __init__(self, view: View, models: dict[str, Model], settings: LoadSettings) -> None:
        self._view = view
        self._models = models
        self._settings = settings
        self._sites: dict[str, Site] = {}
        self._uses = itertools.count(1)
        self._serial = itertools.count()
        self._stale: dict[str, None] = {}
        self._cold: dict[str, None] = {}
        self._ranks: list[tuple[float, int, int, str, int]] = []
        self._horizons: list[tuple[int, int, Waiting]] = []
        self._room_for: LoadModel | None = None
        self._sent: LoadModel | None = None

    # What happens

    def up(self, executor: str, tracker: Tracker) -> None:
        """An executor is here, and holds nothing."""
        self._sites[executor] = Site(tracker)
        self._mark(*self._models)

    def lost(self, executor: str) -> None:
        """An executor and all that it held are gone."""
        for name in list(self._sites[executor].models):
            self.gone(executor, name)
        del self._sites[executor]
        self._mark(*self._models)

    def wait(self, waiting: Waiting, horizon_ns: int) -> None:
        """A request waits, and a load could help it until `horizon_ns`."""
        model = self._models[waiting.line.model]
        model.run_work_ns += waiting.run_work_ns
        model.load_work_ns += waiting.load_work_ns
        if not self._settings.is_demand_endless:
            heapq.heappush(self._horizons, (horizon_ns, next(self._serial), waiting))
        self._mark(waiting.line.model)

    def wait_no_more(self, waiting: Waiting) -> None:
        """A request was sent, or has ended: no load is needed for it."""
        if waiting.load_work_ns:
            self._models[waiting.line.model].load_work_ns -= waiting.load_work_ns
            waiting.load_work_ns = 0
            self._mark(waiting.line.model)

    def end(self, waiting: Waiting) -> None:
        """A request's work is over; it may have been tried in vain."""
        self.wait_no_more(waiting)
        model = self._models.get(waiting.line.model)
        if model is not None:
            model.run_work_ns -= waiting.run_work_ns
            self._mark(waiting.line.model)

    def use(self, executor: str, name: str) -> None:
        """A model is used on an executor: by a batch sent or back, a load begun or done."""
        if name not in self._models or executor not in self._models[name].holders:
            return
        site = self._sites[executor]
        self._models[name].last_use = next(self._uses)
        site.models.pop(name, None)
        site.models[name] = None

    def loaded(self, executor: str, name: str, load_id: int, ended_ns: int) -> None:
        """A load has succeeded."""
        self._sites[executor].tracker.done(load_id, ended_ns)
        self.use(executor, name)

    def failed(self, executor: str, name: str, load_id: int, now_ns: int) -> None:
        """A load has failed; its memory is free again."""
        self._sites[executor].tracker.failed(load_id, now_ns)
        self.gone(executor, name)

    def gone(self, executor: str, name: str) -> None:
        """A model is not on an executor any more."""
        site, model = self._sites.get(executor), self._models.get(name)
        if site is not None:
            site.models.pop(name, None)
        if model is not None and executor in model.holders:
            if site is not None:
                site.add(-model.holders[executor], self._settings.capacity_ns)
            del model.holders[executor]
            self._mark(name)

    def forget(self, name: str) -> None:
        """A model is taken off offer. Where it is still resident, it is about to be unloaded."""
        for executor in list(self._models[name].holders):
            self.gone(executor, name)
        self._cold.pop(name, None)
        self._stale.pop(name, None)

    # Choices

    def choose(self, now_ns: int) -> LoadModel | UnloadModel | None:
        """The next load, or an eviction that makes room for it."""
        self._note_sent(now_ns)
        if self._room_for is not None:
            return self._make_room(self._room_for)
        self._expire(now_ns)
        if not self._cold:
            return None
        self._rank()
        for executor in self._view.executors.values():
            tracker = self._sites[executor.name].tracker
            if not executor.is_replacing and tracker.free_ns(now_ns) < now_ns + self._settings.ahead_ns:
                name = self._best_for(executor)
                if name is not None:
                    return self._make_room(LoadModel(executor=executor.name, model=name))
        return None

    def due_ns(self, now_ns: int) -> int:
        """When the next executor has loaded nearly all that it was told to, if more could be loaded."""
        due_ns, ahead_ns = FOREVER_NS, self._settings.ahead_ns
        if self._cold:
            for site in self._sites.values():
                room_ns = site.tracker.room_ns(ahead_ns)
                if now_ns < room_ns < due_ns:
                    due_ns = room_ns
        return due_ns

    def _make_room(self, load: LoadModel) -> LoadModel | UnloadModel | None:
        """Load, once the memory is free; evict until it is."""
        executor = self._view.executors.get(load.executor)
        self._room_for = None
        if executor is None or load.model not in self._models:
            return None
        if executor.residency.can_load(self._models[load.model].spec.profile.memory_bytes):
            self._sent = load
            return load
        victim = self._victim(executor)
        if victim is None:
            return None
        self._room_for = load
        self.gone(load.executor, victim)
        return UnloadModel(executor=load.executor, model=victim)

    def _note_sent(self, now_ns: int) -> None:
        """Our last load is under way: it has a number now."""
        load, self._sent = self._sent, None
        if load is None:
            return
        load_id = self._view.executors[load.executor].residency.load_id(load.model)
        assert load_id is not None, f"{load.model} is not being loaded at {load.executor}"
        model = self._models[load.model]
        self._sites[load.executor].tracker.sent(load_id, self._view.estimates.load_ns(model.spec), now_ns)
        model.holders[load.executor] = 0.0
        self.use(load.executor, load.model)
        self._mark(load.model)

    def _best_for(self, executor: ExecutorView) -> str | None:
        """The model of the highest priority that is not here and could be."""
        aside = []
        best = None
        while self._ranks and best is None:
            rank = self._ranks[0]
            model = self._models.get(rank[3])
            if model is None or model.version != rank[4]:
                heapq.heappop(self._ranks)
                continue
            if model.priority <= 0 and not self._settings.is_replication_endless:
                break
            aside.append(heapq.heappop(self._ranks))
            if self._can_hold(executor, model.spec):
                best = rank[3]
        for rank in aside:
            heapq.heappush(self._ranks, rank)
        return best

    def _can_hold(self, executor: ExecutorView, spec: ModelSpec) -> bool:
        """Whether the model is not here, and there is room for it or a model that can go."""
        residency, nbytes = executor.residency, spec.profile.memory_bytes
        if residency.is_here(spec.id) or self._view.models[spec.id].broken:
            return False
        if residency.can_load(nbytes):
            return True
        fits = residency.pages_needed(nbytes) <= residency.pages_total
        return fits and any(self._can_go(name, executor) for name in self._sites[executor.name].models)

    def _can_go(self, name: str, executor: ExecutorView) -> bool:
        return executor.can_run(name) and not executor.uses(name)

    def _victim(self, executor: ExecutorView) -> str | None:
        """The model used longest ago, of those without requests if there are any."""
        oldest = None
        for name in self._sites[executor.name].models:
            if self._can_go(name, executor):
                if not self._models[name].run_work_ns:
                    return name
                oldest = oldest or name
        return oldest

    # Priorities

    def _mark(self, *names: str) -> None:
        """Something about these models has changed."""
        for name in names:
            model = self._models[name]
            self._stale[name] = None
            if model.load_work_ns and len(model.holders) < len(self._sites):
                self._cold[name] = None
            else:
                self._cold.pop(name, None)

    def _expire(self, now_ns: int) -> None:
        while self._horizons and self._horizons[0][0] <= now_ns:
            self.wait_no_more(heapq.heappop(self._horizons)[2])

    def _rank(self) -> None:
        """Share demand out anew, and rank the models that are short of holders."""
        for name in self._stale:
            model = self._models[name]
            model.version += 1
            model.priority = self._share_out(model)
            if name in self._cold:
                rank = (-model.priority, -model.last_use, next(self._serial), name, model.version)
                heapq.heappush(self._ranks, rank)
        self._stale.clear()

    def _share_out(self, model: Model) -> float:
        """Give each holder its share; what is left for others is the priority."""
        capacity_ns = self._settings.capacity_ns
        sites = [(executor, self._sites[executor]) for executor in model.holders]
        for executor, site in sites:
            site.add(-model.holders[executor], capacity_ns)
        total = sum(site.weight for _, site in sites)
        for executor, site in sites:
            share_ns = model.holders[executor] = model.run_work_ns * site.weight / total
            site.add(share_ns, capacity_ns)
        total = sum(site.weight for _, site in sites)
        served = sum(model.load_work_ns * site.weight / total * capacity_ns / site.load_ns for _, site in sites)
        return model.load_work_ns - served
