"""What keeping an executor busy costs those who come next: the price of long runs beside tight deadlines.

A request with little slack is lost if every executor is in a run that ends too late for it. So for each
executor it is learned how much is asked, and how urgently, that nobody else could answer in time: the worth of
such *critical* requests per nanosecond, by their slack. A run of length C then costs
the sum of `rate * (C - slack)` over those with less slack than C, and is made there only if it is worth more.
An executor on which much depends thus comes to take short runs only, while the others take the long
ones; which executor that is, and how short, follows from the demand. No clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from slotwise.facts.units import MS, S
from slotwise.facts.value import value


@value
class ReserveSettings:
    """`memory_ns` is how far back critical requests count; costs are worked out anew every `period_ns`.

    Slacks above `slack_max_ns` never count: no run is that long. Zero turns reserving off. Below 1, `others_share`
    lets executors differ in their reserve: better where a few models are tight, worse where all are.
    """

    memory_ns: int = 2 * S
    period_ns: int = S // 20
    slack_max_ns: int = 1_000 * MS
    others_share: float = 1.0


BUCKET_FIRST_NS = 100_000
BUCKET_FACTOR = 1.5
"""Slacks are told apart by such steps; within a step their mean counts."""


@value
class Critical:
    """An executor on which an answer in time depends, and how much slack the request has there."""

    executor: str
    slack_ns: int


class Pressure:
    """Critical worth per nanosecond at one executor, by slack."""

    __slots__ = ("_costs", "_edges_ns", "_new", "_new_slacks", "_rates", "_slacks", "_weighted")

    def __init__(self, edges_ns: list[int]) -> None:
        count = len(edges_ns) + 1
        self._edges_ns = edges_ns
        self._new = [0.0] * count
        self._new_slacks = [0.0] * count
        self._rates = [0.0] * count
        self._slacks = [0.0] * count
        self._costs = [0.0] * (count + 1)
        self._weighted = [0.0] * (count + 1)

    def note(self, slack_ns: int, worth: float) -> None:
        """A request that only this executor could answer in time came, whether it did or not."""
        bucket = bisect_right(self._edges_ns, slack_ns)
        self._new[bucket] += worth
        self._new_slacks[bucket] += worth * slack_ns

    def settle(self, period_ns: int, weight: float) -> None:
        """A period is over: let it count with `weight`, and what was before with the rest."""
        keep = 1.0 - weight
        per_ns = weight / period_ns
        self._rates = [keep * old + per_ns * new for old, new in zip(self._rates, self._new, strict=True)]
        self._slacks = [keep * old + per_ns * new for old, new in zip(self._slacks, self._new_slacks, strict=True)]
        self._new = [0.0] * len(self._new)
        self._new_slacks = [0.0] * len(self._new)
        self._costs = list(accumulate(self._rates, initial=0.0))
        self._weighted = list(accumulate(self._slacks, initial=0.0))

    def rate(self, slack_ns: int) -> float:
        """Critical worth per nanosecond of those with about so much slack or less."""
        return self._costs[bisect_right(self._edges_ns, slack_ns) + 1]

    def cost(self, run_ns: int) -> float:
        """What a run of that length is expected to cost others, in worth."""
        if not self._costs[-1]:
            return 0.0
        bucket = bisect_left(self._edges_ns, run_ns)
        cost = self._costs[bucket] * run_ns - self._weighted[bucket]
        return max(0.0, cost)


class Reserve:
    """The pressure on each executor."""

    def __init__(self, settings: ReserveSettings) -> None:
        self._settings = settings
        self._edges_ns = []
        edge_ns = float(BUCKET_FIRST_NS)
        while edge_ns < settings.slack_max_ns:
            self._edges_ns.append(int(edge_ns))
            edge_ns *= BUCKET_FACTOR
        self._pressures: dict[str, Pressure] = {}
        self._settled_ns = 0
        self._periods = 0

    def add(self, executor: str) -> None:
        """An executor is up."""
        self._pressures.setdefault(executor, Pressure(self._edges_ns))

    def remove(self, executor: str) -> None:
        """An executor is gone."""
        self._pressures.pop(executor, None)

    def at(self, executor: str) -> Pressure:
        """The pressure on one executor."""
        return self._pressures[executor]

    def note(self, critical: Sequence[Critical], worth: float) -> None:
        """A request came that only one of these executors could answer in time, or none of them could.

        Of several that are shut the one on which most depends already counts in full, because one open executor is
        enough; the others count by `others_share`.
        """
        tight = [one for one in critical if 0 <= one.slack_ns < self._settings.slack_max_ns]
        if not tight:
            return
        blamed = max(tight, key=lambda one: self._pressures[one.executor].rate(one.slack_ns))
        for one in tight:
            part = 1.0 if one is blamed else self._settings.others_share
            self._pressures[one.executor].note(one.slack_ns, worth * part)

    def settle(self, now_ns: int) -> None:
        """Work the costs out anew if a period is over."""
        past_ns = now_ns - self._settled_ns
        if past_ns < self._settings.period_ns:
            return
        self._settled_ns = now_ns
        self._periods += 1
        weight = max(min(1.0, past_ns / self._settings.memory_ns), 1.0 / self._periods)
        for pressure in self._pressures.values():
            pressure.settle(past_ns, weight)
