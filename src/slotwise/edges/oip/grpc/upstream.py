"""The way from the gRPC door to its server for all but inference: kept HTTP connections over one Unix socket.

One request is under way on each. Who awaits a reply and is cancelled closes the connection. Nothing here knows gRPC.
Inference goes another way: `channel`.
"""

from __future__ import annotations

import asyncio
from typing import cast

import httptools
import msgspec

from slotwise.edges.oip.grpc.errors import unavailable


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A reply as it came."""

    status: int
    body: bytes


class Upstream:
    """Asks the server. Of `connections_max` questions under way, one more is refused at once."""

    def __init__(self, path: str, *, connections_max: int, idle_s: float, retry_after_ns: int) -> None:
        self._path = path
        self._connections_max = connections_max
        self._idle_s = idle_s
        self._retry_after_ns = retry_after_ns
        self._loop = asyncio.get_running_loop()
        self._free: list[_Connection] = []
        self._under_way = 0

    async def get(self, path: bytes, authorization: str) -> Answer:
        """The reply to a page's request. Raises CallError when there is none."""
        return await self._ask(_head(b"GET", path, 0, authorization))

    async def post(self, path: bytes, body: bytes, authorization: str) -> Answer:
        """The reply to a command. Raises CallError when there is none."""
        return await self._ask(_head(b"POST", path, len(body), authorization) + body)

    def close(self) -> None:
        """Close what is kept; nothing may be under way."""
        while self._free:
            self._free.pop().close()

    async def _ask(self, request: bytes) -> Answer:
        if self._under_way >= self._connections_max:
            words = f"{self._under_way} requests are under way at this door, the limit"
            raise unavailable(words, self._retry_after_ns, "queue_full")
        self._under_way += 1
        try:
            connection = await self._connect()
            try:
                answer = await connection.ask(request)
            except BaseException:
                connection.close()
                raise
        finally:
            self._under_way -= 1
        if answer is None:
            raise unavailable("the server has closed the connection without an answer", self._retry_after_ns)
        if connection.is_open:
            connection.since_s = self._loop.time()
            self._free.append(connection)
        return answer

    async def _connect(self) -> _Connection:
        oldest_s = self._loop.time() - self._idle_s
        while self._free:
            connection = self._free.pop()
            if connection.is_open and connection.since_s > oldest_s:
                return connection
            connection.close()
        try:
            _, made = await self._loop.create_unix_connection(lambda: _Connection(self._loop), self._path)
        except OSError as error:
            raise unavailable(f"the server cannot be reached: {error.strerror}", self._retry_after_ns) from error
        return made


def _head(method: bytes, path: bytes, length: int, authorization: str) -> bytes:
    """A request's line and headers; `authorization` is what the client has shown, and may be empty."""
    more = b"authorization: %s\r\n" % authorization.encode() if authorization else b""
    return b"%s %s HTTP/1.1\r\nhost: slotwise\r\ncontent-length: %d\r\n%s\r\n" % (method, path, length, more)


class _Connection(asyncio.Protocol):
    """One connection, by callbacks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._answered: asyncio.Future[Answer | None] | None = None
        self._body: list[bytes] = []
        self.is_open = False
        self.since_s = 0.0
        """When it became free."""

    def ask(self, request: bytes) -> asyncio.Future[Answer | None]:
        """Send a whole request; None comes when the connection breaks before the reply is whole."""
        assert self._answered is None, "one request at a time"
        answered = self._answered = self._loop.create_future()
        if not self.is_open:
            self._end(None)
            return answered
        self._transport.write(request)
        return answered

    def close(self) -> None:
        """Close at once."""
        self.is_open = False
        self._transport.abort()

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for the first request."""
        self._transport = cast(asyncio.Transport, transport)
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
        """Tell whoever waits."""
        self.is_open = False
        self._end(None)

    # The parser's side

    def on_body(self, piece: bytes) -> None:
        """Keep it."""
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """The reply is whole."""
        if not self._parser.should_keep_alive():
            self.is_open = False
            self._transport.close()
        body = b"".join(self._body)
        self._body.clear()
        self._end(Answer(self._parser.get_status_code(), body))

    def _end(self, answer: Answer | None) -> None:
        answered, self._answered = self._answered, None
        if answered is not None and not answered.done():
            answered.set_result(answer)
