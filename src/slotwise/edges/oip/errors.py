"""What goes wrong at the door, as the protocol says it: a status and a JSON body. No I/O.

Everything that is the caller's fault, or that the caller must be told at once, is a `WireError`. It is raised
where it is found and translated once, by whoever writes the reply.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from slotwise.engine.ports import Refusal
from slotwise.facts.types import Reason
from slotwise.facts.units import MS, S

ERROR_CHARS_MAX = 2000
"""Of a text, which may quote what a client has sent."""


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """The body of every reply that is not an answer; `error` is the protocol's, the rest is for programs."""

    error: str
    reason: str | None = None
    predicted_ms: float | None = None
    """When the answer would have come, counted from the request's arrival."""
    retry_after_ms: int | None = None
    request: int | None = None
    """The request's number in journals and logs, if it came so far."""


class WireError(Exception):
    """A reply that is not an answer. The text says what was wrong and what to do."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        *,
        reason: str | None = None,
        predicted_ms: float | None = None,
        retry_after_ns: int = 0,
        allow: str = "",
        challenge: str = "",
        request: int | None = None,
    ) -> None:
        message = message[:ERROR_CHARS_MAX]
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.predicted_ms = predicted_ms
        self.retry_after_ns = retry_after_ns
        self.allow = allow
        self.challenge = challenge
        self.request = request

    def body(self) -> bytes:
        """The JSON that tells it."""
        retry_after_ms = -(-self.retry_after_ns // MS) or None
        told = ErrorBody(self.message, self.reason, self.predicted_ms, retry_after_ms, self.request)
        return msgspec.json.encode(told)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that belong to it: when to come again, what is allowed instead, or what to show."""
        if self.allow:
            return [(b"allow", self.allow.encode())]
        if self.challenge:
            return [(b"www-authenticate", self.challenge.encode())]
        return retry_after_headers(self.retry_after_ns)


def refusal(client: tuple[str, int] | None, target: str, error: WireError) -> Refusal:
    """An error as it is counted and logged. Who comes over the server's own Unix socket has come over gRPC."""
    door, peer = ("grpc", "") if client is None else ("http", f"{client[0]}:{client[1]}")
    reason = error.reason or Reason.NONE.value
    return Refusal(door=door, status=int(error.status), reason=reason, message=error.message, peer=peer, target=target)


def retry_after_headers(wait_ns: int) -> list[tuple[bytes, bytes]]:
    """The headers that say when to come again; none for 0."""
    if not wait_ns:
        return []
    return [(b"retry-after", b"%d" % -(-wait_ns // S)), (b"retry-after-ms", b"%d" % -(-wait_ns // MS))]


def bad(message: str) -> WireError:
    """A request that cannot be understood, or does not fit its model."""
    return WireError(HTTPStatus.BAD_REQUEST, message)


def too_large(message: str) -> WireError:
    """A request beyond one of the door's limits."""
    return WireError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
