"""The two clocks. The loop cannot tell them apart, and nothing else in the product reads a clock.

`VirtualClock` jumps from one callback to the next. `RealClock` is the machine's monotonic clock behind
asyncio; it starts at a random offset, so code that reads the system's time by itself is found out at
once rather than on the day when the two differ.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush


class Alarm:
    """A callback to come at an instant of virtual time. Of those at the same instant the one set first comes first."""

    __slots__ = ("at_ns", "callback", "serial")

    def __init__(self, at_ns: int, serial: int, callback: Callable[[], None]) -> None:
        self.at_ns = at_ns
        self.serial = serial
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: Alarm) -> bool:
        """Whether it comes first; for the heap."""
        return self.at_ns < other.at_ns or (self.at_ns == other.at_ns and self.serial < other.serial)

    def cancel(self) -> None:
        """Do not call."""
        self.callback = None


class VirtualClock:
    """Time that passes only when everything due has been called."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns
        self._serial = 0
        self._heap: list[Alarm] = []
        self._soon: deque[Alarm] = deque()
        """What is due at this very instant, which needs no sorting."""

    def now_ns(self) -> int:
        """The instant of the callback that runs now."""
        return self._now_ns

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call at this same instant, after what is already due."""
        self._soon.append(self._alarm(self._now_ns, callback))

    def call_at(self, at_ns: int, callback: Callable[[], None]) -> Alarm:
        """Call at an instant; ties are called in the order of asking."""
        alarm = self._alarm(max(at_ns, self._now_ns), callback)
        heappush(self._heap, alarm)
        return alarm

    def run(self, until_ns: int) -> None:
        """Call everything due up to and at `until_ns`, then stand there."""
        while (due := self._next(until_ns)) is not None:
            self._now_ns = due.at_ns
            if due.callback is not None:
                due.callback()
        self._now_ns = max(self._now_ns, until_ns)

    def _alarm(self, at_ns: int, callback: Callable[[], None]) -> Alarm:
        self._serial += 1
        return Alarm(at_ns, self._serial, callback)

    def _next(self, until_ns: int) -> Alarm | None:
        """Take out what is due next."""
        heap, soon = self._heap, self._soon
        if soon and not (heap and heap[0] < soon[0]):
            return soon.popleft()
        return heappop(heap) if heap and heap[0].at_ns <= until_ns else None


class RealClock:
    """The machine's monotonic clock, driven by a running asyncio loop.

    `offset_ns` is added to the monotonic clock; processes on one machine that share it share the clock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, offset_ns: int | None = None) -> None:
        self._loop = loop
        self.offset_ns = random.SystemRandom().randrange(1 << 50, 1 << 51) if offset_ns is None else offset_ns

    def now_ns(self) -> int:
        """Monotonic time plus the offset."""
        return time.monotonic_ns() + self.offset_ns

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call in the next turn of asyncio's loop."""
        self._loop.call_soon(callback)

    def call_at(self, at_ns: int, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call at an instant, to the precision of the loop's poll (about a millisecond)."""
        return self._loop.call_later(max(0, at_ns - self.now_ns()) / 1e9, callback)
