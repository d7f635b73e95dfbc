"""What lies between the controller and its executors: a way that takes time, and bytes that follow one another.

A node has one link, with two directions; what is sent first in a direction arrives first, as on one TCP connection.
Bytes count on the way out only, where the tensors are.
"""

from __future__ import annotations

import random

from slotwise.facts.units import S
from slotwise.facts.value import value


@value
class LinkSettings:
    """A message takes `delay_ns`, up to `spread` (0 to 1) of it more or less, each as likely.

    `bytes_per_s` of inputs follow one another; 0 is without limit.
    """

    delay_ns: int
    spread: float = 0.0
    bytes_per_s: float = 0.0


class Direction:
    """One direction of a link."""

    __slots__ = ("_last_ns", "_rng", "_sent_ns", "_settings")

    def __init__(self, settings: LinkSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._sent_ns = self._last_ns = 0

    @property
    def delay_ns(self) -> int:
        """What a message takes as a rule."""
        return self._settings.delay_ns

    def would_arrive_ns(self, now_ns: int, nbytes: int) -> int:
        """When so many bytes would be there behind all that is on its way, if the way took as long as is usual."""
        return self._end_ns(now_ns, nbytes) + self._settings.delay_ns

    def send(self, now_ns: int, nbytes: int = 0) -> int:
        """Send a message; when it arrives."""
        settings = self._settings
        self._sent_ns = self._end_ns(now_ns, nbytes)
        way_ns = settings.delay_ns
        if settings.spread:
            way_ns += int(settings.delay_ns * settings.spread * (2.0 * self._rng.random() - 1.0))
        self._last_ns = max(self._last_ns, self._sent_ns + way_ns)
        return self._last_ns

    def _end_ns(self, now_ns: int, nbytes: int) -> int:
        """When the last of so many bytes has left."""
        per_s = self._settings.bytes_per_s
        return max(now_ns, self._sent_ns) + int(nbytes * S / per_s) if per_s else now_ns
