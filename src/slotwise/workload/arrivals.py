"""The arrivals that streams stand for, in order of time.

Nothing here sends, waits or reads a clock. An arrival's time counts from the start of the workload;
whoever plays it, live or simulated, adds that start.

How it works: a stream draws gaps with a mean of one and spends them along its rate, which is constant in
pieces. What is left of a gap when the rate changes is spent at the new rate, so changes in the middle of
a gap are exact. Every stream has generators of its own, seeded from the workload's seed and the stream's
model: adding a stream does not move the others, and scaling a rate keeps the same gaps and bursts.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heapreplace, merge
from itertools import chain, count, repeat
from operator import attrgetter

from slotwise.facts.types import FOREVER_NS, Request
from slotwise.facts.units import S
from slotwise.facts.value import value
from slotwise.workload.values import (
    Arrival,
    Bursty,
    Fixed,
    Gamma,
    Phase,
    Poisson,
    Process,
    Stream,
    Workload,
    scaled_slo_ns,
)


def arrivals(workload: Workload) -> Iterator[Arrival]:
    """All arrivals in order of time, made as they are asked for; the same for the same workload, always.

    Of those at the same nanosecond recorded ones come first, then the earlier stream's.
    """
    if not workload.recorded:
        return _streamed(workload)
    if not workload.streams:
        return iter(workload.recorded)
    return merge(workload.recorded, _streamed(workload), key=attrgetter("at_ns"))


def _streamed(workload: Workload) -> Iterator[Arrival]:
    """What streams ask."""
    drawn = zip(workload.streams, _streams_instants(workload), strict=True)
    heap = [_Coming(stream, serial, instants.__next__) for serial, (stream, instants) in enumerate(drawn)]
    heap = [coming for coming in heap if coming.go_on()]  # not those with no arrival at all
    heapify(heap)
    while heap:
        coming = heap[0]
        yield coming.arrival()
        if coming.go_on():
            heapreplace(heap, coming)
        else:
            heappop(heap)


class _Coming:
    """The next arrival of a stream. Of those at the same instant the earlier stream's comes first."""

    __slots__ = ("_draw", "_stream", "at_ns", "serial", "slo_ns")

    def __init__(self, stream: Stream, serial: int, draw: Callable[[], tuple[int, int]]) -> None:
        self._stream = stream
        self._draw = draw
        self.serial = serial
        self.at_ns = self.slo_ns = 0

    def __lt__(self, other: _Coming) -> bool:
        """Whether it comes first; for the heap."""
        return self.at_ns < other.at_ns or (self.at_ns == other.at_ns and self.serial < other.serial)

    def go_on(self) -> bool:
        """Draw the one after; whether there is any."""
        try:
            self.at_ns, self.slo_ns = self._draw()
        except StopIteration:
            return False
        return True

    def arrival(self) -> Arrival:
        stream = self._stream
        return Arrival(
            at_ns=self.at_ns, model=stream.model, slo_ns=self.slo_ns, rows=stream.rows, priority=stream.priority
        )


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


@value
class _Piece:
    """A stretch of constant rate."""

    start_s: float
    duration_s: float
    scale: float
    slo_scale: float


def _streams_instants(workload: Workload) -> Iterator[Iterator[tuple[int, int]]]:
    """For each stream an iterator of instants and the SLO there, both in ns."""
    seen: Counter[str] = Counter()
    for stream in workload.streams:
        name = f"{workload.seed}/{stream.model}/{seen[stream.model]}"
        seen[stream.model] += 1
        pieces = _pieces(stream.phases or workload.phases)
        if isinstance(stream.process, Bursty):
            pieces = _bursts(pieces, stream.process, random.Random(f"{name}/bursts"))
        yield _instants(pieces, stream, _gaps(stream.process, random.Random(f"{name}/gaps")))


def _instants(pieces: Iterable[_Piece], stream: Stream, gap: Callable[[], float]) -> Iterator[tuple[int, int]]:
    """Where the gaps end along the rate. `due` counts expected arrivals from the piece's start to the next one."""
    due = gap()
    for piece in pieces:
        rate = stream.rate_per_s * piece.scale
        if rate == 0:
            continue
        expected = rate * piece.duration_s
        start_ns = piece.start_s * S
        gap_ns = S / rate
        slo_ns = scaled_slo_ns(stream.slo_ns, piece.slo_scale)
        while due < expected:
            yield int(start_ns + due * gap_ns), slo_ns
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
        yield _Piece(start_s=start_s, duration_s=phase.duration_s, scale=phase.scale, slo_scale=phase.slo_scale)
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
            yield _Piece(start_s=start_s, duration_s=step_s, scale=scale, slo_scale=piece.slo_scale)
            start_s += step_s
            left_s -= step_s
            if left_s <= 0:
                is_burst = not is_burst
                left_s = rng.expovariate(1.0) * (process.mean_burst_s if is_burst else process.mean_idle_s)
