"""How requests end, as the client that sent them sees it. Pure."""

from __future__ import annotations

from enum import Enum
from http import HTTPStatus

from slotwise.facts.value import value


class Ending(Enum):
    """How a request ended."""

    IN_TIME = "in_time"
    LATE = "late"
    """Told that it is too late, or answered after its deadline."""
    REFUSED = "refused"
    FAILED = "failed"
    UNANSWERED = "unanswered"
    """No reply by the bound, or the connection broke before it."""


@value
class Sending:
    """One request and its ending. Instants are on this machine's monotonic clock; `ended_ns` is None without reply."""

    model: str
    due_ns: int
    sent_ns: int
    """For one that never was sent: when it was given up."""
    ended_ns: int | None
    status: int | None
    ending: Ending
    waited_ns: int = 0
    """Of the time until it was sent: how long it waited for a free connection."""
    was_sent: bool = True

    @property
    def lag_ns(self) -> int:
        """How much later than due it was sent; the client's own fault."""
        return self.sent_ns - self.due_ns

    @property
    def took_ns(self) -> int | None:
        """From when it was due until its reply was there, whatever that says."""
        return None if self.ended_ns is None else self.ended_ns - self.due_ns


def ending_of(status: int | None, took_ns: int | None, allowed_ns: int) -> Ending:
    """What a status means to a client that waited `took_ns` of the time it had allowed."""
    if status is None or took_ns is None:
        return Ending.UNANSWERED
    match status:
        case HTTPStatus.OK:
            return Ending.IN_TIME if took_ns <= allowed_ns else Ending.LATE
        case HTTPStatus.GATEWAY_TIMEOUT:
            return Ending.LATE
        case HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.TOO_MANY_REQUESTS:
            return Ending.REFUSED
        case _:
            return Ending.FAILED
