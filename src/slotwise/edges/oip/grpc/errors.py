"""What goes wrong at the gRPC door, as gRPC says it: a status, a text, and trailing metadata. No I/O.

`STATUSES` is the one place that says how an HTTP status of the server looks over gRPC. When to come again stands
under three names: the one of HTTP in seconds, ours in milliseconds, and the one that gRPC's own retries obey.
"""

from __future__ import annotations

from http import HTTPStatus

import grpc
import msgspec

from slotwise.edges.oip.errors import ErrorBody
from slotwise.facts.units import MS, S

Metadata = tuple[tuple[str, str], ...]

STATUSES = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.INTERNAL_SERVER_ERROR: grpc.StatusCode.INTERNAL,
    HTTPStatus.NOT_IMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""Others below 500 are INVALID_ARGUMENT, and others from there on INTERNAL."""
_CODES = {int(status): code for status, code in STATUSES.items()}


class CallError(Exception):
    """A call that ends without an answer. The text says what was wrong and what to do."""

    def __init__(
        self,
        status: grpc.StatusCode,
        message: str,
        *,
        reason: str | None = None,
        predicted_ms: float | None = None,
        retry_after_ms: int | None = None,
        is_known: bool = False,
    ) -> None:
        """`is_known` says that the server has made it, and has counted it."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.is_known = is_known
        self._predicted_ms = predicted_ms
        self._retry_after_ms = retry_after_ms

    def alone(self) -> CallError:
        """The same without what led to it."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)

    def metadata(self) -> Metadata:
        """What goes with it for programs; only what is known."""
        told: list[tuple[str, str]] = []
        if self.reason is not None:
            told.append(("slotwise-reason", self.reason))
        if self._predicted_ms is not None:
            told.append(("slotwise-predicted-ms", f"{self._predicted_ms:.3f}"))
        if self._retry_after_ms is not None:
            told.append(("retry-after", str(-(-self._retry_after_ms * MS // S))))
            told.append(("retry-after-ms", str(self._retry_after_ms)))
            told.append(("grpc-retry-pushback-ms", str(self._retry_after_ms)))
        return tuple(told)


def bad(message: str) -> CallError:
    """A call that cannot be understood."""
    return CallError(grpc.StatusCode.INVALID_ARGUMENT, message)


def unavailable(message: str, retry_after_ns: int, reason: str | None = None) -> CallError:
    """A call that may do well later."""
    return CallError(grpc.StatusCode.UNAVAILABLE, message, reason=reason, retry_after_ms=-(-retry_after_ns // MS))


def error_of(status: int, body: bytes) -> CallError:
    """What a reply of the server that is no answer says."""
    try:
        told = msgspec.json.decode(body, type=ErrorBody)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        told = ErrorBody(f"the server answered {status} without a reason that can be read")
    return error_for(status, told)


def error_for(status: int, told: ErrorBody) -> CallError:
    """An error of the server's, with its status as HTTP has it."""
    usual = grpc.StatusCode.INVALID_ARGUMENT if status < HTTPStatus.INTERNAL_SERVER_ERROR else grpc.StatusCode.INTERNAL
    return CallError(
        _CODES.get(status, usual),
        told.error,
        reason=told.reason,
        predicted_ms=told.predicted_ms,
        retry_after_ms=told.retry_after_ms,
        is_known=True,
    )
