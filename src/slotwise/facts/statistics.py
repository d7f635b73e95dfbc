"""What has become of requests and batches: counts, sums and histograms, as values. Counting them is the engine's."""

from __future__ import annotations

from slotwise.facts.units import MS, US, S
from slotwise.facts.value import value

BUCKETS_NS: tuple[int, ...] = (
    *(50 * US, 100 * US, 200 * US, 500 * US),
    *(1 * MS, 2 * MS, 5 * MS, 10 * MS, 20 * MS, 50 * MS, 100 * MS, 200 * MS, 500 * MS),
    *(1 * S, 2 * S, 5 * S, 10 * S),
)
"""Upper edges of a histogram's buckets; what is above the last has one of its own."""


@value
class Histogram:
    """Durations: how many fell into each bucket, and how long all took together."""

    counts: tuple[int, ...]
    """One for each of `BUCKETS_NS`, and one for what is longer."""
    ns: int

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


@value
class BatchStatistics:
    """Runs of one batch size."""

    rows: int
    count: int
    ns: int


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
    rows_in_time: int
    batches_run: int
    success: Histogram
    """Of requests answered in time, from arrival to reply."""
    fail: Histogram
    """Of all others, refused ones too."""
    queue: Histogram
    """From arrival to sending, of requests that ran."""
    execution: Histogram
    returning: Histogram
    """From the end of the run to the reply."""
    batches: tuple[BatchStatistics, ...]
    outcomes: tuple[OutcomeCount, ...]
    attainment: float | None
    """The share of the last minute's requests that were answered in time; None when there were none."""
    arriving_per_s: float
    """Requests of the last minute that have ended, per second."""


@value
class ExecutorUse:
    """What one executor has done."""

    executor: str
    batches: int
    failures: int
    loads: int
    busy_ns: int
    cpu_ns: int
    """Processor time of its batches: below `busy_ns` where others take the core."""


@value
class LogUse:
    """What has become of the rows of one log."""

    log: str
    rows: int
    """Written."""
    rows_behind: int
    """Lost, for too many others waited to be written."""
    rows_unwritable: int
    """Lost to an error of the disk."""
