"""One HTTP connection: uvicorn's, with the one hot route answered by callback instead of by a task.

uvicorn parses, keeps the line of pipelined requests and runs the ASGI app for every route but inference. A
request for inference stands in the same line as an `Exchange`; when it has been read and all before it
have been answered, it goes to the desk, and its answer is one write. Nothing here awaits.

What is taken from uvicorn beside its public names: `cycle`, `pipeline` and `flow` of `HttpToolsProtocol`, and
`_start_asgi_task`. Bounds that it lacks are kept here: the size of heads, slow senders, unread answers. While a
request waits in line nothing more is read, so a client that has gone away by then is noticed at its answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from slotwise.edges.oip.errors import WireError, bad
from slotwise.edges.oip.exchange import Exchange
from slotwise.edges.oip.limits import Limits

Header = tuple[bytes, bytes]
Cycle = Exchange | RequestResponseCycle
HEADER_COST_BYTES = 32
"""What a header counts beside its text, since many short ones take memory too."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON_TYPE = b"content-type: application/json\r\n"
CLOSE = b"connection: close\r\n"


class Desk(Protocol):
    """Where a connection takes its inference requests."""

    limits: Limits
    replies: Counter[int]
    """How many replies have gone out, by status."""

    def open(self, connection: Connection, method: bytes, url: bytes, headers: list[Header]) -> Exchange | None:
        """Begin an exchange, failed already if need be; None when the URL is none of an inference."""

    def submit(self, exchange: Exchange) -> None:
        """Take a request that has been read in full. It is answered by `send` or `send_error`, now or later."""

    def forget(self, exchange: Exchange) -> None:
        """The client has gone away; give back what the exchange holds."""

    def refuse(self, connection: Connection, error: WireError) -> Exchange:
        """An exchange that has failed, to say an error in its turn."""

    def turned_away(self, connection: Connection, target: str, error: WireError) -> None:
        """The client is told an error that the engine has not made."""


class Connection(HttpToolsProtocol):
    """A client's connection."""

    def __init__(
        self,
        desk: Desk,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._desk = desk
        self.url = b""
        self._limits = desk.limits
        self._current: Cycle | None = None
        """The one request that is being answered."""
        self._newest: Exchange | None = None
        """The request that was begun last, if it is for inference."""
        self._line: deque[tuple[Cycle, ASGI3Application]] = self.pipeline  # type: ignore[assignment]  # it is uvicorn's
        """Those behind the current one, the next one last."""
        self._is_advancing = False
        self._is_in_head = False
        self._is_reading = False
        self._is_discarding = False
        """Nothing more is understood of what comes: the last reply has been decided."""
        self._is_closing = False
        self._has_progressed = False
        self._silent_nbytes = 0
        self._default_headers: list[Header] | None = None
        self._default_lines = b""
        self._since_s = 0.0
        self._tick_s = min(self._limits.keep_alive_s, self._limits.read_s, self._limits.write_s)
        self._patience: asyncio.TimerHandle | None = None

    # The transport's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Refuse a connection too many, else be patient with it from now on."""
        super().connection_made(transport)
        self._since_s = self.loop.time()
        self._be_patient(self._tick_s, self._check_patience)
        if len(self.connections) > self._limits.connections_max:
            retry_after_ns = self._limits.retry_after_ns
            self._reject(
                WireError(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", retry_after_ns=retry_after_ns)
            )

    def data_received(self, data: bytes) -> None:
        """Parse; what was understood comes back through the callbacks below."""
        if self._is_discarding:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._feed_rest(data, upgrade)
        except httptools.HttpParserCallbackError:
            raise  # ours, not the client's
        except httptools.HttpParserError as error:
            self._reject(_not_http(error))
        if not self._has_progressed:
            self._count_silence(self._silent_nbytes + len(data))
            return
        self._has_progressed = False
        self._silent_nbytes = 0
        if self._is_in_head:
            self._count_silence(len(self.url) + sum(len(name) + len(text) for name, text in self.headers))

    def _feed_rest(self, data: bytes, upgrade: httptools.HttpParserUpgrade) -> None:
        """No other protocol is spoken here: what stands behind the request is the next one."""
        while not self._is_discarding:
            data = data[int(upgrade.args[0]) :]
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as another:
                upgrade = another
            except httptools.HttpParserCallbackError:
                raise  # ours, not the client's
            except httptools.HttpParserError as error:
                self._reject(_not_http(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """Everything under way on this connection is void."""
        if self._patience is not None:
            self._patience.cancel()
        line: list[Cycle | None] = [self._current, *(cycle for cycle, _ in self._line)]
        for cycle in line:
            if type(cycle) is Exchange:
                self._desk.forget(cycle)
            elif type(cycle) is RequestResponseCycle:
                cycle.disconnected = True
                cycle.message_event.set()
        self._line.clear()
        self._current = None
        if self._newest is not None:
            self.cycle = None  # type: ignore[assignment]  # uvicorn's own initial value
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """The client reads again: go on with those that wait."""
        super().resume_writing()
        self._advance()

    def shutdown(self) -> None:
        """Answer what has been asked, then close."""
        self._is_closing = True
        if self._current is None and not self._line:
            self.transport.close()

    # The parser's side

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._is_discarding:
            return  # the rest of a packet whose beginning has ended the connection
        self.url = b""
        self.headers = []
        self._is_in_head = self._is_reading = self._has_progressed = True
        if self._current is None:
            self._since_s = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what comes behind a chunked body is of no use here."""
        if self._is_in_head:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Put the request into the line: an exchange for inference, a cycle of uvicorn's for all else."""
        if self._is_discarding:
            return
        self._is_in_head = False
        self._has_progressed = True
        exchange = self._desk.open(self, self.parser.get_method(), self.url, self.headers)
        if exchange is None:
            if not _leads_somewhere(self.url):
                self._put(self._desk.refuse(self, bad("the request's target is no URL with a path in plain ASCII")))
                return
            self._put_cycle()
            return
        if not self.parser.should_keep_alive() or (exchange.names_connection and self._is_old()):
            exchange.keep_alive = False
        self._put(exchange)

    def on_body(self, body: bytes) -> None:
        """Some of the body of the request read last."""
        if self._is_discarding:
            return
        self._has_progressed = True
        exchange = self._newest
        if exchange is None:
            super().on_body(body)
            return
        exchange.write(body)
        if exchange.error is not None and exchange is self._current:
            self.send_error(exchange, exchange.error)

    def on_message_complete(self) -> None:
        """The request read last is complete."""
        if self._is_discarding:
            return
        self._is_reading = False
        self._has_progressed = True
        exchange = self._newest
        if exchange is None:
            super().on_message_complete()
            return
        exchange.is_complete = True
        if exchange is self._current:
            self._desk.submit(exchange)

    # The line

    def _put(self, exchange: Exchange) -> None:
        self._newest = exchange
        self.cycle = exchange  # type: ignore[assignment]  # uvicorn asks it only for `response_complete`
        if self._current is None and not self._line and not self.flow.write_paused:
            self._start(exchange)
        else:
            self.flow.pause_reading()
            self._line.appendleft((exchange, self.app))

    def _is_old(self) -> bool:
        """Whether this is HTTP/1.0, whose connections are closed even where the client would keep them."""
        return bool(self.parser.get_http_version() == "1.0")

    def _put_cycle(self) -> None:
        # The scope is made late, because the hot route has no use for it.
        self._newest = None
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """The ASGI app has answered."""
        self._answered(self._current.keep_alive if self._current is not None else False)

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        if exchange.error is not None:
            self.send_error(exchange, exchange.error)
        elif exchange.is_complete:
            self._desk.submit(exchange)
        elif exchange.expects_continue:
            self.transport.write(CONTINUE)

    def _advance(self) -> None:
        """Start the next one in line. A loop, for one that is answered at once comes back here."""
        if self._is_advancing:
            return
        self._is_advancing = True
        while self._line and self._current is None and not self.flow.write_paused:
            cycle, app = self._line.pop()
            if not self._line:
                self.flow.resume_reading()
            if type(cycle) is RequestResponseCycle:
                self._start_asgi_task(cycle, app)
            elif type(cycle) is Exchange:
                self._start(cycle)
        self._is_advancing = False

    def _answered(self, keep_alive: bool) -> None:
        self.server_state.total_requests += 1
        self._current = None
        self._since_s = self.loop.time()
        if self.transport.is_closing():
            return
        if not keep_alive or self._is_closing:
            self._close()
        elif self._line:
            self._advance()
        elif self.flow.read_paused:
            self.flow.resume_reading()

    # Replies

    def send(self, exchange: Exchange, status: HTTPStatus, headers: bytes, body: bytes) -> None:
        """Answer the exchange that is being answered, in one write. Headers are lines, each with its end."""
        assert exchange is self._current, "answers go out in the order of the requests"
        if not exchange.keep_alive or self._is_closing:
            headers += CLOSE
        head = b"%s%s%scontent-length: %d\r\n\r\n" % (STATUS_LINE[status], self._defaults(), headers, len(body))
        self.transport.write(head + body)
        exchange.response_complete = True
        exchange.connection = None
        self._desk.replies[status] += 1
        self._answered(exchange.keep_alive)

    def send_error(self, exchange: Exchange, error: WireError) -> None:
        """Answer with an error."""
        if exchange.request is None:
            contract = exchange.contract
            self._desk.turned_away(self, _text(exchange.target) if contract is None else contract.spec.id, error)
        self.send(exchange, error.status, JSON_TYPE + _lines(error.headers()), error.body())

    def _defaults(self) -> bytes:
        """The headers that uvicorn puts to every reply; it makes them anew every second."""
        headers = self.server_state.default_headers
        if headers is not self._default_headers:
            self._default_headers = headers
            self._default_lines = _lines(headers)
        return self._default_lines

    def _reject(self, error: WireError) -> None:
        """What comes cannot be understood any more: say so once those before it have been answered, then close."""
        if self._is_discarding or self.transport.is_closing():
            return  # the last reply has been decided already
        self._is_discarding = True
        self._is_reading = False
        last, cycle = self._newest, self.cycle
        if last is not None and not last.is_complete and not last.response_complete:
            last.keep_alive = False
            last.fail(error)
            if last is self._current:
                self.send_error(last, error)
        elif type(cycle) is RequestResponseCycle and cycle.more_body and not cycle.response_complete:
            self._desk.turned_away(self, _text(self.url), error)
            self.transport.close()
        else:
            self._put(self._desk.refuse(self, error))

    def _close(self) -> None:
        """Close. Where the client may still be sending, first read on for a while, else it would not see the reply."""
        if not self._is_reading and not self._is_discarding:
            self._is_discarding = True
            self.transport.close()
            return
        self._is_discarding = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._be_patient(self._limits.linger_s, self.transport.close)

    # Limits of time and of heads

    def _count_silence(self, nbytes: int) -> None:
        """Bytes that brought neither a request nor a body belong to a head or a trailer, which end some time."""
        self._silent_nbytes = nbytes
        if self._is_in_head:
            nbytes += HEADER_COST_BYTES * len(self.headers)
        if nbytes > self._limits.head_bytes_max and not self._is_discarding:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._reject(WireError(status, f"the head has more than {self._limits.head_bytes_max} bytes, the limit"))

    def _be_patient(self, delay_s: float, callback: Callable[[], None]) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self.loop.call_later(delay_s, callback)

    def _check_patience(self) -> None:
        """One timer a connection, moved on lazily: what it waits for has mostly come long before it rings."""
        if self.transport.is_closing():
            return
        limits = self._limits
        if self._is_ours_to_end():
            self._be_patient(self._tick_s, self._check_patience)
            return
        allowed_s = limits.keep_alive_s
        if self.flow.write_paused:
            allowed_s = limits.write_s
        elif self._is_reading:
            allowed_s = limits.read_s
        left_s = self._since_s + allowed_s - self.loop.time()
        if left_s > 0:
            self._be_patient(min(left_s, self._tick_s), self._check_patience)
        else:
            self._lose_patience()

    def _is_ours_to_end(self) -> bool:
        """Whether the client has done its part and waits for an answer."""
        if self.flow.write_paused or self._current is None:
            return False
        if type(self._current) is Exchange:
            return self._current.is_complete
        return type(self._current) is RequestResponseCycle and not self._current.more_body

    def _lose_patience(self) -> None:
        if self.flow.write_paused:
            self.transport.abort()
        elif self._is_reading:
            self._reject(WireError(HTTPStatus.REQUEST_TIMEOUT, f"no whole request in {self._limits.read_s:g} s"))
        else:
            self.transport.close()


def _leads_somewhere(url: bytes) -> bool:
    """Whether a URL has a path, and is written as one must be; all routes but the hot one take that for granted."""
    try:
        return url.isascii() and bool(httptools.parse_url(url).path)
    except httptools.HttpParserInvalidURLError:
        return False


def _not_http(error: httptools.HttpParserError) -> WireError:
    return WireError(HTTPStatus.BAD_REQUEST, f"not HTTP/1.1: {error}")


def _text(url: bytes) -> str:
    """A URL without its query, which is of no use in a log and may hold what should not stand there."""
    return url.partition(b"?")[0].decode("latin-1")


def _lines(headers: list[Header]) -> bytes:
    return b"".join([b"%s: %s\r\n" % header for header in headers])
