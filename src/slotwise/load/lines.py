"""What a sender needs of a way to a server: lines, each of which carries one request at a time.

Over HTTP a line is a connection. Where one connection carries many requests at once, a line is a place on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Protocol, TypeVar

from slotwise.client.errors import ClientError, ConnectionLost, NoAnswer
from slotwise.facts.value import value
from slotwise.workload.values import Arrival

R = TypeVar("R")
"""A request in the form in which a way sends it."""
R_contra = TypeVar("R_contra", contravariant=True)


class Reply(Protocol):
    """What came back. `status` is the HTTP status, or the one that says the same."""

    @property
    def status(self) -> int:
        """What became of it."""

    def error(self) -> ClientError:
        """The error that it tells, where `status` is not 200."""


OnReply = Callable[[Reply | None], None]
"""Called once for each request: with its reply, or with None where there will be none."""


class Line(Protocol[R_contra]):
    """One place for a request. It is free for one when `is_open` and none is under way."""

    @property
    def is_open(self) -> bool:
        """Whether it can be used; one that is lost or closed stays so."""

    def send(self, request: R_contra, on_reply: OnReply) -> None:
        """Send a request; `on_reply` is called later, never from within."""

    def close(self) -> None:
        """Close it at once; a request under way gets no reply, which is told soon."""


class Way(Protocol[R]):
    """A way to one server."""

    async def open(self, count: int) -> Sequence[Line[R]]:
        """So many lines. Raises ConnectionLost, or another ClientError, when even one of them cannot be had."""

    def request(self, arrival: Arrival) -> R:
        """What is sent for an arrival."""

    async def close(self) -> None:
        """Let go of what the lines stand on."""


@value
class Answered:
    """A reply that is an answer."""

    status: int = HTTPStatus.OK

    def error(self) -> ClientError:
        """It tells none."""
        raise AssertionError("an answer tells no error")


@value
class Told:
    """A reply that tells an error."""

    told: ClientError
    status: int

    def error(self) -> ClientError:
        """The error."""
        return self.told


ANSWERED = Answered()


def reply_of(error: ClientError) -> Told | None:
    """What an error is to a sender: a reply that tells it, or none at all."""
    if isinstance(error, ConnectionLost | NoAnswer):
        return None
    return Told(told=error, status=error.status or HTTPStatus.INSUFFICIENT_STORAGE)  # no status: no room at the client
