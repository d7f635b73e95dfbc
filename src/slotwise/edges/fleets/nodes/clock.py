"""What another machine's clock is ahead of this one's, from round trips. Pure.

Each round trip has four stamps, as in NTP (RFC 5905, section 8): sent and returned here, received and sent back
there. Half of what the way out seems to take more than the way back is the difference of the clocks, wrong by at
most half of the round trip. The shortest of the recent ones is believed: what lengthens a round trip, a
queue or a busy loop, does so on one way only and is the error.
"""

from __future__ import annotations

from collections import deque

from slotwise.facts.types import FOREVER_NS
from slotwise.facts.value import value


@value
class Trip:
    """One round trip."""

    ahead_ns: int
    round_trip_ns: int


class ClockEstimate:
    """What the other clock is ahead, by the best of the last `samples_max` round trips."""

    def __init__(self, samples_max: int) -> None:
        self._trips: deque[Trip] = deque(maxlen=samples_max)
        self.ahead_ns = 0
        self.round_trip_ns = 0

    @property
    def samples(self) -> int:
        """How many round trips the estimate rests on."""
        return len(self._trips)

    def add(self, sent_ns: int, received_ns: int, returned_ns: int, back_ns: int) -> None:
        """Take a round trip in: the first and the last stamp are of this clock, the others of the other one."""
        ahead_ns = ((received_ns - sent_ns) + (returned_ns - back_ns)) // 2
        round_trip_ns = max(0, (back_ns - sent_ns) - (returned_ns - received_ns))
        self._trips.append(Trip(ahead_ns=ahead_ns, round_trip_ns=round_trip_ns))
        best = min(self._trips, key=lambda trip: trip.round_trip_ns)
        self.ahead_ns, self.round_trip_ns = best.ahead_ns, best.round_trip_ns

    def there(self, at_ns: int) -> int:
        """An instant of this clock on the other one. Never and forever are what they are on any clock."""
        return at_ns if at_ns <= 0 or at_ns >= FOREVER_NS // 2 else at_ns + self.ahead_ns

    def here(self, at_ns: int) -> int:
        """An instant of the other clock on this one."""
        return at_ns if at_ns == 0 else at_ns - self.ahead_ns


class Order:
    """Keeps what one executor reports in order, however the estimate of its clock moves meanwhile.

    Nothing begins before what ended before it did, nor before it was allowed to, nor ends in the future.
    """

    __slots__ = ("_ended_ns",)

    def __init__(self) -> None:
        self._ended_ns = 0

    def place(self, started_ns: int, ended_ns: int, earliest_ns: int, now_ns: int) -> tuple[int, int]:
        """The span of a run as it is to be told."""
        started_ns = min(max(started_ns, self._ended_ns, earliest_ns), now_ns)
        ended_ns = min(max(ended_ns, started_ns), now_ns)
        self._ended_ns = ended_ns
        return started_ns, ended_ns
