"""The way from the gRPC door to its server: a pool of kept connections over one Unix socket, one request on each.

Who awaits a reply and is cancelled closes the connection, and so the server learns that nobody waits any more.
Nothing here knows gRPC; what goes this way is the protocol over HTTP in its binary form.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import httptools
import msgspec

from slotwise.edges.oip.grpc.errors import bad, unavailable
from slotwise.edges.oip.grpc.messages import Question

HEAD_LENGTH = b"inference-header-content-length"
JOINED_BYTES_MAX = 64 << 10
"""Up to here a request is put together and written at once; what is longer goes piece by piece, uncopied."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A reply as it came."""

    status: int
    head_length: int | None
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

    async def infer(self, question: Question, authorization: str) -> Answer:
        """The reply to an inference. Raises CallError when there is none."""
        length = len(question.head) + sum(map(len, question.tensors))
        more = b"inference-header-content-length: %d\r\n" % len(question.head)
        head = _head(b"POST", question.path, length, authorization, more) + question.head
        return await self._ask([head, *question.tensors], length)

    async def get(self, path: bytes, authorization: str) -> Answer:
        """The reply to a page's request. Raises CallError when there is none."""
        return await self._ask([_head(b"GET", path, 0, authorization)], 0)

    async def post(self, path: bytes, body: bytes, authorization: str) -> Answer:
        """The reply to a command. Raises CallError when there is none."""
        return await self._ask([_head(b"POST", path, len(body), authorization), body], len(body))

    def close(self) -> None:
        """Close what is kept; nothing may be under way."""
        while self._free:
            self._free.pop().close()

    async def _ask(self, pieces: Sequence[bytes], nbytes: int) -> Answer:
        if self._under_way >= self._connections_max:
            words = f"{self._under_way} requests are under way at this door, the limit"
            raise unavailable(words, self._retry_after_ns, "queue_full")
        self._under_way += 1
        try:
            connection = await self._connect()
            try:
                answer = await connection.ask([b"".join(pieces)] if nbytes <= JOINED_BYTES_MAX else pieces)
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


def _head(method: bytes, path: bytes, length: int, authorization: str, more: bytes = b"") -> bytes:
    """A request's line and headers; `authorization` is what the client has shown, and may be empty."""
    if authorization:
        if not (authorization.isascii() and authorization.isprintable()):
            raise bad("the metadata `authorization` holds what no header can hold; show `Bearer TOKEN`")
        more += b"authorization: %s\r\n" % authorization.encode()
    return b"%s %s HTTP/1.1\r\nhost: slotwise\r\ncontent-length: %d\r\n%s\r\n" % (method, path, length, more)


class _Connection(asyncio.Protocol):
    """One connection, by callbacks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._answered: asyncio.Future[Answer | None] | None = None
        self._head_length: int | None = None
        self._body: list[bytes] = []
        self.is_open = False
        self.since_s = 0.0
        """When it became free."""

    def ask(self, pieces: Sequence[bytes]) -> asyncio.Future[Answer | None]:
        """Send a whole request; None comes when the connection breaks before the reply is whole."""
        assert self._answered is None, "one request at a time"
        answered = self._answered = self._loop.create_future()
        if not self.is_open:
            self._end(None)
            return answered
        for piece in pieces:
            self._transport.write(piece)
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

    def on_header(self, name: bytes, content: bytes) -> None:
        """Only the length of a binary answer's head matters."""
        if len(name) == len(HEAD_LENGTH) and name.lower() == HEAD_LENGTH and content.isdigit():
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
        self._end(Answer(self._parser.get_status_code(), head_length, body))

    def _end(self, answer: Answer | None) -> None:
        answered, self._answered = self._answered, None
        if answered is not None and not answered.done():
            answered.set_result(answer)
