"""A good schedule by one who knows all requests in advance: what can be done for certain.

The bounds say what cannot be passed, this says what can be reached; the best possible lies between. It
is no scheduler for the product, which does not know the future. Runs are not cut up, and requests of equal form
share a run up to the model's `batch_max`.

How it works: every executor is a sequence of runs. A run knows the earliest start that those before it
allow and the latest that those after it allow, so whether another fits between two is told from its
neighbours alone, and runs keep moving room until the end. Requests are inserted in order of work per
weight, into a run that they may share or else where they leave the least room. After that, again and
again, all runs of a short stretch are taken out and inserted anew in a somewhat different order
together with the requests left out so far; what does not answer as much is undone.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from slotwise.facts.profile import Profile
from slotwise.facts.types import FOREVER_NS, Request
from slotwise.facts.value import value

MOVES = 2_000
PLACES_MAX = 64
"""Places that are looked at for a request on each executor."""
STRETCH_RUNS = 8
"""A stretch to be planned anew is about as long as so many mean runs, or half or twice that."""
DISORDERS = (0.0, 0.1, 0.3, 0.6)
"""How much the order of insertion may differ from that of work per weight."""


@value
class Run:
    """Requests that run together."""

    executor: int
    model: str
    requests: tuple[Request, ...]
    start_ns: int
    end_ns: int


@value
class Schedule:
    """Runs by executor and start, and what they answer in time."""

    runs: tuple[Run, ...]
    answers: int
    weight: float


def clairvoyant(
    requests: Sequence[Request],
    profiles: Mapping[str, Profile],
    batch_max: Mapping[str, int],
    executors: int,
    *,
    weights: Mapping[str, float] | None = None,
    moves: int = MOVES,
    seed: int = 0,
) -> Schedule:
    """A schedule that answers every one of its requests in time; more `moves` find a better one."""
    planner = _Planner(requests, profiles, batch_max, executors, weights)
    planner.improve(moves, random.Random(seed))
    return planner.schedule()


class _Slot:
    """A run and the room that it has."""

    __slots__ = ("due_ns", "earliest_ns", "latest_ns", "release_ns", "requests", "rows", "run_ns", "work")

    def __init__(self, requests: tuple[Request, ...], release_ns: int, due_ns: int, run_ns: int) -> None:
        self.requests = requests
        self.release_ns = release_ns
        self.due_ns = due_ns
        self.run_ns = run_ns
        self.rows = sum(request.rows for request in requests)
        self.work = max((request.work for request in requests), default=1.0)
        self.earliest_ns = release_ns
        self.latest_ns = due_ns - run_ns


class _Lane:
    """An executor's runs in order, between two that stand for the ends of time."""

    def __init__(self) -> None:
        self.slots = [_Slot((), -FOREVER_NS, -FOREVER_NS, 0), _Slot((), FOREVER_NS, FOREVER_NS, 0)]
        self.mark()

    def mark(self) -> None:
        """Remember the present state for `undo`."""
        self._marked = list(self.slots)
        self._same_before = self._same_after = len(self.slots)

    def undo(self) -> None:
        """Back to the state at the last mark."""
        first, last = self._same_before, len(self._marked) - self._same_after
        self.slots[:] = self._marked
        if first < len(self.slots):
            self._settle(first, last)

    def cut(self, since_ns: int, until_ns: int) -> list[Request]:
        """Take out the runs that would start in `[since_ns, until_ns)` at the earliest; their requests."""
        first = max(1, bisect_left(self.slots, since_ns, key=_earliest_ns))
        last = min(len(self.slots) - 1, bisect_left(self.slots, until_ns, key=_earliest_ns))
        if last <= first:
            return []
        taken = [request for slot in self.slots[first:last] for request in slot.requests]
        self._put(first, last, [])
        return taken

    def insert(self, at: int, slot: _Slot) -> None:
        """Put a run that fits before the one at `at`."""
        self._put(at, at, [slot])

    def replace(self, at: int, slot: _Slot) -> None:
        """Put a run that fits in the place of the one at `at`."""
        self._put(at, at + 1, [slot])

    def _put(self, first: int, last: int, slots: list[_Slot]) -> None:
        self._same_before = min(self._same_before, first)
        self._same_after = min(self._same_after, len(self.slots) - last)
        self.slots[first:last] = slots
        self._settle(first, first + len(slots))

    def _settle(self, first: int, last: int) -> None:
        """Work out the room of the runs in `[first, last)`, and of others as far as it changes."""
        slots = self.slots
        for at in range(max(first, 1), len(slots) - 1):
            slot, before = slots[at], slots[at - 1]
            earliest_ns = max(slot.release_ns, before.earliest_ns + before.run_ns)
            if at >= last and earliest_ns == slot.earliest_ns:
                break
            slot.earliest_ns = earliest_ns
        for at in range(min(last, len(slots) - 1) - 1, 0, -1):
            slot = slots[at]
            latest_ns = min(slot.due_ns, slots[at + 1].latest_ns) - slot.run_ns
            if at < first and latest_ns == slot.latest_ns:
                break
            slot.latest_ns = latest_ns


@value
class _Place:
    """Where a request would go. Of two places that with the smaller rank is better."""

    rank: tuple[int, int, int]
    lane: _Lane
    at: int
    shared: _Slot | None


class _Planner:
    """The schedule while it is made."""

    def __init__(
        self,
        requests: Sequence[Request],
        profiles: Mapping[str, Profile],
        batch_max: Mapping[str, int],
        executors: int,
        weights: Mapping[str, float] | None,
    ) -> None:
        self._requests = sorted(requests, key=lambda request: (request.arrival_ns, request.id))
        self._profiles = profiles
        self._batch_max = batch_max
        self._weights = weights
        self._lanes = [_Lane() for _ in range(executors)]
        self._run_times_ns: dict[tuple[str, int, float], int] = {}
        by_cost = sorted(self._requests, key=lambda request: (self._cost(request), request.arrival_ns))
        self._accepted = {request.id for request in by_cost if self._insert(request)}

    def improve(self, moves: int, rng: random.Random) -> None:
        """Plan random stretches anew, and keep what answers no less."""
        if not self._accepted:
            return
        arrivals_ns = [request.arrival_ns for request in self._requests]
        allowance_ns = max(request.deadline_ns - request.arrival_ns for request in self._requests)
        last_ns = min(arrivals_ns[-1] + allowance_ns, self._lanes_end_ns())
        costs_ns = [self._run_ns(request.model, request.rows, request.work) for request in self._requests]
        stretch_ns = STRETCH_RUNS * sum(costs_ns) // len(costs_ns)
        for _ in range(moves):
            since_ns = rng.randrange(arrivals_ns[0], last_ns + 1)
            until_ns = since_ns + int(stretch_ns * rng.choice((0.5, 1, 2, 4)))
            near = slice(bisect_left(arrivals_ns, since_ns - allowance_ns), bisect_left(arrivals_ns, until_ns))
            left_out = [
                request
                for request in self._requests[near]
                if request.id not in self._accepted and request.deadline_ns > since_ns
            ]
            self._replan(since_ns, until_ns, left_out, rng)

    def schedule(self) -> Schedule:
        """What stands, every run at its earliest start."""
        runs = tuple(
            Run(
                executor=executor,
                model=slot.requests[0].model,
                requests=slot.requests,
                start_ns=slot.earliest_ns,
                end_ns=slot.earliest_ns + slot.run_ns,
            )
            for executor, lane in enumerate(self._lanes)
            for slot in lane.slots[1:-1]
        )
        answered = [request for run in runs for request in run.requests]
        return Schedule(runs=runs, answers=len(answered), weight=math.fsum(self._worth(one) for one in answered))

    def _replan(self, since_ns: int, until_ns: int, left_out: list[Request], rng: random.Random) -> None:
        for lane in self._lanes:
            lane.mark()
        removed = [request for lane in self._lanes for request in lane.cut(since_ns, until_ns)]
        disorder = rng.choice(DISORDERS)
        pool = sorted(removed + left_out, key=lambda request: self._cost(request) * (1 + disorder * rng.random()))
        placed = [request for request in pool if self._insert(request)]
        if sum(map(self._worth, placed)) < sum(map(self._worth, removed)):
            for lane in self._lanes:
                lane.undo()
            return
        self._accepted.difference_update(request.id for request in removed)
        self._accepted.update(request.id for request in placed)

    def _insert(self, request: Request) -> bool:
        run_ns = self._run_ns(request.model, request.rows, request.work)
        if request.arrival_ns + run_ns > request.deadline_ns:
            return False
        places = [place for lane in self._lanes for place in self._places(lane, request, run_ns)]
        if not places:
            return False
        best = min(places, key=lambda place: place.rank)
        if best.shared is None:
            best.lane.insert(best.at, _Slot((request,), request.arrival_ns, request.deadline_ns, run_ns))
        else:
            best.lane.replace(best.at, best.shared)
        return True

    def _places(self, lane: _Lane, request: Request, run_ns: int) -> list[_Place]:
        """The best place of its own and the best run to share, where there are such."""
        slots = lane.slots
        first = max(1, bisect_left(slots, request.arrival_ns + run_ns, key=_latest_ns))
        last = bisect_right(slots, request.deadline_ns - run_ns, key=_earliest_end_ns)
        last = min(last, first + PLACES_MAX, len(slots) - 1)
        found = []
        limit = self._batch_max.get(request.model, 1) - request.rows
        own: tuple[int, int, int] | None = None
        own_at = 0
        for at in range(first, last + 1):
            before, after = slots[at - 1], slots[at]
            free_ns = before.earliest_ns + before.run_ns
            start_ns = max(free_ns, request.arrival_ns)
            if start_ns + run_ns <= min(request.deadline_ns, after.latest_ns):
                rank = (1, after.latest_ns - max(free_ns, 0) - run_ns, start_ns)
                if own is None or rank < own:
                    own, own_at = rank, at
        if own is not None:
            found.append(_Place(rank=own, lane=lane, at=own_at, shared=None))
        if limit > 0:
            found.extend(
                self._shares(lane, request, range(max(1, first - limit), min(last + 1, len(slots) - 1)), run_ns)
            )
        return found

    def _shares(self, lane: _Lane, request: Request, places: range, alone_ns: int) -> list[_Place]:
        """The runs that it may share and that grow by no more than it would take alone."""
        found = []
        limit = self._batch_max.get(request.model, 1) - request.rows
        for at in places:
            slot = lane.slots[at]
            head = slot.requests[0]
            if head.model != request.model or head.form != request.form or slot.rows > limit:
                continue
            run_ns = self._run_ns(request.model, slot.rows + request.rows, max(slot.work, request.work))
            release_ns, due_ns = max(slot.release_ns, request.arrival_ns), min(slot.due_ns, request.deadline_ns)
            before = lane.slots[at - 1]
            start_ns = max(release_ns, before.earliest_ns + before.run_ns)
            if run_ns - slot.run_ns <= alone_ns and start_ns + run_ns <= min(due_ns, lane.slots[at + 1].latest_ns):
                shared = _Slot((*slot.requests, request), release_ns, due_ns, run_ns)
                found.append(_Place(rank=(0, -slot.rows, start_ns), lane=lane, at=at, shared=shared))
        return found

    def _run_ns(self, model: str, rows: int, work: float) -> int:
        key = (model, rows, work)
        run_ns = self._run_times_ns.get(key)
        if run_ns is None:
            run_ns = self._run_times_ns[key] = math.ceil(work * self._profiles[model].expected_ns(rows))
        return run_ns

    def _worth(self, request: Request) -> float:
        return 1.0 if self._weights is None else self._weights[request.model]

    def _cost(self, request: Request) -> float:
        worth = self._worth(request)
        return self._run_ns(request.model, request.rows, request.work) / worth if worth > 0 else math.inf

    def _lanes_end_ns(self) -> int:
        return max(slot.earliest_ns + slot.run_ns for lane in self._lanes for slot in lane.slots[:-1])


def _earliest_ns(slot: _Slot) -> int:
    return slot.earliest_ns


def _earliest_end_ns(slot: _Slot) -> int:
    return slot.earliest_ns + slot.run_ns


def _latest_ns(slot: _Slot) -> int:
    return slot.latest_ns
