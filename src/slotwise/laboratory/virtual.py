"""What experiments in virtual time share: a workload played against a policy, and counts by stretches of its time.

A `Watch` is a recorder: it sees every turn, and counts requests by the stretch of time they arrived in and by the
group of their model. A request that arrived when no executor had its model ready is cold.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec

from slotwise.engine.ports import Recorder
from slotwise.facts.actions import Action, Reply, RunBatch, Unload
from slotwise.facts.events import Arrived, BatchDone, Event, ExecutorLost, Loaded
from slotwise.facts.types import ModelSpec, Outcome, Request
from slotwise.facts.units import MS, S
from slotwise.facts.value import value
from slotwise.policy.presets import NOTHING, build_controller
from slotwise.sim.fleet import FleetSettings
from slotwise.sim.world import World
from slotwise.workload.player import Player

WARM_UP_NS = 2 * S
"""Before the workload starts; whoever loads models unasked does it now."""
COOL_DOWN_NS = 5 * S
"""After the workload's end: what was accepted is answered."""


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one group that arrived in one stretch of time, and what became of them.

    Latencies are of answers, late ones too; `told_ms` is how long those waited that got none.
    """

    group: str
    index: int
    offered: int
    in_time: int
    late: int
    refused: int
    dropped: int
    failed: int
    cold: int
    """Of those in time."""
    latency_ms_p50: float
    latency_ms_p99: float
    latency_ms_max: float
    told_ms_p50: float


class Machinery(msgspec.Struct, frozen=True, kw_only=True):
    """What executors did in one stretch of time: all batches and loads that ended in it."""

    index: int
    run_s: float
    load_s: float
    batches: int
    answers: int
    loads: int

    @property
    def batch_mean(self) -> float:
        """Requests of a batch."""
        return self.answers / self.batches if self.batches else 0.0


class Watch:
    """Counts what happens. `stretches_ns` are the instants that part the time: stretch i is from i to i + 1."""

    def __init__(self, stretches_ns: Sequence[int], group_of: Callable[[str], str] = lambda _: "all") -> None:
        self._stretches = _Stretches(stretches_ns)
        self._group_of = group_of
        self._open: dict[int, _Open] = {}
        self._counts: dict[tuple[str, int], _Count] = {}
        self._holders: dict[str, set[str]] = {}
        self._rows: dict[int, int] = {}
        self._run_ns: Counter[int] = Counter()
        self._load_ns: Counter[int] = Counter()
        self._batches: Counter[int] = Counter()
        self._answers: Counter[int] = Counter()
        self._loads: Counter[int] = Counter()

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Follow one turn."""
        for event in events:
            if type(event) is Arrived:
                self._arrived(event.request)
            elif type(event) is BatchDone:
                self._done(event)
            elif type(event) is Loaded:
                self._loaded(event)
            elif type(event) is ExecutorLost:
                for holders in self._holders.values():
                    holders.discard(event.executor)
        for action in actions:
            if type(action) is Reply:
                self._replied(action, now_ns)
            elif type(action) is RunBatch:
                self._rows[action.batch_id] = len(action.requests)
            elif type(action) is Unload:
                self._holders[action.model].discard(action.executor)

    def stretches(self) -> list[Stretch]:
        """What was counted, by group and time; only where there was anything."""
        return [count.stretch(group, index) for (group, index), count in sorted(self._counts.items())]

    def machinery(self) -> list[Machinery]:
        """What executors did, a value for each stretch."""
        return [
            Machinery(
                index=index,
                run_s=self._run_ns[index] / S,
                load_s=self._load_ns[index] / S,
                batches=self._batches[index],
                answers=self._answers[index],
                loads=self._loads[index],
            )
            for index in range(self._stretches.count)
        ]

    def _arrived(self, request: Request) -> None:
        index = self._stretches.index(request.arrival_ns)
        if index is None:
            return
        key = (self._group_of(request.model), index)
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count()
        count.offered += 1
        is_cold = not self._holders.get(request.model)
        self._open[request.id] = _Open(count=count, arrival_ns=request.arrival_ns, is_cold=is_cold)

    def _replied(self, reply: Reply, now_ns: int) -> None:
        asked = self._open.pop(reply.request_id, None)
        if asked is not None:
            asked.count.add(reply.outcome, now_ns - asked.arrival_ns, asked.is_cold)

    def _done(self, event: BatchDone) -> None:
        rows = self._rows.pop(event.batch_id)
        index = self._stretches.index(event.ended_ns)
        if index is not None:
            self._run_ns[index] += event.ended_ns - event.started_ns
            self._batches[index] += 1
            self._answers[index] += rows

    def _loaded(self, event: Loaded) -> None:
        self._holders.setdefault(event.model, set()).add(event.executor)
        index = self._stretches.index(event.ended_ns)
        if index is not None:
            self._load_ns[index] += event.ended_ns - event.started_ns
            self._loads[index] += 1


def play(
    *,
    policy: str,
    models: Sequence[ModelSpec],
    fleet: FleetSettings,
    player: Player,
    seconds: float,
    watch: Watch,
    settings: Mapping[str, object] = NOTHING,
    seed: int = 1,
    recorders: Sequence[Recorder] = (),
) -> World:
    """Play a workload of so many seconds from `WARM_UP_NS` on, and go on until all is answered; the world then."""
    world = World(
        controller=build_controller(policy, settings=settings),
        models=models,
        fleet=fleet,
        seed=seed,
        recorders=(watch, *recorders),
    )
    world.play(player, WARM_UP_NS)
    world.run(WARM_UP_NS + int(seconds * S) + COOL_DOWN_NS)
    return world


class _Stretches:
    """Instants to stretches; neighbours in time mostly ask for the same one."""

    def __init__(self, instants_ns: Sequence[int]) -> None:
        self._instants_ns = instants_ns
        self.count = len(instants_ns) - 1

    def index(self, at_ns: int) -> int | None:
        """The stretch that an instant lies in; None before the first and after the last."""
        index = bisect_right(self._instants_ns, at_ns) - 1
        return index if 0 <= index < self.count else None


class _Count:
    """Requests of one group and stretch, while they are counted."""

    def __init__(self) -> None:
        self.offered = 0
        self._outcomes: Counter[Outcome] = Counter()
        self._cold = 0
        self._latencies_ns = array("q")
        self._told_ns = array("q")

    def add(self, outcome: Outcome, took_ns: int, is_cold: bool) -> None:
        """A request has ended."""
        self._outcomes[outcome] += 1
        if outcome is Outcome.IN_TIME:
            self._cold += is_cold
            self._latencies_ns.append(took_ns)
        elif outcome is Outcome.LATE:
            self._latencies_ns.append(took_ns)
        else:
            self._told_ns.append(took_ns)

    def stretch(self, group: str, index: int) -> Stretch:
        """What it came to."""
        latencies_ns, outcomes = sorted(self._latencies_ns), self._outcomes
        return Stretch(
            group=group,
            index=index,
            offered=self.offered,
            in_time=outcomes[Outcome.IN_TIME],
            late=outcomes[Outcome.LATE],
            refused=outcomes[Outcome.REFUSED],
            dropped=outcomes[Outcome.DROPPED],
            failed=outcomes[Outcome.FAILED],
            cold=self._cold,
            latency_ms_p50=_at(latencies_ns, 0.5),
            latency_ms_p99=_at(latencies_ns, 0.99),
            latency_ms_max=_at(latencies_ns, 1.0),
            told_ms_p50=_at(sorted(self._told_ns), 0.5),
        )


@value
class _Open:
    """A request that was not answered yet."""

    count: _Count
    arrival_ns: int
    is_cold: bool


def _at(ascending_ns: Sequence[int], share: float) -> float:
    """A quantile in milliseconds; 0 of nothing."""
    if not ascending_ns:
        return 0.0
    return round(ascending_ns[min(len(ascending_ns) - 1, int(share * len(ascending_ns)))] / MS, 3)
