"""Workloads as values: who asks how often, for what, within which time; for live load and for simulation alike.

Nothing here sends, waits or reads a clock. `Stream`s are open loop: they ask whatever comes of it. `Clients` are closed
loop: each waits for its answer before it asks again. What a workload comes to, request by request, is in `arrivals`
(streams alone) and `player` (both).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field, replace

from slotwise.facts.types import FOREVER_NS, PRIORITY_DEFAULT, PRIORITY_HIGHEST, PRIORITY_LOWEST
from slotwise.facts.units import S
from slotwise.facts.value import value


class WorkloadError(ValueError):
    """A workload that cannot be; the text says what is wrong with it and what would be right."""


@value
class Poisson:
    """Independent arrivals: exponential gaps."""


@value
class Fixed:
    """Equal gaps; the first comes after a random part of one, so that streams do not march in step."""


@value
class Gamma:
    """Gaps with a coefficient of variation of `variation`: 1 is Poisson, above it arrivals clump."""

    variation: float

    def __post_init__(self) -> None:
        _require_positive("variation", self.variation)


@value
class Bursty:
    """Poisson arrivals in bursts of exponential length, with silence of exponential length between them.

    The stream's rate is its mean over bursts and silences; within a burst it is higher accordingly.
    """

    mean_burst_s: float
    mean_idle_s: float

    def __post_init__(self) -> None:
        _require_positive("mean_burst_s", self.mean_burst_s)
        _require_positive("mean_idle_s", self.mean_idle_s)


Process = Poisson | Fixed | Gamma | Bursty
POISSON = Poisson()


@value
class Phase:
    """A stretch of time in which rates are multiplied by `scale` and SLOs by `slo_scale`; it may last for `math.inf`.

    A ramp, of rates or of SLOs, is a row of phases.
    """

    duration_s: float
    scale: float = 1.0
    slo_scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.duration_s > 0:
            raise WorkloadError(f"duration_s of a phase is {self.duration_s}; it must be above 0, or math.inf")
        if not 0 <= self.scale < math.inf:
            raise WorkloadError(f"scale of a phase is {self.scale}; it must be a finite number, 0 or above")
        _require_positive("slo_scale of a phase", self.slo_scale)


@value
class Stream:
    """Requests of one kind for one model.

    `phases` of its own take the place of the workload's: a trace is a stream with a phase per interval.
    """

    model: str
    rate_per_s: float
    slo_ns: int
    rows: int = 1
    priority: int = PRIORITY_DEFAULT
    process: Process = field(default_factory=Poisson)
    phases: tuple[Phase, ...] = ()

    def __post_init__(self) -> None:
        where = f"of the stream for {self.model!r}"
        if not 0 <= self.rate_per_s < math.inf:
            raise WorkloadError(f"rate_per_s {where} is {self.rate_per_s}; it must be a finite number, 0 or above")
        _check_request(self.slo_ns, self.rows, self.priority, where)
        _require_endless_last(self.phases, where)


@value
class Clients:
    """Closed-loop clients of one kind: each asks, waits for its answer, and after `pause_ns` asks again.

    Together they ask the models in turn. They ask again whatever the answer was, at once also where it was a refusal,
    unless they heed what the server says about when to come back. With `bursts` they fall silent now and then.
    """

    models: tuple[str, ...]
    concurrency: int
    slo_ns: int
    rows: int = 1
    priority: int = PRIORITY_DEFAULT
    pause_ns: int = 0
    """From an answer to the same client's next request: its network, and its own work."""
    heeds_retry_after: bool = False
    requests_max: int | None = None
    """How many requests they send in all; None for no end."""
    start_within_s: float = 0.0
    """Each starts at a random instant in this time, so that they do not march in step."""
    bursts: Bursty | None = None
    phases: tuple[Phase, ...] = ()
    """How their SLO changes over time; after the last it stays. The workload's phases do not concern it."""

    def __post_init__(self) -> None:
        if not self.models:
            raise WorkloadError("clients ask for no model; name one at least")
        where = f"of the clients of {self.models[0]!r}"
        _check_request(self.slo_ns, self.rows, self.priority, where)
        if self.concurrency < 1:
            raise WorkloadError(f"concurrency {where} is {self.concurrency}; it must be 1 or above")
        if self.requests_max is not None and self.requests_max < 1:
            raise WorkloadError(f"requests_max {where} is {self.requests_max}; it must be 1 or above")
        if self.pause_ns < 0:
            raise WorkloadError(f"pause_ns {where} is {self.pause_ns}; it must be 0 or above")
        if not 0 <= self.start_within_s < math.inf:
            raise WorkloadError(
                f"start_within_s {where} is {self.start_within_s}; it must be a finite number, 0 or above"
            )
        _require_endless_last(self.phases, where)
        if any(phase.scale != 1.0 for phase in self.phases):
            raise WorkloadError(f"a phase {where} has a scale; clients have no rate, and only slo_scale is for them")


@value
class Arrival:
    """One request to come, `at_ns` after the workload's start."""

    at_ns: int
    model: str
    slo_ns: int
    rows: int
    priority: int


@value
class Workload:
    """Streams, clients and recorded requests side by side. Streams without phases of their own run through its phases.

    It ends with the last phase of all, and not before the last recorded request; clients ask from its start to its end.
    """

    streams: tuple[Stream, ...]
    phases: tuple[Phase, ...]
    seed: int
    clients: tuple[Clients, ...] = ()
    recorded: Sequence[Arrival] = ()
    """Requests as they once came, in order of time."""

    def __post_init__(self) -> None:
        _require_endless_last(self.phases, "of the workload")
        for stream in self.streams:
            if not (self.phases or stream.phases):
                raise WorkloadError(f"neither the workload nor its stream for {stream.model!r} has a phase; give one")
        if self.clients and not (self.phases or self.streams):
            raise WorkloadError("a workload of clients needs a phase, which says how long they ask")

    @property
    def duration_s(self) -> float:
        """From its start to its end; may be `math.inf`."""
        rows = [self.phases, *(stream.phases for stream in self.streams)]
        last_s = (self.recorded[-1].at_ns + 1) / S if self.recorded else 0.0
        return max(last_s, *(sum(phase.duration_s for phase in row) for row in rows))


def scaled(workload: Workload, factor: float) -> Workload:
    """The same workload with every rate multiplied by `factor`; clients have none.

    Raises WorkloadError, also for recorded requests, whose rate is what it was.
    """
    if workload.recorded and factor != 1:
        raise WorkloadError(
            f"the factor to scale by is {factor}, and recorded requests have no rate to scale; leave it 1"
        )
    if not 0 <= factor < math.inf:
        raise WorkloadError(f"the factor to scale by is {factor}; it must be a finite number, 0 or above")
    streams = tuple(replace(stream, rate_per_s=stream.rate_per_s * factor) for stream in workload.streams)
    return replace(workload, streams=streams)


def scaled_slo_ns(slo_ns: int, scale: float) -> int:
    """An SLO times a factor, within what is allowed."""
    return slo_ns if scale == 1.0 else max(1, min(FOREVER_NS, int(slo_ns * scale)))


def counted(counts: Sequence[float], interval_s: float) -> tuple[Phase, ...]:
    """Phases under which a stream of rate 1/s expects `counts[i]` arrivals in interval i, as a trace records them."""
    _require_positive("interval_s", interval_s)
    return tuple(Phase(duration_s=interval_s, scale=expected / interval_s) for expected in counts)


def _check_request(slo_ns: int, rows: int, priority: int, where: str) -> None:
    if not 0 < slo_ns <= FOREVER_NS:
        raise WorkloadError(f"slo_ns {where} is {slo_ns}; it must be above 0 (FOREVER_NS for no deadline)")
    if rows < 1:
        raise WorkloadError(f"rows {where} is {rows}; it must be 1 or above")
    if not PRIORITY_HIGHEST <= priority <= PRIORITY_LOWEST:
        allowed = f"from {PRIORITY_HIGHEST} (highest) to {PRIORITY_LOWEST} (lowest)"
        raise WorkloadError(f"priority {where} is {priority}; it must lie {allowed}")


def _require_positive(name: str, number: float) -> None:
    if not 0 < number < math.inf:
        raise WorkloadError(f"{name} is {number}; it must be a finite number above 0")


def _require_endless_last(phases: Sequence[Phase], where: str) -> None:
    if any(math.isinf(phase.duration_s) for phase in phases[:-1]):
        raise WorkloadError(f"a phase {where} follows an endless one; only the last may be endless")
