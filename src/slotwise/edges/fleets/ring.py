"""A ring of records in shared memory, one writer and one reader, and the memory of a channel made of three.

Nothing here waits, signals or knows what a record means. A record becomes visible when the writer's
counter moves past it, which is its last step: a writer that dies half way leaves everything before
readable and nothing half written in view. Each side only ever stores its own counter, as one aligned
8-byte word. Processors that reorder stores (not x86) need the barrier that the signal between the sides
implies, so read only after having been signalled.

    words   0: bytes ever written (the writer's)   8: bytes ever read (the reader's)
    records 4-byte length, payload, padding to 8; length SKIP means "go on at the start"
"""

from __future__ import annotations

from itertools import pairwise

_WRITTEN, _READ = 0, 8
_HEADER_BYTES = 128
_SKIP = 0xFFFF_FFFF
_CHANNEL_HEADER_BYTES = 64


class RecordTooLong(ValueError):
    """A record that the ring could never take; says its size and the limit."""


class Ring:
    """One writer, one reader. Both sides make their own `Ring` over the same memory."""

    def __init__(self, memory: memoryview) -> None:
        assert len(memory) % 8 == 0, "a ring's memory is a multiple of 8 bytes"
        self._words = memory[:_HEADER_BYTES].cast("Q")
        self._data = memory[_HEADER_BYTES:]
        self._lengths = self._data.cast("I")
        self.capacity = len(self._data)
        self._written = self._words[_WRITTEN]
        self._read = self._words[_READ]

    @property
    def record_bytes_max(self) -> int:
        """The longest record that is taken: it must fit on either side of the wrap."""
        return self.capacity // 2 - 4

    def put(self, record: bytes) -> bool:
        """Append a record; False when there is no room now, and then nothing has changed.

        Raises RecordTooLong for one that no amount of reading would make room for.
        """
        size = len(record)
        need = (size + 11) & ~7
        if size > self.record_bytes_max:
            raise RecordTooLong(f"a record of {size} bytes is over the ring's limit of {self.record_bytes_max}")
        capacity, written = self.capacity, self._written
        at = written % capacity
        if need > capacity - at:
            written += capacity - at
            if written + need - self._words[_READ] > capacity:
                return False
            self._lengths[at >> 2] = _SKIP
            at = 0
        elif written + need - self._words[_READ] > capacity:
            return False
        self._lengths[at >> 2] = size
        self._data[at + 4 : at + 4 + size] = record
        self._words[_WRITTEN] = self._written = written + need
        return True

    def get(self) -> bytes | None:
        """Take the oldest record out; None when there is none."""
        read = self._read
        if read == self._words[_WRITTEN]:
            return None
        at = read % self.capacity
        size = self._lengths[at >> 2]
        if size == _SKIP:
            read += self.capacity - at
            at = 0
            size = self._lengths[0]
        record = bytes(self._data[at + 4 : at + 4 + size])
        self._words[_READ] = self._read = read + ((size + 11) & ~7)
        return record


class ChannelMemory:
    """The shared memory between the front and one executor: three rings and one counter.

    `commands` carries batches, `control` everything that must not wait behind a running batch, and
    `results` all that comes back.
    """

    def __init__(self, memory: memoryview, ring_bytes: int) -> None:
        self._words = memory[:_CHANNEL_HEADER_BYTES].cast("Q")
        ends = [_CHANNEL_HEADER_BYTES + ring_bytes * index for index in range(4)]
        self.commands, self.control, self.results = (Ring(memory[a:b]) for a, b in pairwise(ends))

    @staticmethod
    def size_bytes(ring_bytes: int) -> int:
        """What the memory must measure for rings of `ring_bytes` each."""
        return _CHANNEL_HEADER_BYTES + 3 * ring_bytes

    @property
    def outputs_released(self) -> int:
        """Up to which position of its output segment the front has given room back. The front writes it."""
        return self._words[0]

    @outputs_released.setter
    def outputs_released(self, position: int) -> None:
        self._words[0] = position
