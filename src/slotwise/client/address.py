"""Where a server is, as a URL says it, and when a question may be asked once more. Pure but for the clock."""

from __future__ import annotations

import time
from urllib.parse import unquote, urlsplit

from slotwise.client.errors import ClientError, Refused, TooLate, Unreachable
from slotwise.client.question import Question
from slotwise.facts.value import value

HTTP_PORT = 80
HTTPS_PORT = 443
GRPC_PORT = 8001
PAUSE_S_MIN = 0.05
"""Before a server that was not there is tried again; doubled each time,"""
PAUSE_S_MAX = 2.0
"""up to this."""


class AddressError(ValueError):
    """A URL that leads to no server of a kind that this client knows."""


@value
class HttpAddress:
    """A server over HTTP, or HTTPS."""

    host: str
    port: int
    is_tls: bool = False


@value
class GrpcAddress:
    """A server over gRPC, encrypted or not."""

    host: str
    port: int
    is_tls: bool = False


@value
class LocalAddress:
    """A server's local socket."""

    path: str


Address = HttpAddress | GrpcAddress | LocalAddress


def address_of(url: str) -> Address:
    """Read `http://host:port`, `grpc://host:port`, either with an s for TLS, or `unix:///path`. Raises AddressError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressError(f"{url!r} is no address: {error}") from error
    if parts.scheme == "unix" and parts.path and not parts.netloc:
        return LocalAddress(path=unquote(parts.path))
    if parts.hostname and parts.path in ("", "/"):
        match parts.scheme:
            case "http":
                return HttpAddress(host=parts.hostname, port=port or HTTP_PORT)
            case "https":
                return HttpAddress(host=parts.hostname, port=port or HTTPS_PORT, is_tls=True)
            case "grpc" | "grpcs":
                return GrpcAddress(host=parts.hostname, port=port or GRPC_PORT, is_tls=parts.scheme == "grpcs")
    words = "write http://host:port, grpc://host:port (https and grpcs for TLS) or unix:///path"
    raise AddressError(f"{url!r} is no address that this client knows; {words}")


class Tries:
    """One question's tries. Its deadline, where it has one, counts from here; `tries_max` counts the first."""

    def __init__(self, question: Question, tries_max: int) -> None:
        self._question = question
        self._left = tries_max
        self._pause_s = PAUSE_S_MIN
        self._end_s = time.monotonic() + question.timeout_us / 1e6 if question.timeout_us else None

    def question(self) -> Question:
        """What to ask now: the question, with what is left of its time. Raises TooLate when there is nothing left."""
        if self._end_s is None:
            return self._question
        left_us = int((self._end_s - time.monotonic()) * 1e6)
        if left_us <= 0:
            raise TooLate("the deadline passed before the question could be asked")
        asked = self._question
        return Question(
            model=asked.model,
            inputs=asked.inputs,
            timeout_us=left_us,
            priority=asked.priority,
            outputs=asked.outputs,
            has_timing=asked.has_timing,
        )

    def pause_s(self, error: ClientError) -> float:
        """How long to wait before the next try. Raises the error itself where there must be none, or is no use in one.

        Only what the server has surely not taken is asked again: nobody was there, or it was refused with a time to
        come again that is before the deadline.
        """
        self._left -= 1
        if isinstance(error, Unreachable):
            pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, PAUSE_S_MAX)
        elif isinstance(error, Refused) and error.retry_after_ms and self._end_s is not None:
            pause_s = error.retry_after_ms / 1000
        else:
            raise error
        if self._left < 1 or (self._end_s is not None and time.monotonic() + pause_s >= self._end_s):
            raise error
        return pause_s
