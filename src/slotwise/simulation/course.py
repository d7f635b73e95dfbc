"""Watches a run: what happened in each interval of time, and what each executor did.

An `engine.ports.Recorder` for batches and loads; of requests it is told when they end, so those to a pipeline count as
one. Nothing that it keeps grows with the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from slotwise.facts.actions import Action, Load, Reply, RunBatch
from slotwise.facts.events import BatchDone, Event
from slotwise.facts.histogram import LogHistogram
from slotwise.facts.types import Outcome, Request
from slotwise.facts.units import MS, S
from slotwise.simulation.report import ExecutorReport, Point

ANSWERS = (Outcome.IN_TIME, Outcome.LATE)


class _Interval:
    """What fell into one interval."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.latencies = LogHistogram()
        self.batches = self.rows = self.loads = 0


class _Executor:
    """What one executor did."""

    def __init__(self) -> None:
        self.busy_ns = self.batches = self.rows = self.loads = 0


class Course:
    """Intervals from `start_ns` to `end_ns`, the last may be shorter. What comes before or after is left out."""

    def __init__(self, *, start_ns: int, end_ns: int, interval_ns: int, executors: Iterable[str]) -> None:
        self._start_ns = start_ns
        self._interval_ns = interval_ns
        self._end_ns = end_ns
        self._intervals = [_Interval() for _ in range(-(-(end_ns - start_ns) // interval_ns))]
        self._executors = {name: _Executor() for name in executors}

    def ended(self, request: Request, reply: Reply, now_ns: int) -> None:
        """A request has got its answer."""
        if not self._start_ns <= request.arrival_ns < self._end_ns:
            return
        interval = self._at(request.arrival_ns)
        interval.outcomes[reply.outcome] += 1
        if reply.outcome in ANSWERS:
            interval.latencies.add(now_ns - request.arrival_ns)

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Take one turn in."""
        if not self._start_ns <= now_ns < self._end_ns:
            return
        for event in events:
            if type(event) is BatchDone:
                self._executors[event.executor].busy_ns += event.ended_ns - max(event.started_ns, self._start_ns)
        for action in actions:
            if type(action) is RunBatch:
                self._count(action.executor, now_ns, rows=action.rows)
            elif type(action) is Load:
                self._count(action.executor, now_ns, rows=None)

    def _count(self, executor: str, now_ns: int, rows: int | None) -> None:
        """A batch of so many rows, or a load, was sent."""
        for part in (self._at(now_ns), self._executors[executor]):
            if rows is None:
                part.loads += 1
            else:
                part.batches += 1
                part.rows += rows

    def _at(self, instant_ns: int) -> _Interval:
        return self._intervals[(instant_ns - self._start_ns) // self._interval_ns]

    def points(self) -> tuple[Point, ...]:
        """Every interval."""
        return tuple(_point(part, index * self._interval_ns / S) for index, part in enumerate(self._intervals))

    def executors(self) -> tuple[ExecutorReport, ...]:
        """Every executor."""
        span_ns = max(1, self._end_ns - self._start_ns)
        return tuple(
            ExecutorReport(
                executor=name,
                busy=part.busy_ns / span_ns,
                batches=part.batches,
                rows_mean=part.rows / part.batches if part.batches else 0.0,
                loads=part.loads,
            )
            for name, part in self._executors.items()
        )


def _point(part: _Interval, start_s: float) -> Point:
    return Point(
        start_s=start_s,
        offered=part.outcomes.total(),
        outcomes={outcome.value: part.outcomes[outcome] for outcome in Outcome},
        latency_ms_p50=part.latencies.quantile(0.5) / MS,
        latency_ms_p99=part.latencies.quantile(0.99) / MS,
        latency_ms_max=part.latencies.ns_max / MS,
        batches=part.batches,
        rows_mean=part.rows / part.batches if part.batches else 0.0,
        loads=part.loads,
    )
