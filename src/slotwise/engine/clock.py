"""The two clocks. The loop cannot tell them apart, and nothing else in the product reads a clock.

`VirtualClock` jumps from one callback to the next. `RealClock` is the machine's monotonic clock behind
asyncio; it starts at a random offset, so code that reads the system's time by itself is found out at
once rather than on the day when the two differ.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Callable


class Alarm:
    """A callback to come at an instant of virtual time."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call."""
        self.callback = None


Due = tuple[int, int, Alarm]
"""When an alarm is due, and how many were set before it."""


class VirtualClock:
    """Time that passes only when everything due has been called."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns
        self._serial = itertools.count()
        self._heap: list[Due] = []
        self._soon: deque[Due] = deque()
        """What is due at this very instant, which needs no sorting."""

    def now_ns(self) -> int:
        """The instant of the callback that runs now."""
        return self._now_ns

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call at this same instant, after what is already due."""
        self._soon.append((self._now_ns, next(self._serial), Alarm(callback)))

    def call_at(self, at_ns: int, callback: Callable[[], None]) -> Alarm:
        """Call at an instant; ties are called in the order of asking."""
        alarm = Alarm(callback)
        heapq.heappush(self._heap, (max(at_ns, self._now_ns), next(self._serial), alarm))
        return alarm

    def run(self, until_ns: int) -> None:
        """Call everything due up to and at `until_ns`, then stand there."""
        while (due := self._next(until_ns)) is not None:
            self._now_ns, _, alarm = due
            if alarm.callback is not None:
                alarm.callback()
        self._now_ns = max(self._now_ns, until_ns)

    def _next(self, until_ns: int) -> Due | None:
        """Take out what is due next."""
        heap, soon = self._heap, self._soon
        if soon and not (heap and heap[0] < soon[0]):
            return soon.popleft()
        return heapq.heappop(heap) if heap and heap[0][0] <= until_ns else None


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
