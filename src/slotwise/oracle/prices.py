"""The bound by prices: what any schedule could earn if executor time had to be paid for.

Give every instant t a price p(t) >= 0 for an executor's time, and let every request pay its share of the
run that it is part of. Then

    sum of w_j over the answered  <=  executors * integral of p  +  sum over j of max(0, w_j - c_j),

where c_j is the least that request j could pay in any of its ways, at any start that its arrival and
deadline allow. Proof: those who are answered pay in all what their runs cost, the runs of one executor
do not overlap, so this is at most executors * integral of p; and each of them pays at least c_j. So
every choice of prices is a valid bound, and it counts runs whole and in one piece.

The rest is search for good prices, constant within cells of time. The bound is convex in them, and a
step downhill lowers the price of cells that would be left empty and raises that of the crowded ones
(a subgradient step; its length aims a little below the best bound yet, and that aim is halved when it
fails). Steps are spread over neighbourhoods of several widths, so that the price level of a second is
found as fast as that of a millisecond. The search may stop anywhere: what it returns was evaluated
exactly. Least prices over ranges of starts come from a table of minima over powers of two. Between the
grid points of a run's start and of its end, the price of a run is linear in its start, so only those
and the two ends of the range need be looked at.
"""

from __future__ import annotations

import math

import numpy as np

from slotwise.facts.value import value
from slotwise.oracle.problem import Floats, Integers, Problem, Way

PRICE_ROUNDS = 150
CELLS_MAX = 200_000
AIM = 0.05
AIM_LEAST = 1e-4
PATIENCE = 8
MOMENTUM = 0.7
WIDTHS = (1, 8, 64, 512)
PLACE_BITS = 21
"""Bits of a packed minimum that hold its place; enough for twice as many cells as there can be."""


def price_bound(problem: Problem, worth: Floats, *, rounds: int = PRICE_ROUNDS) -> float:
    """The least bound found in so many rounds."""
    market = _Market(problem, worth)
    if not market.counters:
        return 0.0
    prices = market.first_prices()
    best, best_prices = np.inf, prices
    pace = np.zeros_like(prices)
    aim, misses = AIM, 0
    for _ in range(rounds):
        quote = market.quote(prices)
        misses = 0 if quote.bound < best * (1 - 1e-5) else misses + 1
        if quote.bound < best:
            best, best_prices = quote.bound, prices
        if misses > PATIENCE:
            aim, misses = aim / 2, 0
            prices, pace = best_prices, np.zeros_like(prices)
            if aim < AIM_LEAST:
                break
            continue
        downhill = np.where((prices <= 0) & (quote.idle > 0), 0.0, quote.idle)
        step = np.mean([_spread(downhill, width) for width in WIDTHS], axis=0)
        pace = step + MOMENTUM * pace
        if downhill @ pace <= 0:
            pace = step
        descent = float(downhill @ pace)
        if descent <= 0:
            break
        prices = np.maximum(prices - (quote.bound - best * (1 - aim)) / descent * pace, 0.0)
    return float(best) * (1 + 1e-9)


@value
class _Quote:
    """A bound, and its slope in every cell's price: the executor time there that buyers would leave idle."""

    bound: float
    idle: Floats


class _Market:
    """The requests as buyers of executor time, which comes in cells."""

    def __init__(self, problem: Problem, worth: Floats) -> None:
        ways = [way for way in problem.ways if (worth[way.members] > 0).any()]
        self._problem = problem
        self._worth = worth
        self._start_ns = int(min((problem.arrivals_ns[way.members].min() for way in ways), default=0))
        self._end_ns = int(max((problem.deadlines_ns[way.members].max() for way in ways), default=0))
        self._cell_ns = self._fitting_cell_ns(ways)
        self._cells = math.ceil((self._end_ns - self._start_ns) / self._cell_ns)
        self.counters = [Counter(way, problem, self._start_ns, self._cell_ns, worth) for way in ways]

    def first_prices(self) -> Floats:
        """The same price everywhere: the worth per work of the last request that fits the whole horizon."""
        least_ns, worth = self._problem.least_ns, self._worth
        order = np.argsort(-worth / least_ns, kind="stable")
        time_ns = self._problem.executors * float(self._end_ns - self._start_ns)
        last = int(np.searchsorted(np.cumsum(least_ns[order]), time_ns))
        price_per_ns = 0.0 if last >= len(order) else float(worth[order[last]] / least_ns[order[last]])
        return np.full(self._cells, price_per_ns * self._cell_ns)

    def quote(self, prices: Floats) -> _Quote:
        """The bound at these prices, one per cell."""
        total = np.concatenate(([0.0], np.cumsum(prices)))
        total = np.append(total, total[-1])
        least = np.full(self._problem.offered, np.inf)
        start, length, share = np.zeros_like(least), np.zeros_like(least), np.zeros_like(least)
        for counter in self.counters:
            paid, place = counter.cheapest(total)
            is_better = paid < least[counter.members]
            who = counter.members[is_better]
            least[who], start[who] = paid[is_better], place[is_better]
            length[who], share[who] = counter.length, counter.share
        buys = self._worth > least
        bound = self._problem.executors * total[-1] + float((self._worth - least)[buys].sum())
        used = self._covered(start[buys], share[buys]) - self._covered(start[buys] + length[buys], share[buys])
        return _Quote(bound=bound, idle=self._problem.executors - used)

    def _covered(self, since: Floats, share: Floats) -> Floats:
        """How much of each cell lies after `since`, summed over those who share."""
        cell = np.minimum(since.astype(np.int64), self._cells)
        rest = since - cell
        change: Floats = np.bincount(cell, share * (1 - rest), self._cells + 2).astype(np.float64)
        change += np.bincount(cell + 1, share * rest, self._cells + 2)
        covered: Floats = np.cumsum(change)[: self._cells]
        return covered

    def _fitting_cell_ns(self, ways: list[Way]) -> float:
        """A quarter of the shortest run or of how far starts can move, if that is more; at most CELLS_MAX cells."""
        run_ns = min((way.run_ns for way in ways), default=1.0)
        freedoms_ns = [
            np.median(self._problem.deadlines_ns[way.members] - self._problem.arrivals_ns[way.members]) - way.run_ns
            for way in ways
        ]
        free_ns = float(min(freedoms_ns, default=0.0))
        return max(min(max(free_ns, run_ns) / 4, 2 * run_ns), (self._end_ns - self._start_ns) / CELLS_MAX, 1.0)


class Counter:
    """Where the requests of one way buy. Places count in cells; `total` is what all cells before a place cost."""

    def __init__(self, way: Way, problem: Problem, start_ns: int, cell_ns: float, worth: Floats) -> None:
        self.members = way.members
        self.share = way.share
        self.length = way.run_ns / cell_ns
        self._dearest = 2 * float(worth[way.members].max()) / way.share
        first = (problem.arrivals_ns[way.members] - start_ns) / cell_ns
        last = np.maximum(first, (problem.deadlines_ns[way.members] - start_ns - way.run_ns) / cell_ns)
        self._edges = tuple((_Point(edge), _Point(edge + self.length), edge) for edge in (first, last))
        self._whole = int(self.length)
        self._starts = _Ranges(np.ceil(first), np.floor(last))
        ends_from = self._whole + 1
        self._ends = _Ranges(np.ceil(first + self.length) - ends_from, np.floor(last + self.length) - ends_from)

    def cheapest(self, total: Floats) -> tuple[Floats, Floats]:
        """What each member pays at least, and the start at which it does."""
        whole, rest = self._whole, self.length - self._whole
        (paid, place), (paid_last, place_last) = (
            (end.of(total) - start.of(total), at) for start, end, at in self._edges
        )
        choices = [(paid_last, place_last)]
        from_grid = total[whole:-1] * (1 - rest) + total[whole + 1 :] * rest - total[: len(total) - whole - 1]
        choices.append(self._starts.least(from_grid, self._dearest))
        if rest:
            to_grid = (
                total[whole + 1 : -1]
                - total[1 : len(total) - whole - 1] * (1 - rest)
                - total[: len(total) - whole - 2] * rest
            )
            paid_end, place_end = self._ends.least(to_grid, self._dearest)
            choices.append((paid_end, place_end + (1 - rest)))
        for other_paid, other_place in choices:
            is_better = other_paid < paid
            paid, place = np.where(is_better, other_paid, paid), np.where(is_better, other_place, place)
        return paid * self.share, place


class _Point:
    """Places between grid points, split once, to read a cumulative sum at."""

    def __init__(self, places: Floats) -> None:
        self._cell = places.astype(np.int64)
        self._rest = places - self._cell

    def of(self, total: Floats) -> Floats:
        """The sum at the places, linear within a cell."""
        cell = np.minimum(self._cell, len(total) - 2)
        read: Floats = total[cell] + self._rest * (total[cell + 1] - total[cell])
        return read


class _Ranges:
    """Queries for the least of a row of numbers from `begin` to `end`, both included; some may be empty."""

    def __init__(self, begin: Floats, end: Floats) -> None:
        self._size = len(begin)
        first, last = np.maximum(begin, 0).astype(np.int64), end.astype(np.int64)
        span = last - first + 1
        level = np.where(span > 0, np.log2(np.maximum(span, 1)).astype(np.int64), -1)
        self._queries: list[_Queries] = []
        for height in range(int(level.max(initial=-1)) + 1):
            who = np.flatnonzero(level == height)
            self._queries.append(_Queries(who=who, first=first[who], second=last[who] - (1 << height) + 1))

    def least(self, numbers: Floats, dearest: float) -> tuple[Floats, Floats]:
        """The least number and its place, infinite where the range is empty.

        A number and its place are packed into one integer, so that a minimum finds both; numbers are
        rounded down a little for it, which keeps a bound a bound, and those above `dearest` count as it.
        """
        scale = ((1 << (62 - PLACE_BITS)) - 1) / dearest
        table = (np.minimum(numbers, dearest) * scale).astype(np.int64) << PLACE_BITS
        table += np.arange(len(numbers))
        found = np.full(self._size, -1, dtype=np.int64)
        for height, queries in enumerate(self._queries):
            if height:
                half = 1 << (height - 1)
                table = np.minimum(table[:-half], table[half:])
            found[queries.who] = np.minimum(table[queries.first], table[queries.second])
        least = np.where(found < 0, np.inf, (found >> PLACE_BITS) / scale)
        return least, (found & ((1 << PLACE_BITS) - 1)).astype(np.float64)


@value
class _Queries:
    """Ranges that are covered by two stretches of the same power of two."""

    who: Integers
    first: Integers
    second: Integers


def _spread(slope: Floats, width: int) -> Floats:
    """The mean over a neighbourhood of each cell."""
    if width == 1:
        return slope
    sums = np.concatenate(([0.0], np.cumsum(slope)))
    cells = np.arange(len(slope))
    low, high = np.maximum(cells - width // 2, 0), np.minimum(cells + width // 2, len(slope))
    spread: Floats = (sums[high] - sums[low]) / width
    return spread
