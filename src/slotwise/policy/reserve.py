"""What an executor's time costs those who come next: a value for every state of its backlog, learned from the demand.

An executor that will be busy for b nanoseconds is worth V(b) less than an idle one, because those whose slack is below
b can no longer have it in time. Work of length C that starts after b then costs others V(b) - V(b + C), and is taken on
there only if it is worth more. V follows from the *flows*: who asks, how often, with how much slack, for runs of
what length, and how much of the worth depends on this very executor. Of a request that another one would
answer as well nothing depends, of one for which no other has a place all does. So executors divide the
work among them: where much depends on short and urgent runs, V falls steeply and long ones go elsewhere.

V is the relative value of the average-reward decision process in which each arrival is taken if worth + V(b + C) > V(b)
(a few sweeps of value iteration per period, from where the last ended). Its slope for large b is the gain: what a
nanosecond of that executor earns. V is concave, so work costs most behind a backlog. The process takes turns in
order of arrival, which overstates how far queued work is in the way of the urgent. No clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from math import frexp, inf

import numpy as np
from numpy.typing import NDArray

from slotwise.facts.units import MS, US, S
from slotwise.facts.value import value

Floats = NDArray[np.float64]
FlowKey = tuple[int, int, int]
"""Flows are told apart by the magnitudes of slack, run and worth; within one their means count."""
Flow = list[float]
"""Of requests alike: how many a nanosecond, and that times their slack, run and worth."""


@value
class ReserveSettings:
    """`memory_ns` is how far back requests count; values are worked out anew every `period_ns`, sooner at first.

    Slacks above `slack_max_ns` never count: such requests can wait. Zero turns reserving off. Where there is one
    executor only, nor do slacks above `slack_runs_alone` of the longest run. Of a request that nobody has a place
    for, the executor with the steepest value bears all the loss, and the others together `others_share` of it: less
    lets executors differ more, which helps where few models are tight and hurts where all are.
    """

    memory_ns: int = 2 * S
    period_ns: int = S // 5
    period_ns_min: int = S // 200
    executors_per_period: int = 2
    """The period grows by itself for each so many executors, so that the work stays small beside the requests'."""
    slack_max_ns: int = 1_000 * MS
    slack_runs_alone: float = 2.0
    others_share: float = 0.5
    sweeps: int = 8
    flows_max: int = 48
    """Flows that count at one executor; those with the most work and worth do."""


BACKLOG_FIRST_NS = 50 * US
BACKLOG_FACTOR = 1.2
BACKLOGS = 64
"""Backlogs at which the value is known: zero, and from the first on each a factor above the one before."""
PART_MIN = 1 / 16
"""Requests of which a smaller part depends on an executor do not count there."""
CONTESTED = 0.95
"""What counts where another has a place too, at a price: with all of it executors could hold up each other's prices."""
FADED = 1e-3
"""A flow of which less than this share of one request is remembered is forgotten."""


class Bid:
    """What an executor makes of a request: its slack there beyond its run, and worth less cost (0 without a place)."""

    __slots__ = ("executor", "run_ns", "slack_ns", "surplus")

    def __init__(self, *, executor: str, slack_ns: int, run_ns: int, surplus: float) -> None:
        self.executor = executor
        self.slack_ns = slack_ns
        self.run_ns = run_ns
        self.surplus = surplus


class Rivalry:
    """The two best surpluses bid for a request. Where both are near its worth nothing depends on any one executor."""

    __slots__ = ("_worth", "first", "second")

    def __init__(self, worth: float) -> None:
        self._worth = worth
        self.first = self.second = 0.0

    def add(self, surplus: float) -> None:
        """One more executor bids."""
        if surplus > self.first:
            self.first, self.second = surplus, self.first
        elif surplus > self.second:
            self.second = surplus

    def is_open(self) -> bool:
        """Whether something may depend on one of them."""
        return self._worth - self.second >= self._worth * PART_MIN


class Pressure:
    """The flows at one executor and the value of its backlogs."""

    __slots__ = (
        "_backlogs",
        "_backlogs_ns",
        "_flows",
        "_gain",
        "_new",
        "_slopes",
        "_steps_ns",
        "_values",
        "_values_list",
    )

    def __init__(self, backlogs_ns: list[int]) -> None:
        self._backlogs_ns = backlogs_ns
        self._backlogs: Floats = np.array(backlogs_ns, dtype=np.float64)
        self._steps_ns: Floats = np.diff(self._backlogs)
        self._flows: dict[FlowKey, Flow] = {}
        self._new: dict[FlowKey, Flow] = {}
        self._gain = 0.0
        self._values: Floats = np.zeros(len(backlogs_ns))
        self._values_list = [0.0] * len(backlogs_ns)
        self._slopes = [0.0] * len(backlogs_ns)

    def cost(self, run_ns: int, after_ns: int = 0) -> float:
        """What others are expected to lose, in worth, by a run of that length behind such a backlog."""
        if not self._gain:
            return 0.0
        return max(0.0, self._value(after_ns) - self._value(after_ns + run_ns))

    def note(self, part: float, slack_ns: int, run_ns: int, worth: float) -> None:
        """A request came of which so much worth depends on this executor, whether it was answered or not."""
        key = ((slack_ns * slack_ns).bit_length(), (run_ns * run_ns).bit_length(), frexp(worth)[1])
        self._flows.setdefault(key, [0.0] * 4)
        sums = self._new.setdefault(key, [0.0] * 4)
        for place, amount in enumerate((1, slack_ns, run_ns, worth)):
            sums[place] += part * amount

    def settle(self, period_ns: int, weight: float, slack_runs: float, settings: ReserveSettings) -> None:
        """A period is over, which counts with `weight`. Slacks above `slack_runs` of the longest run are no matter."""
        keep, per_ns, nothing = 1.0 - weight, weight / period_ns, [0.0] * 4
        for key, old in list(self._flows.items()):
            new = self._new.get(key, nothing)
            self._flows[key] = [keep * was + per_ns * more for was, more in zip(old, new, strict=True)]
            if self._flows[key][0] * settings.memory_ns < FADED:
                del self._flows[key]
        self._new = {}
        longest_ns = max((run / count for count, _, run, _ in self._flows.values()), default=0.0)
        tight = [flow for flow in self._flows.values() if flow[1] <= slack_runs * longest_ns * flow[0]]
        if not tight:
            self._gain = 0.0
            return
        tight.sort(key=lambda flow: -flow[3] * flow[2] / flow[0])
        self._iterate(tight[: settings.flows_max], settings.sweeps)
        self._values_list = self._values.tolist()
        self._slopes = [*(np.diff(self._values) / self._steps_ns).tolist(), -self._gain]

    def _value(self, backlog_ns: int) -> float:
        at = bisect_right(self._backlogs_ns, backlog_ns) - 1
        return self._values_list[at] + self._slopes[at] * (backlog_ns - self._backlogs_ns[at])

    def _iterate(self, flows: list[Flow], sweeps: int) -> None:
        """Sweeps of value iteration, each backlog with a time step of its own: the way to the one before it."""
        counts, slacks_ns, runs_ns, worths = np.array(flows).T[:, :, None]
        slacks_ns, runs_ns, worths = slacks_ns / counts, runs_ns / counts, worths / counts
        backlogs_ns, steps_ns, values = self._backlogs, self._steps_ns, self._values
        then_ns = np.minimum(backlogs_ns + runs_ns, backlogs_ns[-1])
        at = np.minimum(np.searchsorted(backlogs_ns, then_ns, side="right") - 1, len(backlogs_ns) - 2)
        part = (then_ns - backlogs_ns[at]) / steps_ns[at]
        rates = counts * (backlogs_ns <= slacks_ns)
        for _ in range(sweeps):
            after = values[at]
            after += part * (values[at + 1] - after)
            after += worths
            taken = rates * (after > values)
            rate = taken.sum(axis=0)
            earned = (taken * after).sum(axis=0)
            self._gain = float(earned[0] - rate[0] * values[0])
            fresh = (values[:-1] + steps_ns * (earned[1:] - self._gain)) / (1.0 + steps_ns * rate[1:])
            values = np.concatenate(([0.0], fresh))
        self._values = values


class Reserve:
    """The pressure on each executor."""

    def __init__(self, settings: ReserveSettings) -> None:
        self._settings = settings
        self._backlogs_ns = [0] + [int(BACKLOG_FIRST_NS * BACKLOG_FACTOR**step) for step in range(BACKLOGS - 1)]
        self._pressures: dict[str, Pressure] = {}
        self._turns: deque[tuple[str, int]] = deque()
        """Whose values are worked out anew next, and since when theirs have stood."""
        self._since_ns: int | None = None

    def add(self, executor: str) -> Pressure:
        """An executor is up; the pressure on it."""
        pressure = self._pressures[executor] = Pressure(self._backlogs_ns)
        self._turns.append((executor, 0))
        return pressure

    def remove(self, executor: str) -> None:
        """An executor is gone."""
        if self._pressures.pop(executor, None) is not None:
            self._turns = deque(turn for turn in self._turns if turn[0] != executor)

    def at(self, executor: str) -> Pressure:
        """The pressure on one executor."""
        return self._pressures[executor]

    def note(self, bids: Sequence[Bid], worth: float) -> None:
        """A request came: what of its worth depends on each executor that could run it, given what the others bid."""
        rivalry = Rivalry(worth)
        for bid in bids:
            rivalry.add(bid.surplus)
        if not rivalry.is_open():
            return
        first, second = rivalry.first, rivalry.second
        able = [bid for bid in bids if 0 <= bid.slack_ns < self._settings.slack_max_ns]
        is_lost = first <= 0.0 and len(able) > 1
        blamed = max(able, key=lambda bid: self._pressures[bid.executor].cost(bid.run_ns)) if is_lost else None
        for bid in able:
            other = second if bid.surplus == first else first
            depends = worth - other if other <= 0.0 else CONTESTED * (worth - other)
            part = 1.0 if blamed is None or bid is blamed else self._settings.others_share / (len(able) - 1)
            if depends >= worth * PART_MIN and part > 0.0:
                self._pressures[bid.executor].note(part, bid.slack_ns, bid.run_ns, depends)

    def settle(self, now_ns: int) -> None:
        """Work one executor's values out anew, if its period is over; periods are short while little is known."""
        settings, count = self._settings, len(self._pressures)
        if self._since_ns is None:
            self._since_ns = now_ns
        if not count:
            return
        executor, since_ns = self._turns[0]
        past_ns = now_ns - max(since_ns, self._since_ns)
        known_ns = now_ns - self._since_ns
        period_ns = settings.period_ns * max(1, count // settings.executors_per_period)
        if past_ns < min(period_ns, max(settings.period_ns_min, known_ns // 4)):
            return
        self._turns.rotate(-1)
        self._turns[-1] = (executor, now_ns)
        weight = min(1.0, past_ns / min(settings.memory_ns, known_ns))
        slack_runs = settings.slack_runs_alone if count == 1 else inf
        self._pressures[executor].settle(past_ns, weight, slack_runs, settings)
