"""What a link can carry, and so when something that is sent now would be there. Pure.

The other end says of every large frame when it came in full. What a frame took beyond the way of the first byte, or
beyond the arrival of the one before it, is the time that its own bytes took; the median of the recent ones is believed.
Bytes arrive in the order sent, so one count of those that have come says what is still on its way.
"""

from __future__ import annotations

import statistics
from collections import deque

from slotwise.facts.units import S
from slotwise.facts.value import value

SAMPLES_MAX = 16
TELLING_BYTES = 32 << 10
"""A frame below this size says more of the two ends than of the link."""
TOOK_NS_MIN = 1_000


@value
class Frame:
    """A frame on its way: the count of bytes up to its end."""

    end_bytes: int
    nbytes: int
    sent_ns: int


class Budget:
    """One direction of one link."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self._received_bytes = 0
        self._came_ns = 0
        self._as_of_ns = 0
        self._flying: deque[Frame] = deque()
        self._per_s: deque[float] = deque(maxlen=SAMPLES_MAX)
        self.bytes_per_s = 0.0
        """0 while nothing is known."""

    @property
    def backlog_bytes(self) -> int:
        """What was sent and is not known to have come."""
        return self.sent_bytes - self._received_bytes

    def sent(self, nbytes: int, now_ns: int) -> None:
        """A frame goes out."""
        self.sent_bytes += nbytes
        if nbytes >= TELLING_BYTES:
            self._flying.append(Frame(end_bytes=self.sent_bytes, nbytes=nbytes, sent_ns=now_ns))

    def received(self, received_bytes: int, at_ns: int, way_ns: int) -> None:
        """So many bytes had come by an instant of this end's clock; `way_ns` is the way of a single byte."""
        self._received_bytes = max(self._received_bytes, received_bytes)
        self._as_of_ns = max(self._as_of_ns, at_ns)
        while self._flying and self._flying[0].end_bytes <= received_bytes:
            frame = self._flying.popleft()
            if frame.end_bytes == received_bytes:
                took_ns = max(at_ns - max(frame.sent_ns + way_ns, self._came_ns), TOOK_NS_MIN)
                self._per_s.append(frame.nbytes * S / took_ns)
                self.bytes_per_s = statistics.median(self._per_s)
                self._came_ns = at_ns

    def arrives_ns(self, nbytes: int, now_ns: int, way_ns: int) -> int:
        """When so many bytes would be there if they were sent now, behind all that are on their way."""
        ns_per_byte = S / self.bytes_per_s if self.bytes_per_s else 0.0
        if self._flying:  # it had not come when the other end was heard last, so the link is no faster than that
            oldest = self._flying[0]
            out_ns = self._as_of_ns - max(oldest.sent_ns + way_ns, self._came_ns)
            ns_per_byte = max(ns_per_byte, out_ns / oldest.nbytes)
        return now_ns + way_ns + int((self.backlog_bytes + nbytes) * ns_per_byte)
