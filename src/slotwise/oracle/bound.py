"""How many requests any scheduler could answer in time: bounds from above that no schedule can pass.

All bounds hold for every scheduler, one that knows the future included, on executors that have every
model loaded and take exactly the time in the profiles (where times vary, hand in the least of them).
A run is answered only if it goes on to its end in one piece; one that was stopped starts over. What
only makes it harder is left out: loads, messages, deciding. Nothing here makes a schedule;
`clairvoyant` does, and the best possible lies between the two.

Three bounds, from the loosest to the tightest; `best_possible` is the least of the last two.

*Fluid*: all executor time from the first arrival to the last deadline is filled with the least work first.

*Flow*: a request is a quantity of its least work that may be cut up and done at any time between its
arrival and its deadline, by several executors at once. This is the linear program "maximise the sum of
w_j x_j, 0 <= x_j <= 1, such that within every interval [a, b] the work of the requests that lie inside
is at most executors * (b - a)", for all intervals and not some of them. No solver is needed: amounts of
work that can be done form a polymatroid, so the greedy method is exact. In order of worth per work
each class of requests gets what the most work possible with it exceeds that without it, and the most
work possible is what the earliest deadline first rule does.

*Prices*: see `prices`; it knows that runs are neither cut up nor moved, and wins where deadlines are tight.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from slotwise.facts.profile import Profile
from slotwise.facts.types import Request
from slotwise.facts.value import value
from slotwise.oracle.prices import PRICE_ROUNDS, price_bound
from slotwise.oracle.problem import Floats, Integers, Problem, problem_of

CLASSES_MAX = 64
"""Distinct values of worth per work that the flow bound tells apart; above, neighbours count as the best of them."""


@value
class Bound:
    """What no scheduler can exceed. `possible` counts requests that could be met with executors to spare."""

    offered: int
    possible: int
    answers: float
    weight: float
    """The same in the models' weights; a bound of its own, not that of the same choice of requests."""


def best_possible(
    requests: Sequence[Request],
    profiles: Mapping[str, Profile],
    batch_max: Mapping[str, int],
    executors: int,
    *,
    weights: Mapping[str, float] | None = None,
    rounds: int = PRICE_ROUNDS,
) -> Bound:
    """The tightest bound here. `rounds` is the effort spent on prices, 0 leaves them out; any number is valid."""
    problem = problem_of(requests, profiles, batch_max, executors)

    def most(worth: Floats) -> float:
        flow = _flow(problem, worth)
        return min(flow, price_bound(problem, worth, rounds=rounds)) if rounds else flow

    return _bound(problem, requests, weights, most)


def flow_bound(
    requests: Sequence[Request],
    profiles: Mapping[str, Profile],
    batch_max: Mapping[str, int],
    executors: int,
    *,
    weights: Mapping[str, float] | None = None,
) -> Bound:
    """The bound of all intervals, alone."""
    return best_possible(requests, profiles, batch_max, executors, weights=weights, rounds=0)


def fluid_bound(
    requests: Sequence[Request],
    profiles: Mapping[str, Profile],
    batch_max: Mapping[str, int],
    executors: int,
    *,
    weights: Mapping[str, float] | None = None,
) -> Bound:
    """The bound of the whole horizon, alone: cheap work first until the time is gone."""
    problem = problem_of(requests, profiles, batch_max, executors)
    return _bound(problem, requests, weights, lambda worth: _fluid(problem, worth))


def _bound(
    problem: Problem,
    requests: Sequence[Request],
    weights: Mapping[str, float] | None,
    most: Callable[[Floats], float],
) -> Bound:
    answers = most(np.ones(problem.offered))
    weight = answers
    if weights is not None:
        weight = most(np.array([weights[request.model] for request in requests], dtype=np.float64))
    return Bound(offered=problem.offered, possible=problem.possible, answers=answers, weight=weight)


def _fluid(problem: Problem, worth: Floats) -> float:
    can = np.isfinite(problem.least_ns) & (worth > 0)
    if not can.any():
        return 0.0
    horizon_ns = float(problem.deadlines_ns[can].max() - problem.arrivals_ns[can].min())
    least_ns, worth = problem.least_ns[can], worth[can]
    order = np.argsort(-worth / least_ns, kind="stable")
    before_ns = np.concatenate(([0.0], np.cumsum(least_ns[order])))[:-1]
    parts = np.clip((problem.executors * horizon_ns - before_ns) / least_ns[order], 0.0, 1.0)
    return float(parts @ worth[order])


def _flow(problem: Problem, worth: Floats) -> float:
    can = np.isfinite(problem.least_ns) & (worth > 0)
    per_ns = np.where(can, worth / problem.least_ns, 0.0)
    total = done_ns = 0.0
    for best, floor in _classes(per_ns[can]):
        chosen = can & (per_ns >= floor)
        reached_ns = _most_work_ns(problem, np.flatnonzero(chosen))
        total += best * (reached_ns - done_ns)
        done_ns = reached_ns
    return total


def _classes(per_ns: Floats) -> list[tuple[float, float]]:
    """Best and least worth per work of each class, in falling order."""
    distinct = np.unique(per_ns)[::-1]
    groups = np.array_split(distinct, min(CLASSES_MAX, len(distinct))) if len(distinct) else []
    return [(float(group[0]), float(group[-1])) for group in groups]


def _most_work_ns(problem: Problem, chosen: Integers) -> float:
    """The most executor time that the chosen requests can use, by earliest deadline first."""
    order = chosen[np.argsort(problem.arrivals_ns[chosen], kind="stable")]
    arrivals_ns = [*problem.arrivals_ns[order].tolist(), math.inf]
    ends_ns = problem.deadlines_ns[order].tolist()
    spans_ns = (problem.least_ns[order] / problem.executors).tolist()
    heap: list[tuple[int, int]] = []
    now_ns = served_ns = 0.0
    for serial, (end_ns, until_ns) in enumerate(zip(ends_ns, arrivals_ns[1:], strict=True)):
        now_ns = max(now_ns, arrivals_ns[serial])
        heapq.heappush(heap, (end_ns, serial))
        while heap and now_ns < until_ns:
            end_ns, first = heap[0]
            step_ns = max(0.0, min(spans_ns[first], end_ns - now_ns, until_ns - now_ns))
            served_ns += step_ns
            now_ns += step_ns
            spans_ns[first] -= step_ns
            if now_ns < until_ns or spans_ns[first] <= 0:
                heapq.heappop(heap)
    return served_ns * problem.executors
