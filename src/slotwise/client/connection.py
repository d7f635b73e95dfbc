"""One HTTP connection of a client, by callbacks: a request goes out, its reply is handed to whoever asked.

One request at a time: whoever has several at once takes several connections. Nothing here awaits, so that a load
generator can use it at little cost.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import httptools

from slotwise.client.errors import ClientError
from slotwise.client.wire import error_of
from slotwise.facts.value import value

HEAD_LENGTH = b"inference-header-content-length"


@value
class WireReply:
    """A reply as it came. `body` is empty where bodies are not kept."""

    status: int
    head_length: int | None
    body: bytes

    def error(self) -> ClientError:
        """The error that it tells, where it is no answer."""
        return error_of(self.status, self.body)


OnReply = Callable[[WireReply | None], None]
"""Called once for each request: with its reply, or with None when the connection broke before that."""


class Connection(asyncio.Protocol):
    """A connection. It is free for a request when `is_open` and none is under way."""

    def __init__(self, on_lost: Callable[[Connection], None]) -> None:
        self._on_lost = on_lost
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._on_reply: OnReply | None = None
        self._head_length: int | None = None
        self._body: list[bytes] = []
        self.is_open = False

    def send(self, request: bytes, on_reply: OnReply) -> None:
        """Send a whole request; `on_reply` is called later, never from within."""
        assert self._on_reply is None, "one request at a time"
        self._on_reply = on_reply
        self._transport.write(request)

    def close(self) -> None:
        """Close at once; a request under way gets no reply."""
        self.is_open = False
        self._transport.abort()

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for the first request."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Parse; what was understood comes back through the callbacks below."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # ours, not the server's
        except httptools.HttpParserError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits, then the owner."""
        self.is_open = False
        self._end(None)
        self._on_lost(self)

    # The parser's side

    def on_header(self, name: bytes, content: bytes) -> None:
        """Only the length of a binary answer's head matters."""
        if name.lower() == HEAD_LENGTH and content.isdigit():
            self._head_length = int(content)

    def on_body(self, piece: bytes) -> None:
        """Keep it."""
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """The reply is whole."""
        if not self._parser.should_keep_alive():
            self.is_open = False
            self._transport.close()
        body, head_length = b"".join(self._body), self._head_length
        self._body.clear()
        self._head_length = None
        self._end(WireReply(status=self._parser.get_status_code(), head_length=head_length, body=body))

    def _end(self, reply: WireReply | None) -> None:
        on_reply, self._on_reply = self._on_reply, None
        if on_reply is not None:
            on_reply(reply)
