"""Open-loop workloads: values that say who asks how often, and the arrivals they stand for.

Nothing here sends, waits or reads a clock. An arrival's time counts from the start of the workload;
whoever plays it, live or simulated, adds that start.

How it works: a stream draws gaps with a mean of one and spends them along its rate, which is constant in
pieces. What is left of a gap when the rate changes is spent at the new rate, so changes in the middle of
a gap are exact. Every stream has generators of its own, seeded from the workload's seed and the stream's
model: adding a stream does not move the others, and scaling a rate keeps the same gaps and bursts.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field, replace
from itertools import chain, count, repeat

from slotwise.facts.types import FOREVER_NS, PRIORITY_DEFAULT, PRIORITY_HIGHEST, PRIORITY_LOWEST, Request
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
    """A stretch of time in which every rate is multiplied by `scale`. It may be endless (`math.inf`)."""

    duration_s: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.duration_s > 0:
            raise WorkloadError(f"duration_s of a phase is {self.duration_s}; it must be above 0, or math.inf")
        if not 0 <= self.scale < math.inf:
            raise WorkloadError(f"scale of a phase is {self.scale}; it must be a finite number, 0 or above")


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
        if not 0 < self.slo_ns <= FOREVER_NS:
            raise WorkloadError(f"slo_ns {where} is {self.slo_ns}; it must be above 0 (FOREVER_NS for no deadline)")
        if self.rows < 1:
            raise WorkloadError(f"rows {where} is {self.rows}; it must be 1 or above")
        if not PRIORITY_HIGHEST <= self.priority <= PRIORITY_LOWEST:
            allowed = f"from {PRIORITY_HIGHEST} (highest) to {PRIORITY_LOWEST} (lowest)"
            raise WorkloadError(f"priority {where} is {self.priority}; it must lie {allowed}")
        _require_endless_last(self.phases, where)


@value
class Workload:
    """Streams that run side by side through the same phases. It ends with its last phase."""

    streams: tuple[Stream, ...]
    phases: tuple[Phase, ...]
    seed: int

    def __post_init__(self) -> None:
        _require_endless_last(self.phases, "of the workload")
        for stream in self.streams:
            if not (self.phases or stream.phases):
                raise WorkloadError(f"neither the workload nor its stream for {stream.model!r} has a phase; give one")


@value
class Arrival:
    """One request to come, `at_ns` after the workload's start."""

    at_ns: int
    model: str
    slo_ns: int
    rows: int
    priority: int


def arrivals(workload: Workload) -> Iterator[Arrival]:
    """All arrivals in order of time, made as they are asked for; the same for the same workload, always.

    Of those at the same nanosecond the earlier stream's comes first.
    """
    streams = workload.streams
    draws = [instants.__next__ for instants in _streams_instants(workload)]
    heap: list[tuple[int, int]] = []
    for serial, draw in enumerate(draws):
        _push_next(heap, serial, draw)
    while heap:
        at_ns, serial = heap[0]
        stream = streams[serial]
        yield Arrival(at_ns=at_ns, model=stream.model, slo_ns=stream.slo_ns, rows=stream.rows, priority=stream.priority)
        try:
            heapq.heapreplace(heap, (draws[serial](), serial))
        except StopIteration:
            heapq.heappop(heap)


def requests(workload: Workload, first_id: int = 0) -> Iterator[Request]:
    """The arrivals as requests, with their deadlines and ids in order; time starts at 0."""
    for serial, arrival in zip(count(first_id), arrivals(workload), strict=False):
        yield Request(
            id=serial,
            model=arrival.model,
            arrival_ns=arrival.at_ns,
            deadline_ns=min(FOREVER_NS, arrival.at_ns + arrival.slo_ns),
            rows=arrival.rows,
            priority=arrival.priority,
        )


def scaled(workload: Workload, factor: float) -> Workload:
    """The same workload with every rate multiplied by `factor`."""
    if not 0 <= factor < math.inf:
        raise WorkloadError(f"the factor to scale by is {factor}; it must be a finite number, 0 or above")
    streams = tuple(replace(stream, rate_per_s=stream.rate_per_s * factor) for stream in workload.streams)
    return replace(workload, streams=streams)


def counted(counts: Sequence[float], interval_s: float) -> tuple[Phase, ...]:
    """Phases under which a stream of rate 1/s expects `counts[i]` arrivals in interval i, as a trace records them."""
    _require_positive("interval_s", interval_s)
    return tuple(Phase(duration_s=interval_s, scale=expected / interval_s) for expected in counts)


@value
class _Piece:
    """A stretch of constant rate."""

    start_s: float
    duration_s: float
    scale: float


def _streams_instants(workload: Workload) -> Iterator[Iterator[int]]:
    """One iterator of instants for each stream."""
    seen: Counter[str] = Counter()
    for stream in workload.streams:
        name = f"{workload.seed}/{stream.model}/{seen[stream.model]}"
        seen[stream.model] += 1
        pieces = _pieces(stream.phases or workload.phases)
        if isinstance(stream.process, Bursty):
            pieces = _bursts(pieces, stream.process, random.Random(f"{name}/bursts"))
        yield _instants(pieces, stream.rate_per_s, _gaps(stream.process, random.Random(f"{name}/gaps")))


def _instants(pieces: Iterable[_Piece], rate_per_s: float, gap: Callable[[], float]) -> Iterator[int]:
    """Where the gaps end along the rate. `due` counts expected arrivals from the piece's start to the next one."""
    due = gap()
    for piece in pieces:
        rate = rate_per_s * piece.scale
        if rate == 0:
            continue
        expected = rate * piece.duration_s
        start_ns = piece.start_s * S
        gap_ns = S / rate
        while due < expected:
            yield int(start_ns + due * gap_ns)
            due += gap()
        due -= expected


def _gaps(process: Process, rng: random.Random) -> Callable[[], float]:
    match process:
        case Poisson() | Bursty():
            draw, log = rng.random, math.log
            return lambda: -log(1.0 - draw())
        case Fixed():
            return chain((rng.random(),), repeat(1.0)).__next__
        case Gamma():
            spread = process.variation**2
            return lambda: rng.gammavariate(1 / spread, spread)


def _pieces(phases: Sequence[Phase]) -> Iterator[_Piece]:
    start_s = 0.0
    for phase in phases:
        yield _Piece(start_s=start_s, duration_s=phase.duration_s, scale=phase.scale)
        start_s += phase.duration_s


def _bursts(pieces: Iterable[_Piece], process: Bursty, rng: random.Random) -> Iterator[_Piece]:
    """The pieces cut where bursts begin and end. The first state is drawn as if it had always been so."""
    cycle_s = process.mean_burst_s + process.mean_idle_s
    is_burst = rng.random() * cycle_s < process.mean_burst_s
    left_s = rng.expovariate(1.0) * (process.mean_burst_s if is_burst else process.mean_idle_s)
    for piece in pieces:
        start_s, end_s = piece.start_s, piece.start_s + piece.duration_s
        while start_s < end_s:
            step_s = min(left_s, end_s - start_s)
            scale = piece.scale * cycle_s / process.mean_burst_s if is_burst else 0.0
            yield _Piece(start_s=start_s, duration_s=step_s, scale=scale)
            start_s += step_s
            left_s -= step_s
            if left_s <= 0:
                is_burst = not is_burst
                left_s = rng.expovariate(1.0) * (process.mean_burst_s if is_burst else process.mean_idle_s)


def _push_next(heap: list[tuple[int, int]], serial: int, draw: Callable[[], int]) -> None:
    try:
        heapq.heappush(heap, (draw(), serial))
    except StopIteration:
        return  # a stream with no arrival at all


def _require_positive(name: str, number: float) -> None:
    if not 0 < number < math.inf:
        raise WorkloadError(f"{name} is {number}; it must be a finite number above 0")


def _require_endless_last(phases: Sequence[Phase], where: str) -> None:
    if any(math.isinf(phase.duration_s) for phase in phases[:-1]):
        raise WorkloadError(f"a phase {where} follows an endless one; only the last may be endless")
