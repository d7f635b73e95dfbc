"""Memory of clients that executors read where it lies. Implements the engine's `Memories` port.

An executor is told of a memory along with the first batch that needs it, and opens it through the front's own
descriptor, which is therefore kept open while any batch that reads from it is out. When the client has gone and the
last such batch is back, those executors that have it mapped are told to forget it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable

from slotwise.edges.fleets.messages import Memory
from slotwise.edges.fleets.segments import Segments


class _Shared:
    """One memory: its descriptor, and how many batches are out that read from it."""

    __slots__ = ("batches", "fd", "is_wanted", "message")

    def __init__(self, fd: int, message: Memory) -> None:
        self.fd = fd
        self.message = message
        self.batches = 0
        self.is_wanted = True


class Memories:
    """Shared memory by segment number. Numbers are drawn where those of outputs are, so each names one memory."""

    def __init__(self, segments: Segments, forget: Callable[[int], None]) -> None:
        """`forget` tells the executors that a segment will not be read from any more."""
        self._segments = segments
        self._forget = forget
        self._shared: dict[int, _Shared] = {}

    def share(self, fd: int, nbytes: int) -> int:
        """Make memory known under a segment number; it may be read from until `unshare`. `fd` stays the caller's."""
        own = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
        segment = self._segments.draw()
        self._shared[segment] = _Shared(own, Memory(segment, f"/proc/{os.getpid()}/fd/{own}", nbytes))
        return segment

    def unshare(self, segment: int) -> None:
        """Nothing new will be read from it. It is given up when the batches that read from it are back."""
        self._shared[segment].is_wanted = False
        self._drop_if_idle(segment)

    def messages(self, segments: Iterable[int]) -> tuple[Memory, ...]:
        """What an executor needs to open them."""
        return tuple([self._shared[segment].message for segment in segments])

    def hold(self, segments: Iterable[int]) -> None:
        """A batch that reads from them is out."""
        for segment in segments:
            self._shared[segment].batches += 1

    def release(self, segments: Iterable[int]) -> None:
        """The batch is back, or its executor is gone."""
        for segment in segments:
            self._shared[segment].batches -= 1
            self._drop_if_idle(segment)

    def close(self) -> None:
        """Give everything up; no executor is left to be told."""
        for shared in self._shared.values():
            os.close(shared.fd)
        self._shared.clear()

    def _drop_if_idle(self, segment: int) -> None:
        shared = self._shared[segment]
        if shared.is_wanted or shared.batches:
            return
        del self._shared[segment]
        os.close(shared.fd)
        self._forget(segment)
