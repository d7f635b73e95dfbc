"""What came of a simulation: in all, by model, by executor and over time. Values, as `--json` writes them."""

from __future__ import annotations

import msgspec

from slotwise.facts.types import Outcome
from slotwise.facts.units import MS
from slotwise.sim.front import Tally


class ModelReport(msgspec.Struct, frozen=True):
    """What became of the requests to one model and its copies, or to all."""

    model: str
    offered: int
    in_time: int
    outcomes: dict[str, int]
    latency_ms_p50: float
    """Of answers, early or late."""
    latency_ms_p99: float
    latency_ms_max: float
    refusal_ms_p50: float


class ExecutorReport(msgspec.Struct, frozen=True):
    """What one executor did while requests came. `busy` is the share of time in which it ran batches."""

    executor: str
    busy: float
    batches: int
    rows_mean: float
    loads: int


class Point(msgspec.Struct, frozen=True):
    """An interval, `start_s` after the first request might come; requests count where they arrived."""

    start_s: float
    offered: int
    outcomes: dict[str, int]
    latency_ms_p50: float
    latency_ms_p99: float
    latency_ms_max: float
    batches: int
    """Batches and loads count where they were sent."""
    rows_mean: float
    loads: int


class Report(msgspec.Struct, frozen=True):
    """What came of a simulation. Times are virtual."""

    simulated: bool
    policy: str
    seed: int
    seconds: float
    goodput_per_s: float
    attainment: float
    """The share of all requests that was answered in time; 1 where nobody asked."""
    unanswered: int
    """Requests that still waited when the run was given up, long after the last one came."""
    total: ModelReport
    models: tuple[ModelReport, ...]
    executors: tuple[ExecutorReport, ...]
    interval_s: float
    course: tuple[Point, ...]


def model_report(model: str, tally: Tally) -> ModelReport:
    """A tally as a report has it."""
    return ModelReport(
        model=model,
        offered=tally.offered,
        in_time=tally.in_time,
        outcomes={outcome.value: tally.outcomes.get(outcome, 0) for outcome in Outcome},
        latency_ms_p50=tally.latency_ns_p50 / MS,
        latency_ms_p99=tally.latency_ns_p99 / MS,
        latency_ms_max=tally.latency_ns_max / MS,
        refusal_ms_p50=tally.refusal_ns_p50 / MS,
    )


def attainment(report: ModelReport) -> float:
    """The share of requests that was answered in time; 1 where nobody asked."""
    return report.in_time / report.offered if report.offered else 1.0
