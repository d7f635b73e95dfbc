"""What became of requests, by model: the numbers behind the protocol's statistics. A recorder; no I/O.

It reads each turn once and keeps sums only, and of the requests under way the model that each one is for.
A request counts as a success if it was answered in time; every other end is a failure, and `outcomes` says
which. Durations are nanoseconds on the engine's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from slotwise.facts.actions import Action, Reply, RunBatch
from slotwise.facts.events import Arrived, BatchDone, BatchFailed, Event, ExecutorLost, ModelRemoved
from slotwise.facts.types import Outcome, Reason, Request
from slotwise.facts.value import value


@value
class Duration:
    """How often something was done, and how long all of it took."""

    count: int
    ns: int


@value
class BatchStatistics:
    """Runs of one batch size."""

    rows: int
    execution: Duration


@value
class OutcomeCount:
    """Requests that ended in one way."""

    outcome: str
    reason: str
    count: int


@value
class ModelStatistics:
    """One version of a model, since the start or since it was last put on offer."""

    model: str
    last_inference_ns: int
    """When a batch of it last ended; 0 when none has."""
    inference_count: int
    """Rows answered in time."""
    execution_count: int
    """Batches run."""
    success: Duration
    """From arrival to the end of the run, as are failures that ran."""
    fail: Duration
    queue: Duration
    """From arrival to sending, of requests that ran."""
    execution: Duration
    returning: Duration
    """From the end of the run to the reply."""
    batches: tuple[BatchStatistics, ...]
    outcomes: tuple[OutcomeCount, ...]


class _Sum:
    __slots__ = ("count", "ns")

    def __init__(self) -> None:
        self.count = 0
        self.ns = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns

    def snapshot(self) -> Duration:
        return Duration(count=self.count, ns=self.ns)


class _Model:
    __slots__ = (
        "batches",
        "endings",
        "execution",
        "executions",
        "fail",
        "last_ns",
        "queue",
        "returning",
        "rows",
        "success",
    )

    def __init__(self) -> None:
        self.last_ns = 0
        self.rows = 0
        self.executions = 0
        self.success = _Sum()
        self.fail = _Sum()
        self.queue = _Sum()
        self.execution = _Sum()
        self.returning = _Sum()
        self.batches: dict[int, _Sum] = {}
        self.endings: Counter[tuple[str, str]] = Counter()

    def snapshot(self, model: str) -> ModelStatistics:
        in_time = Counter({(Outcome.IN_TIME.value, Reason.NONE.value): self.success.count})
        return ModelStatistics(
            model=model,
            last_inference_ns=self.last_ns,
            inference_count=self.rows,
            execution_count=self.executions,
            success=self.success.snapshot(),
            fail=self.fail.snapshot(),
            queue=self.queue.snapshot(),
            execution=self.execution.snapshot(),
            returning=self.returning.snapshot(),
            batches=tuple(
                BatchStatistics(rows=rows, execution=total.snapshot()) for rows, total in sorted(self.batches.items())
            ),
            outcomes=tuple(
                OutcomeCount(outcome=outcome, reason=reason, count=count)
                for (outcome, reason), count in sorted((self.endings + in_time).items())
            ),
        )


@value
class _Batch:
    model: str
    executor: str
    rows: int


class Statistics:
    """Counts what every turn of the engine brings; an `engine.ports.Recorder`."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._requests: dict[int, Request] = {}
        self._batches: dict[int, _Batch] = {}

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Take one turn in."""
        for event in events:
            kind = type(event)
            if kind is Arrived:
                self._requests[event.request.id] = event.request  # type: ignore[union-attr]  # narrowed by `kind`
            elif kind is BatchDone:
                self._batch_done(event)  # type: ignore[arg-type]  # narrowed by `kind`
            elif kind is BatchFailed:
                self._batches.pop(event.batch_id, None)  # type: ignore[union-attr]  # narrowed by `kind`
            elif kind is ExecutorLost:
                self._executor_lost(event.executor)  # type: ignore[union-attr]  # narrowed by `kind`
            elif kind is ModelRemoved:
                self._models.pop(event.model, None)  # type: ignore[union-attr]  # narrowed by `kind`
        for action in actions:
            if type(action) is Reply:
                self._replied(action, now_ns)
            elif type(action) is RunBatch:
                self._batches[action.batch_id] = _Batch(model=action.model, executor=action.executor, rows=action.rows)

    def snapshot(self, model: str) -> ModelStatistics:
        """What is known of one version of a model; all zero when nothing has happened."""
        return self._models.get(model, _Model()).snapshot(model)

    def _of(self, model: str) -> _Model:
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = _Model()
        return found

    def _batch_done(self, event: BatchDone) -> None:
        batch = self._batches.pop(event.batch_id, None)
        if batch is None:
            return
        model = self._of(batch.model)
        model.executions += 1
        model.last_ns = event.ended_ns
        total = model.batches.get(batch.rows)
        if total is None:
            total = model.batches[batch.rows] = _Sum()
        total.add(event.ended_ns - event.started_ns)

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
        if reply.outcome is Outcome.IN_TIME:
            model.rows += request.rows
            model.success.add(now_ns - request.arrival_ns)
        else:
            model.fail.add(now_ns - request.arrival_ns)
            model.endings[reply.outcome.value, reply.reason.value] += 1
