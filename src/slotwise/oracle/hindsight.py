"""What rules reach that do not know the future, but were fitted to it: a reference for those that learn.

The bound and the clairvoyant schedule know when the next request comes; no scheduler does. Here every request is
promised a place on its arrival or refused, as the product does, by rules that are fixed for the whole draw: for
each executor and model, which part of its slack a request may spend waiting there (none at all: it is not taken),
and how many rows may share a run. Only the choice of these numbers knows the draw: it is a climb from some divisions
of the models among the executors, one number at a time, and what answers no fewer is kept.

So this is what was found, neither the best that rules of the kind could do nor a bound for others: a scheduler whose
decisions depend on more than these numbers may pass it. Executors hold every model, take exactly the time in the
profiles and work through what they promised by deadline; one that has nothing left takes over from the others.
`link_ns` is what a message takes, to an executor that stands idle and with every answer back.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace

from slotwise.facts.profile import Profile
from slotwise.facts.types import FOREVER_NS, Request
from slotwise.facts.value import value

WAITS = (0.0, 0.03, 0.08, 0.15, 0.25, 0.4, 0.6, 1.0)
"""Parts of its slack that a request may wait; the first means that it is not taken at all."""
STEPS = (-3, -2, -1, 1, 2, 3)
TRIES = 200


@value
class Rule:
    """For one executor and model: the part of the slack that may be spent waiting, and rows that may share a run."""

    wait: float
    rows: int


Rules = tuple[Mapping[str, Rule], ...]
"""By executor and model."""


@value
class Fitted:
    """The rules found, and what they answer in time."""

    rules: Rules
    answers: int


@value
class Draw:
    """The requests in order of arrival and what they run on. A model absent from `batch_max` runs one row at a time."""

    requests: tuple[Request, ...]
    profiles: Mapping[str, Profile]
    batch_max: Mapping[str, int]
    executors: int
    link_ns: int

    def rows_max(self, model: str) -> int:
        """How many rows of a model may share a run."""
        return self.batch_max.get(model, 1)


def fit(draw: Draw, *, tries: int = TRIES, seed: int = 0) -> Fitted:
    """Climb from the best of the divisions; more `tries` find better rules."""
    rng = random.Random(seed)
    best = max((Fitted(rules=rules, answers=answers(draw, rules)) for rules in divisions(draw)), key=_answers)
    models = list(draw.profiles)
    for _ in range(tries):
        executor, model = rng.randrange(draw.executors), rng.choice(models)
        rules = _with(best.rules, executor, model, _neighbour(best.rules[executor][model], draw.rows_max(model), rng))
        found = Fitted(rules=rules, answers=answers(draw, rules))
        best = max(found, best, key=_answers)
    return best


def divisions(draw: Draw) -> list[Rules]:
    """Starts: the last executor takes all models up to some length, the others up to some other."""
    by_run = sorted(draw.profiles, key=lambda model: draw.profiles[model].expected_ns(1))

    def up_to(count: int) -> dict[str, Rule]:
        return {
            model: Rule(wait=1.0 if place < count else 0.0, rows=draw.rows_max(model))
            for place, model in enumerate(by_run)
        }

    counts = range(1, len(by_run) + 1)
    return [(*[up_to(few)] * (draw.executors - 1), up_to(many)) for many in counts for few in range(1, many + 1)]


def answers(draw: Draw, rules: Rules) -> int:
    """How many requests rules answer in time; whoever is promised a place is."""
    hall = _Hall(draw, rules)
    return sum(hall.take_in(request) for request in draw.requests)


def _answers(fitted: Fitted) -> int:
    return fitted.answers


def _neighbour(rule: Rule, rows_max: int, rng: random.Random) -> Rule:
    if rows_max > 1 and rng.random() < 0.25:
        return replace(rule, rows=rng.randint(1, rows_max))
    at = WAITS.index(rule.wait) + rng.choice(STEPS)
    return replace(rule, wait=WAITS[max(0, min(len(WAITS) - 1, at))])


def _with(rules: Rules, executor: int, model: str, rule: Rule) -> Rules:
    return tuple({**row, model: rule} if place == executor else row for place, row in enumerate(rules))


class _Slot:
    """A run that was promised, with the latest that it may end."""

    __slots__ = ("due_ns", "form", "key_ns", "model", "rows", "run_ns", "work")

    def __init__(self, request: Request, due_ns: int, run_ns: int) -> None:
        self.model = request.model
        self.form = request.form
        self.rows = request.rows
        self.work = request.work
        self.key_ns = self.due_ns = due_ns
        self.run_ns = run_ns


class _Lane:
    """An executor: when it is free, whether it stands idle, and what it has promised, by deadline."""

    __slots__ = ("free_ns", "is_idle", "row", "slots")

    def __init__(self, row: Mapping[str, Rule]) -> None:
        self.row = row
        self.free_ns = 0
        self.is_idle = True
        self.slots: list[_Slot] = []

    def run(self, slot: _Slot, start_ns: int) -> None:
        """Run it; nothing else from now on until its end."""
        self.free_ns = start_ns + slot.run_ns
        self.is_idle = False

    def room_ns(self, place: int) -> int:
        """The latest base at which the slots from a place on still end in time."""
        room_ns, end_ns = FOREVER_NS, 0
        for at, slot in enumerate(self.slots):
            end_ns += slot.run_ns
            if at >= place:
                room_ns = min(room_ns, slot.due_ns - end_ns)
        return room_ns


@value
class _Place:
    """Where a request would have a run of its own."""

    end_ns: int
    lane: _Lane
    at: int


class _Hall:
    """The lanes while a draw is played."""

    def __init__(self, draw: Draw, rules: Rules) -> None:
        self._draw = draw
        self._lanes = [_Lane(row) for row in rules]

    def take_in(self, request: Request) -> bool:
        """Promise the place that ends first, if there is one."""
        now_ns, due_ns = request.arrival_ns, request.deadline_ns - self._draw.link_ns
        self._advance(now_ns)
        run_ns = self._run_ns(request.model, request.rows, request.work)
        places = [place for lane in self._lanes if (place := self._place(lane, request, run_ns, due_ns)) is not None]
        if not places:
            return False
        best = min(places, key=lambda place: place.end_ns)
        best.lane.slots.insert(best.at, _Slot(request, due_ns, run_ns))
        if best.lane.is_idle:
            self._run_next(best.lane, now_ns)
        else:
            any(lane.is_idle and self._take_over(lane, now_ns) for lane in self._lanes)
        return True

    def _place(self, lane: _Lane, request: Request, run_ns: int, due_ns: int) -> _Place | None:
        rule, now_ns = lane.row[request.model], request.arrival_ns
        if not rule.wait:
            return None
        base_ns = max(lane.free_ns, now_ns + self._draw.link_ns)
        at = bisect_right(lane.slots, due_ns, key=_key_ns)
        start_ns = base_ns + sum(slot.run_ns for slot in lane.slots[:at])
        latest_ns = now_ns + rule.wait * (due_ns - run_ns - now_ns)
        if start_ns > latest_ns or base_ns + run_ns > lane.room_ns(at):
            return None
        return _Place(end_ns=start_ns + run_ns, lane=lane, at=at)

    def _advance(self, now_ns: int) -> None:
        """Let every run that ends by now be followed by the next, in order of time."""
        while True:
            ended = [lane for lane in self._lanes if not lane.is_idle and lane.free_ns <= now_ns]
            if not ended:
                return
            lane = min(ended, key=lambda lane: lane.free_ns)
            self._run_next(lane, lane.free_ns)

    def _run_next(self, lane: _Lane, now_ns: int) -> None:
        """Run the first slot and as many of its kind as that has room for, or help another lane, or stand idle."""
        if not lane.slots:
            lane.is_idle = not self._take_over(lane, now_ns)
            return
        start_ns = now_ns + self._draw.link_ns if lane.is_idle else now_ns
        first = lane.slots[0]
        for other in lane.slots[1:]:
            rows, work = first.rows + other.rows, max(first.work, other.work)
            if (other.model, other.form) != (first.model, first.form) or rows > lane.row[first.model].rows:
                continue
            total_ns = self._run_ns(first.model, rows, work)
            added_ns = total_ns - first.run_ns
            if added_ns < other.run_ns and start_ns + added_ns <= lane.room_ns(0):
                lane.slots.remove(other)
                first.rows, first.work, first.run_ns = rows, work, total_ns
                first.due_ns = min(first.due_ns, other.due_ns)
        lane.run(lane.slots.pop(0), start_ns)

    def _take_over(self, lane: _Lane, now_ns: int) -> bool:
        """Run the first slot of the lane with the most to do that can start sooner here."""
        start_ns = now_ns + self._draw.link_ns
        others = [other for other in self._lanes if other is not lane and other.slots]
        for other in sorted(others, key=lambda other: -sum(slot.run_ns for slot in other.slots)):
            theirs_ns = other.free_ns
            for slot in other.slots:
                is_sooner = start_ns < theirs_ns and start_ns + slot.run_ns <= slot.due_ns
                if is_sooner and lane.row[slot.model].wait:
                    other.slots.remove(slot)
                    lane.run(slot, start_ns)
                    return True
                theirs_ns += slot.run_ns
        return False

    def _run_ns(self, model: str, rows: int, work: float) -> int:
        return math.ceil(work * self._draw.profiles[model].expected_ns(rows))


def _key_ns(slot: _Slot) -> int:
    return slot.key_ns
