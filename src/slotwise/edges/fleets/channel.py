"""The front's end of the shared memory and signals between it and one executor process.

A channel lives as long as one process does and is never used for another, so nothing late can be mistaken for
something new. Nothing is lost when a ring is full: records wait here, up to a limit, beyond which the
executor counts as hung. What a record means is no concern of this file.
"""

from __future__ import annotations

import mmap
import os
from collections import deque

from slotwise.edges.fleets.ring import ChannelMemory, Ring


class ChannelFull(Exception):
    """More records wait than may: the executor does not read them."""


class Outlet:
    """A ring that the front writes, the records that found no room in it, and its signal."""

    def __init__(self, ring: Ring, backlog_max: int) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.backlog: deque[bytes] = deque()
        self._ring = ring
        self._backlog_max = backlog_max
        self._is_unsignalled = False

    def put(self, record: bytes) -> None:
        """Write a record behind all those before it. Raises ChannelFull or RecordTooLong."""
        if self.backlog or not self._ring.put(record):
            if len(self.backlog) >= self._backlog_max:
                raise ChannelFull(f"{len(self.backlog)} commands wait for an executor that does not read them")
            self.backlog.append(record)
        self._is_unsignalled = True

    def flush(self) -> None:
        """Write what waits and now finds room; signal once if anything was written since the last time."""
        backlog = self.backlog
        while backlog and self._ring.put(backlog[0]):
            backlog.popleft()
            self._is_unsignalled = True
        if self._is_unsignalled:
            self._is_unsignalled = False
            os.eventfd_write(self.fd, 1)


class Channel:
    """Rings, signals and the output segment of one executor process."""

    def __init__(self, *, name: str, ring_bytes: int, outputs_bytes: int, backlog_max: int) -> None:
        channel_bytes = ChannelMemory.size_bytes(ring_bytes)
        self._channel_fd = _make_memory(f"slotwise-channel-{name}", channel_bytes)
        self._outputs_fd = _make_memory(f"slotwise-outputs-{name}", outputs_bytes)
        self._memory = ChannelMemory(
            _map(self._channel_fd, channel_bytes, mmap.PROT_READ | mmap.PROT_WRITE), ring_bytes
        )
        self.outputs = _map(self._outputs_fd, outputs_bytes, mmap.PROT_READ)
        self.commands = Outlet(self._memory.commands, backlog_max)
        self.control = Outlet(self._memory.control, backlog_max)
        self.results_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.get = self._memory.results.get
        self._outputs_end = 0
        self._outputs_released = 0

    def descriptors(self, arena_fd: int) -> tuple[int, ...]:
        """What the executor needs, in the order that it expects. They stay the channel's."""
        signals = (self.commands.fd, self.control.fd, self.results_fd)
        return (self._channel_fd, self._outputs_fd, arena_fd, *signals)

    @property
    def has_backlog(self) -> bool:
        """Whether records wait for room."""
        return bool(self.commands.backlog or self.control.backlog)

    def note_outputs(self, end: int) -> None:
        """Outputs up to this position have come; they can be released once they have been read."""
        self._outputs_end = end

    def write(self) -> None:
        """Signal what was written, and write what waits for room if there is some."""
        self.commands.flush()
        self.control.flush()

    def release_outputs(self) -> None:
        """Give back the room of all outputs noted."""
        if self._outputs_end != self._outputs_released:
            self._memory.outputs_released = self._outputs_released = self._outputs_end

    def is_within_outputs(self, offset: int, nbytes: int) -> bool:
        """Whether bytes lie in the output segment."""
        return 0 <= offset <= offset + nbytes <= len(self.outputs)

    def close(self) -> None:
        """Close every descriptor. Memory stays mapped while views of it live."""
        for fd in (self._channel_fd, self._outputs_fd, self.commands.fd, self.control.fd, self.results_fd):
            os.close(fd)


def _make_memory(name: str, nbytes: int) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(fd, nbytes)
    return fd


def _map(fd: int, nbytes: int, protection: int) -> memoryview:
    return memoryview(mmap.mmap(fd, nbytes, prot=protection))
