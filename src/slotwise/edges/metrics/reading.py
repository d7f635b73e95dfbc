"""Reads back what a scrape tells, and subtracts one scrape from a later one. Times are seconds, sizes bytes.

Counts of a `Reading` are those since the server's start, or, after `since`, those between two scrapes of the same
server; what is no count is as the later one has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from prometheus_client.parser import text_string_to_metric_families


class MetricsError(ValueError):
    """A text that is not a scrape of this kind of server."""


@dataclass(slots=True)
class Spread:
    """A histogram by the upper edges of its buckets; each count is of all up to there."""

    upto: dict[float, float] = field(default_factory=dict)

    def since(self, earlier: Self) -> Spread:
        """What came later."""
        return Spread({edge: count - earlier.upto.get(edge, 0.0) for edge, count in self.upto.items()})

    def quantile(self, share: float) -> float | None:
        """A duration that so many stay below, linear within its bucket; None without a sample.

        What lies beyond the last edge is told as that edge.
        """
        edges = sorted(self.upto)
        total = self.upto[edges[-1]] if edges else 0.0
        if total <= 0:
            return None
        low_edge, low_count = 0.0, 0.0
        for edge in edges:
            count = self.upto[edge]
            if count >= share * total and count > low_count:
                if edge == float("inf"):
                    break
                return low_edge + (edge - low_edge) * (share * total - low_count) / (count - low_count)
            low_edge, low_count = (edge, count) if edge != float("inf") else (low_edge, count)
        return low_edge


@dataclass(slots=True)
class ModelReading:
    """One version of a model."""

    ended: dict[tuple[str, str], float] = field(default_factory=dict)
    """Requests by outcome and reason."""
    attainment: float | None = None
    """Of the last minute."""
    latency: Spread = field(default_factory=Spread)
    """Of answers in time."""

    def since(self, earlier: Self) -> ModelReading:
        """What came later."""
        return ModelReading(
            ended=_later(self.ended, earlier.ended),
            attainment=self.attainment,
            latency=self.latency.since(earlier.latency),
        )


@dataclass(slots=True)
class ExecutorReading:
    """One executor. `None` stands for what was not told."""

    is_up: bool = False
    busy_s: float = 0.0
    in_flight: int = 0
    restarts: int = 0
    memory_bytes: float | None = None
    models: list[str] = field(default_factory=list)

    def since(self, earlier: Self) -> ExecutorReading:
        """What came later."""
        return ExecutorReading(
            is_up=self.is_up,
            busy_s=self.busy_s - earlier.busy_s,
            in_flight=self.in_flight,
            restarts=self.restarts,
            memory_bytes=self.memory_bytes,
            models=self.models,
        )


@dataclass(slots=True)
class Reading:
    """A scrape, or what is between two of them, over `seconds`."""

    seconds: float = 0.0
    version: str = ""
    policy: str = ""
    models: dict[str, ModelReading] = field(default_factory=dict)
    executors: dict[str, ExecutorReading] = field(default_factory=dict)
    lag: Spread = field(default_factory=Spread)
    in_flight: int = 0
    connections: int = 0
    memory_bytes: float | None = None
    rows_lost: float = 0.0
    """Of logs."""

    def since(self, earlier: Self) -> Reading:
        """What came after an earlier scrape of the same server."""
        models = {name: one.since(earlier.models.get(name, ModelReading())) for name, one in self.models.items()}
        executors = {
            name: one.since(earlier.executors.get(name, ExecutorReading())) for name, one in self.executors.items()
        }
        return Reading(
            seconds=self.seconds - earlier.seconds,
            version=self.version,
            policy=self.policy,
            models=models,
            executors=executors,
            lag=self.lag.since(earlier.lag),
            in_flight=self.in_flight,
            connections=self.connections,
            memory_bytes=self.memory_bytes,
            rows_lost=self.rows_lost,
        )


def read_scrape(text: str) -> Reading:
    """What a scrape in Prometheus' text format tells. Raises MetricsError."""
    reading = Reading()
    is_ours = False
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                is_ours = is_ours or sample.name == "slotwise_info"
                _take(reading, sample.name.removeprefix("slotwise_"), sample.labels, sample.value)
    except ValueError as error:
        raise MetricsError(f"these are no metrics: {error}") from error
    if not is_ours:
        raise MetricsError("these are the metrics of something else")
    return reading


def _take(reading: Reading, name: str, labels: Mapping[str, str], number: float) -> None:
    if "model" in labels:
        _take_model(reading, name, labels, number)
    elif "executor" in labels:
        _take_executor(reading.executors.setdefault(labels["executor"], ExecutorReading()), name, number)
    else:
        match name:
            case "info":
                reading.version, reading.policy = labels["version"], labels["policy"]
            case "uptime_seconds":
                reading.seconds = number
            case "loop_lag_seconds_bucket":
                reading.lag.upto[float(labels["le"])] = number
            case "requests_in_flight":
                reading.in_flight = int(number)
            case "connections":
                reading.connections = int(number)
            case "front_memory_bytes":
                reading.memory_bytes = number
            case "log_rows_lost_total":
                reading.rows_lost += number


def _take_model(reading: Reading, name: str, labels: Mapping[str, str], number: float) -> None:
    model = f"{labels['model']}/{labels['version']}"
    if name == "model_resident":
        reading.executors.setdefault(labels["executor"], ExecutorReading()).models.append(model)
        return
    one = reading.models.setdefault(model, ModelReading())
    match name:
        case "requests_total":
            one.ended[labels["outcome"], labels["reason"]] = number
        case "attainment_ratio":
            one.attainment = number
        case "request_duration_seconds_bucket":
            one.latency.upto[float(labels["le"])] = number


def _take_executor(one: ExecutorReading, name: str, number: float) -> None:
    match name:
        case "executor_up":
            one.is_up = number > 0
        case "executor_busy_seconds_total":
            one.busy_s = number
        case "executor_batches_in_flight":
            one.in_flight = int(number)
        case "executor_restarts":
            one.restarts = int(number)
        case "executor_memory_bytes":
            one.memory_bytes = number


def _later(
    counts: Mapping[tuple[str, str], float], earlier: Mapping[tuple[str, str], float]
) -> dict[tuple[str, str], float]:
    return {key: count - earlier.get(key, 0.0) for key, count in counts.items()}


def total(counts: Iterable[Mapping[tuple[str, str], float]]) -> dict[tuple[str, str], float]:
    """The sum of several counts by outcome and reason."""
    found: dict[tuple[str, str], float] = {}
    for one in counts:
        for key, count in one.items():
            found[key] = found.get(key, 0.0) + count
    return found
