"""What goes wrong for a client, one class for each thing that a caller would treat differently."""

from __future__ import annotations


class ClientError(Exception):
    """A question that got no answer. `status` is the HTTP status, None where there was no reply."""

    def __init__(self, message: str, *, status: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        """The server's one word for it, where it gave one."""


class Refused(ClientError):
    """The server turned the request away at once; `retry_after_ms` says when to come again, 0 where it does not."""

    def __init__(self, message: str, *, status: int | None = None, reason: str = "", retry_after_ms: int = 0) -> None:
        super().__init__(message, status=status, reason=reason)
        self.retry_after_ms = retry_after_ms


class TooLate(ClientError):
    """Accepted, but the deadline could not be met."""


class ModelNotFound(ClientError):
    """The server offers no such model or page."""


class BadRequest(ClientError):
    """The request does not fit the model or the protocol."""


class ServerFault(ClientError):
    """The server failed, or answered with something that is not the protocol."""


class ConnectionLost(ClientError):
    """No connection could be made, or it broke before the reply was whole. The request may or may not have run."""


class Unreachable(ConnectionLost):
    """No connection could be made, so nothing has been sent."""


class NoRoom(ClientError):
    """The client's own shared memory is full."""


class NoAnswer(ClientError):
    """No reply within the time that this client waits."""
