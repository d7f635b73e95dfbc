"""Counts what every turn of the engine brings; a `ports.Recorder`. No I/O, no clock: a turn brings its instant.

It reads each turn once and keeps sums only, and of the requests under way the model that each one is for. A
request counts as a success if it was answered in time; every other end is a failure, and `outcomes` says
which. Durations are nanoseconds on the engine's clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from slotwise.facts.actions import Action, Reply, RunBatch
from slotwise.facts.events import Arrived, BatchDone, BatchFailed, Event, ExecutorLost, Loaded, ModelRemoved
from slotwise.facts.statistics import BUCKETS_NS, BatchStatistics, ExecutorUse, Histogram, ModelStatistics, OutcomeCount
from slotwise.facts.types import Outcome, Request
from slotwise.facts.units import S
from slotwise.facts.value import value

RECENT_NS = 60 * S
SLOTS = 6
"""The recent past is kept in so many stretches, the oldest of which is forgotten as a whole."""


class Durations:
    """A histogram that grows."""

    __slots__ = ("counts", "ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_NS) + 1)
        self.ns = 0

    def add(self, ns: int) -> None:
        """Count one in."""
        self.counts[bisect_left(BUCKETS_NS, ns)] += 1
        self.ns += ns

    def snapshot(self) -> Histogram:
        """As it stands."""
        return Histogram(counts=tuple(self.counts), ns=self.ns)


class _Recent:
    """Requests that have ended, and those in time among them, over the last minute."""

    __slots__ = ("_ended", "_in_time", "_stretch")

    def __init__(self) -> None:
        self._ended = [0] * SLOTS
        self._in_time = [0] * SLOTS
        self._stretch = 0

    def add(self, is_in_time: bool, now_ns: int) -> None:
        self._move_on(now_ns)
        self._ended[self._stretch % SLOTS] += 1
        self._in_time[self._stretch % SLOTS] += is_in_time

    def counts(self, now_ns: int) -> tuple[int, int]:
        self._move_on(now_ns)
        return sum(self._ended), sum(self._in_time)

    def _move_on(self, now_ns: int) -> None:
        stretch = now_ns * SLOTS // RECENT_NS
        for gone in range(max(self._stretch + 1, stretch - SLOTS + 1), stretch + 1):
            self._ended[gone % SLOTS] = self._in_time[gone % SLOTS] = 0
        self._stretch = max(self._stretch, stretch)


class _Model:
    __slots__ = (
        "batches",
        "endings",
        "execution",
        "fail",
        "last_ns",
        "queue",
        "recent",
        "returning",
        "rows",
        "success",
    )

    def __init__(self) -> None:
        self.last_ns = 0
        self.rows = 0
        self.success = Durations()
        self.fail = Durations()
        self.queue = Durations()
        self.execution = Durations()
        self.returning = Durations()
        self.batches: dict[int, list[int]] = {}
        """By rows: how many batches, and how long they ran."""
        self.endings: Counter[tuple[str, str]] = Counter()
        self.recent = _Recent()

    def snapshot(self, model: str, now_ns: int) -> ModelStatistics:
        ended, in_time = self.recent.counts(now_ns)
        batches = [BatchStatistics(rows=rows, count=n, ns=ns) for rows, (n, ns) in sorted(self.batches.items())]
        outcomes = sorted(self.endings.items())
        return ModelStatistics(
            model=model,
            last_inference_ns=self.last_ns,
            rows_in_time=self.rows,
            batches_run=sum(batch.count for batch in batches),
            success=self.success.snapshot(),
            fail=self.fail.snapshot(),
            queue=self.queue.snapshot(),
            execution=self.execution.snapshot(),
            returning=self.returning.snapshot(),
            batches=tuple(batches),
            outcomes=tuple(OutcomeCount(outcome=end, reason=why, count=n) for (end, why), n in outcomes),
            attainment=in_time / ended if ended else None,
            arriving_per_s=ended * S / RECENT_NS,
        )


class _Executor:
    __slots__ = ("batches", "busy_ns", "cpu_ns", "failures", "loads")

    def __init__(self) -> None:
        self.batches = self.failures = self.loads = self.busy_ns = self.cpu_ns = 0


@value
class _Batch:
    model: str
    executor: str
    rows: int


class Statistics:
    """The sums, by model and by executor; a `ports.ModelCounts` as well."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._executors: dict[str, _Executor] = {}
        self._requests: dict[int, Request] = {}
        self._batches: dict[int, _Batch] = {}
        self._now_ns = 0

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Take one turn in."""
        self._now_ns = now_ns
        for event in events:
            kind = type(event)
            if kind is Arrived:
                self._requests[event.request.id] = event.request  # type: ignore[union-attr]  # narrowed by `kind`
            elif kind is BatchDone:
                self._batch_done(event)  # type: ignore[arg-type]  # narrowed by `kind`
            elif kind is BatchFailed:
                self._batches.pop(event.batch_id, None)  # type: ignore[union-attr]  # narrowed by `kind`
                self._at(event.executor).failures += 1  # type: ignore[union-attr]  # narrowed by `kind`
            elif kind is Loaded:
                self._at(event.executor).loads += 1  # type: ignore[union-attr]  # narrowed by `kind`
            elif kind is ExecutorLost:
                self._executor_lost(event.executor)  # type: ignore[union-attr]  # narrowed by `kind`
            elif kind is ModelRemoved:
                self._models.pop(event.model, None)  # type: ignore[union-attr]  # narrowed by `kind`
        for action in actions:
            if type(action) is Reply:
                self._replied(action, now_ns)
            elif type(action) is RunBatch:
                self._batches[action.batch_id] = _Batch(model=action.model, executor=action.executor, rows=action.rows)

    def model(self, model: str) -> ModelStatistics:
        """What is known of one version of a model; all zero when nothing has happened."""
        return self._models.get(model, _Model()).snapshot(model, self._now_ns)

    def models(self, now_ns: int) -> list[ModelStatistics]:
        """Every model of which anything is known."""
        return [found.snapshot(model, now_ns) for model, found in self._models.items()]

    def executors(self) -> list[ExecutorUse]:
        """Every executor that has done anything, those that are gone as well."""
        return [
            ExecutorUse(
                executor=name,
                batches=one.batches,
                failures=one.failures,
                loads=one.loads,
                busy_ns=one.busy_ns,
                cpu_ns=one.cpu_ns,
            )
            for name, one in self._executors.items()
        ]

    def _of(self, model: str) -> _Model:
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = _Model()
        return found

    def _at(self, executor: str) -> _Executor:
        found = self._executors.get(executor)
        if found is None:
            found = self._executors[executor] = _Executor()
        return found

    def _batch_done(self, event: BatchDone) -> None:
        batch = self._batches.pop(event.batch_id, None)
        if batch is None:
            return
        took_ns = event.ended_ns - event.started_ns
        executor = self._at(event.executor)
        executor.batches += 1
        executor.busy_ns += took_ns
        executor.cpu_ns += event.cpu_ns
        model = self._of(batch.model)
        model.last_ns = event.ended_ns
        total = model.batches.setdefault(batch.rows, [0, 0])
        total[0] += 1
        total[1] += took_ns

    def _executor_lost(self, executor: str) -> None:
        self._batches = {key: batch for key, batch in self._batches.items() if batch.executor != executor}

    def _replied(self, reply: Reply, now_ns: int) -> None:
        request = self._requests.pop(reply.request_id, None)
        if request is None:
            return
        model = self._of(request.model)
        timing = reply.timing
        if timing is not None:
            model.queue.add(timing.sent_ns - request.arrival_ns)
            model.execution.add(timing.ended_ns - timing.started_ns)
            model.returning.add(max(0, now_ns - timing.ended_ns))
        is_in_time = reply.outcome is Outcome.IN_TIME
        if is_in_time:
            model.rows += request.rows
        (model.success if is_in_time else model.fail).add(now_ns - request.arrival_ns)
        model.endings[reply.outcome.value, reply.reason.value] += 1
        if reply.outcome is not Outcome.CANCELLED:
            model.recent.add(is_in_time, now_ns)
