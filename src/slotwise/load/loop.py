"""An event loop whose timers are as exact as the kernel's: the usual one rounds up to whole milliseconds.

How it works: the usual loop waits in epoll, which counts in milliseconds. This one waits for the epoll descriptor
itself in `select`, which counts in microseconds, and then asks epoll without waiting: one more call of the system for
each wait.
"""

from __future__ import annotations

import asyncio
import select
import selectors


class ExactSelector(selectors.EpollSelector):
    """Epoll with waits in microseconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready, waiting so long at the most; None for ever."""
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], (), (), timeout)
            timeout = 0
        return super().select(timeout)


def exact_loop() -> asyncio.AbstractEventLoop:
    """A loop that waits so; for `asyncio.Runner`."""
    return asyncio.SelectorEventLoop(ExactSelector())
