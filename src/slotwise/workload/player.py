"""Who asks next, and when: the streams and the clients of a workload in one order of time.

Nothing here sends, waits or reads a clock. Whoever plays a workload, live or simulated, asks for the next instant
(`due_ns`), takes what is asked then (`take`), and tells of each answer to a client (`answered`), so that it may ask
again. Instants count from the workload's start.

How it works: the streams' arrivals are drawn one ahead; clients that are to ask are in a heap. Every set of clients has
generators of its own, seeded from the workload's seed and its place.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, cycle

from slotwise.facts.types import FOREVER_NS
from slotwise.facts.units import S
from slotwise.workload.arrivals import arrivals
from slotwise.workload.values import Arrival, Bursty, Clients, Workload, scaled_slo_ns


class Asking:
    """A request to send now. `clients` is the place of those whose answer it waits for; None for a stream's."""

    __slots__ = ("arrival", "clients")

    def __init__(self, arrival: Arrival, clients: int | None = None) -> None:
        self.arrival = arrival
        self.clients = clients


class Player:
    """A workload on its way: what was asked, and what is still to come."""

    def __init__(
        self, coming: Iterable[Arrival], clients: Sequence[Clients] = (), *, end_ns: int = FOREVER_NS, seed: int = 0
    ) -> None:
        """`coming` in order of time. Clients ask from 0 until `end_ns`."""
        self._coming = iter(coming)
        self._ahead = next(self._coming, None)
        self._sets = [
            _Set(part, end_ns, random.Random(f"{seed}/clients/{place}")) for place, part in enumerate(clients)
        ]
        self._heap: list[tuple[int, int]] = []
        for place, part in enumerate(self._sets):
            for at_ns in part.starts_ns():
                self._push(place, at_ns)

    def due_ns(self) -> int | None:
        """When the next request is to be sent; None while there is none, which an answer may change."""
        ahead = self._ahead
        if not self._heap:
            return None if ahead is None else ahead.at_ns
        return self._heap[0][0] if ahead is None else min(ahead.at_ns, self._heap[0][0])

    def take(self) -> Asking:
        """The request that is due next. A stream's goes first where a client's is due at the same instant."""
        ahead = self._ahead
        if ahead is not None and not (self._heap and self._heap[0][0] < ahead.at_ns):
            self._ahead = next(self._coming, None)
            return Asking(ahead)
        at_ns, place = heapq.heappop(self._heap)
        return Asking(self._sets[place].arrival(at_ns), place)

    def answered(self, asking: Asking, at_ns: int, retry_after_ns: int = 0) -> None:
        """A request has ended. `retry_after_ns` is what the server said about coming back; 0 for nothing."""
        if asking.clients is not None:
            self._push(asking.clients, self._sets[asking.clients].again_ns(at_ns, retry_after_ns))

    def _push(self, place: int, at_ns: int | None) -> None:
        if at_ns is not None:
            heapq.heappush(self._heap, (at_ns, place))


def player_of(workload: Workload) -> Player:
    """A workload from its start. The same requests for the same workload and the same answers, always."""
    duration_s = workload.duration_s
    end_ns = FOREVER_NS if math.isinf(duration_s) else int(duration_s * S)
    return Player(arrivals(workload), workload.clients, end_ns=end_ns, seed=workload.seed)


class _Set:
    """Clients of one kind: whose turn it is, and when they may ask."""

    def __init__(self, clients: Clients, end_ns: int, rng: random.Random) -> None:
        self._clients = clients
        self._end_ns = end_ns
        self._rng = rng
        self._models = cycle(clients.models)
        self._left = math.inf if clients.requests_max is None else clients.requests_max
        self._bursts = _Bursts(clients.bursts, rng) if clients.bursts else None
        ends_s = list(accumulate(phase.duration_s for phase in clients.phases))
        self._slo_starts_ns = [int(end_s * S) for end_s in ends_s[:-1]]
        self._slos_ns = [scaled_slo_ns(clients.slo_ns, phase.slo_scale) for phase in clients.phases]

    def starts_ns(self) -> Iterator[int | None]:
        """When each of them asks first."""
        for _ in range(self._clients.concurrency):
            yield self._allowed_ns(int(self._rng.random() * self._clients.start_within_s * S))

    def arrival(self, at_ns: int) -> Arrival:
        """What is asked."""
        clients = self._clients
        slo_ns = self._slos_ns[bisect_right(self._slo_starts_ns, at_ns)] if self._slos_ns else clients.slo_ns
        return Arrival(
            at_ns=at_ns, model=next(self._models), slo_ns=slo_ns, rows=clients.rows, priority=clients.priority
        )

    def again_ns(self, at_ns: int, retry_after_ns: int) -> int | None:
        """When a client that was answered asks again; None if it does not."""
        pause_ns = self._clients.pause_ns
        if self._clients.heeds_retry_after:
            pause_ns = max(pause_ns, retry_after_ns)
        return self._allowed_ns(at_ns + pause_ns)

    def _allowed_ns(self, at_ns: int) -> int | None:
        """The first instant from then on at which a client may ask, counted as used."""
        if self._bursts is not None:
            at_ns = self._bursts.within_ns(at_ns)
        if at_ns >= self._end_ns or self._left < 1:
            return None
        self._left -= 1
        return at_ns


class _Bursts:
    """Stretches in which clients ask, drawn as far as they are asked about; the start may lie within one or between."""

    def __init__(self, shape: Bursty, rng: random.Random) -> None:
        self._shape = shape
        self._rng = rng
        is_burst = rng.random() * (shape.mean_burst_s + shape.mean_idle_s) < shape.mean_burst_s
        begin_ns = 0 if is_burst else self._drawn_ns(shape.mean_idle_s)
        self._bursts_ns = [(begin_ns, begin_ns + self._drawn_ns(shape.mean_burst_s))]

    def within_ns(self, at_ns: int) -> int:
        """The instant itself if it lies in a burst, else the begin of the next."""
        while self._bursts_ns[-1][1] <= at_ns:
            begin_ns = self._bursts_ns[-1][1] + self._drawn_ns(self._shape.mean_idle_s)
            self._bursts_ns.append((begin_ns, begin_ns + self._drawn_ns(self._shape.mean_burst_s)))
        begin_ns = self._bursts_ns[-1][0]
        for begin, end in reversed(self._bursts_ns):
            if end <= at_ns:
                break
            begin_ns = begin
        return max(at_ns, begin_ns)

    def _drawn_ns(self, mean_s: float) -> int:
        return max(1, int(self._rng.expovariate(1 / mean_s) * S))
