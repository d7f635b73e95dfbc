"""The arrivals that streams stand for, in order of time.

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
    return heapq.merge(workload.recorded, _streamed(workload), key=attrgetter("at_ns"))


def _streamed(workload: Workload) -> Iterator[Arrival]:
    """What streams ask."""
    streams = workload.streams
    draws = [instants.__next__ for instants in _streams_instants(workload)]
    heap: list[tuple[int, int, int]] = []
    for serial, draw in enumerate(draws):
        _push_next(heap, serial, draw)
    while heap:
        at_ns, serial, slo_ns = heap[0]
        stream = streams[serial]
        yield Arrival(at_ns=at_ns, model=stream.model, slo_ns=slo_ns, rows=stream.rows, priority=stream.priority)
        try:
            at_ns, slo_ns = draws[serial]()
            heapq.heapreplace(heap, (at_ns, serial, slo_ns))
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


def _push_next(heap: list[tuple[int, int, int]], serial: int, draw: Callable[[], tuple[int, int]]) -> None:
    try:
        at_ns, slo_ns = draw()
        heapq.heappush(heap, (at_ns, serial, slo_ns))
    except StopIteration:
        return  # a stream with no arrival at all
