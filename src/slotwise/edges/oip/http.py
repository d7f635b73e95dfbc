"""The HTTP door: the Open Inference Protocol, served by uvicorn inside the engine's own asyncio loop.

Inference requests come from `connection` read in full, become an `Arrived` for the engine, and wait here by
their id until the engine's `Reply`. All other routes are the ASGI app of `management`. The door decides nothing
about requests; what it refuses by itself is beyond one of its limits, or malformed.

A request arrives when it has been read in full: a slow client spends its own time, and says with `timeout` how
much of it is left. `deadline = arrival + timeout`, or the model's SLO where there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import re
import socket
import urllib.parse
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from http import HTTPStatus

import httptools
import uvicorn
from starlette.routing import BaseRoute

from slotwise.edges.oip import body
from slotwise.edges.oip.access import Access, Grant
from slotwise.edges.oip.answers import encode_answer, error_of, timing_parameters
from slotwise.edges.oip.codec import Contract, refs
from slotwise.edges.oip.connection import JSON_TYPE, Connection, Header
from slotwise.edges.oip.errors import WireError, bad, refusal
from slotwise.edges.oip.exchange import Exchange, JoinTrace, Line, Room
from slotwise.edges.oip.limits import LIMITS, Limits
from slotwise.edges.oip.management import Identity, Management, initializing, spec_of
from slotwise.edges.oip.recording import Recording
from slotwise.edges.oip.regions import Regions
from slotwise.edges.oip.tls import Tls
from slotwise.engine.ports import Arena, Clock, ModelCounts, Models, Outputs, Post, Refused
from slotwise.facts.actions import Reply
from slotwise.facts.events import Arrived, Cancelled
from slotwise.facts.types import FOREVER_NS, Outcome, Reason, Request
from slotwise.facts.value import value

_INFER = re.compile(rb"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_BINARY_TYPE = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
_LENGTH_DIGITS_MAX = 15
NO_RECORDING = Recording()
ROUTE_BYTES_MAX = 1024
"""Of a URL that is remembered; what a longer one means is found anew each time."""
BACKLOG_MAX = 65_535
"""Connections that the system may hold ready; it takes no more."""
_LENGTHS = frozenset((6, 7, 10, 11, 13, 14, 15, 16, 31))
"""Of the names of those headers that matter."""


@value
class DoorStatistics:
    """What the door itself sees: replies to inference requests by status, and how much is under way."""

    replies: Mapping[int, int]
    requests_in_flight: int
    connections: int


class _Route:
    """One URL of the hot route, and its model's contract while the spec stays the same."""

    __slots__ = ("contract", "name", "version")

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self.contract: Contract | None = None
        """Shared by all URLs of a model, since it remembers what clients have sent."""


class HttpDoor:
    """Serves clients over HTTP; an `engine.ports.Front`."""

    def __init__(
        self,
        *,
        models: Models,
        arena: Arena,
        outputs: Outputs,
        post: Post,
        clock: Clock,
        statistics: ModelCounts,
        identity: Identity,
        refused: Refused,
        limits: Limits = LIMITS,
        request_ids: Iterator[int] | None = None,
        late_answers: bool = False,
        tls: Tls | None = None,
        grants: Sequence[Grant] | None = None,
        recording: Recording = NO_RECORDING,
        more_routes: Sequence[BaseRoute] = (),
        join_trace: JoinTrace | None = None,
    ) -> None:
        """`request_ids` is shared among all doors of an engine; `late_answers` delivers late ones as 200.

        Without `grants` everybody may do everything.
        """
        self.limits = limits
        self._models = models
        self._arena = arena
        self._outputs = outputs
        self._post, self._clock = post, clock
        self._refused, self._join_trace = refused, join_trace
        self._late_answers = late_answers
        self._tls = tls
        self._ids = itertools.count(1) if request_ids is None else request_ids
        self._routes: dict[bytes, _Route] = {}
        self._contracts: dict[str, Contract] = {}
        self._waiting: dict[int, Exchange] = {}
        self._room = Room(limits.collected_bytes_max)
        self.regions = Regions(limits)
        self.access = Access(grants, clock)
        self._management_ports: set[int] = set()
        self.replies: Counter[int] = Counter()
        self.is_initializing = False
        """Whether models are still being read: an inference is then told to come again."""
        self._is_draining, self._drained = False, asyncio.Event()
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._local: asyncio.Server | None = None
        self._app = Management(
            models=models,
            statistics=statistics,
            identity=identity,
            limits=limits,
            regions=self.regions,
            recording=recording,
            access=self.access,
            refused=refused,
            ports=self._management_ports,
            is_ready=lambda: not (self._is_draining or self.is_initializing),
            is_initializing=lambda: self.is_initializing,
        ).app(more_routes)

    # Start and stop

    async def start(self, host: str, port: int, local_path: str = "", management_port: int | None = None) -> int:
        """Listen, and return the port; 0 takes a free one. Raises OSError when the address cannot be had.

        With a `management_port` the routes of management are there, and no longer beside inference.

        With `local_path` there is a Unix socket too, which speaks plain HTTP in any case: who may reach it is up to
        the folder that it is in.
        """
        listeners = [self._listen(host, port)]
        if management_port is not None:
            listeners.append(self._listen(host, management_port))
            self._management_ports.add(listeners[1].getsockname()[1])
        config = uvicorn.Config(
            self._app,
            http=functools.partial(Connection, self),  # type: ignore[arg-type]  # called like a class
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            ssl_certfile=self._tls.certificate if self._tls else None,
            ssl_keyfile=self._tls.key if self._tls else None,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=listeners))
        await self._server.listening.wait()
        if local_path:
            protocol = functools.partial(Connection, self, config, self._server.server_state, {})
            loop = asyncio.get_running_loop()
            self._local = await loop.create_unix_server(protocol, local_path, backlog=self.limits.connections_max)
        port_bound: int = listeners[0].getsockname()[1]
        return port_bound

    def _listen(self, host: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        backlog = min(self.limits.connections_max, BACKLOG_MAX)
        return socket.create_server((host, port), family=family, backlog=backlog)

    @property
    def management_port(self) -> int | None:
        """The port for management alone, if there is one."""
        return next(iter(self._management_ports), None)

    async def stop(self, patience_s: float) -> None:
        """Refuse new requests at once, wait for those under way, then close. Those that outlast it are told so.

        Regions stay, for other doors write to them as well; whoever stops the last door unregisters them.
        """
        self._is_draining = True
        if self._waiting:
            with contextlib.suppress(TimeoutError):  # what it means is told to each client below
                await asyncio.wait_for(self._drained.wait(), patience_s)
        for request_id, exchange in list(self._waiting.items()):
            self._abandon(request_id, exchange)
        if self._server is None or self._serving is None:
            return
        if self._local is not None:
            self._local.close()
        self._server.should_exit = True
        await self._serving
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # the transports close in the loop's next turn

    def hurry(self) -> None:
        """Let `stop` wait no longer."""
        self._drained.set()

    def statistics(self) -> DoorStatistics:
        """A snapshot."""
        connections = len(self._server.server_state.connections) if self._server else 0
        return DoorStatistics(
            replies={int(status): count for status, count in self.replies.items()},
            requests_in_flight=len(self._waiting),
            connections=connections,
        )

    # The connections' side

    def open(self, connection: Connection, method: bytes, url: bytes, headers: list[Header]) -> Exchange | None:
        """Begin an exchange, failed already if need be; None when the URL is none of an inference."""
        route = self._routes.get(url) or self._find_route(url)
        if route is None:
            return None
        exchange = Exchange(connection, self._arena, self.regions, self.limits, self._room)
        try:
            _read_headers(exchange, headers, self.limits)
            if connection.server and connection.server[1] in self._management_ports:
                raise WireError(HTTPStatus.NOT_FOUND, "inferences are asked for on the other port, not on this one")
            self.access.check_infer(exchange.authorization, route.name)
            if method != b"POST":
                raise WireError(HTTPStatus.METHOD_NOT_ALLOWED, "an inference is asked for with POST", allow="POST")
            if self.is_initializing:
                raise initializing(self.limits.retry_after_ns)
            if self._is_full():
                raise self._no_room()
            exchange.contract = self._contract(route)
        except WireError as error:
            # One who waits for leave to send may go on with another request or with the body: better to start afresh.
            exchange.keep_alive &= not exchange.expects_continue
            exchange.target = url
            exchange.fail(error)
        return exchange

    def submit(self, exchange: Exchange) -> None:
        """Take a request that has been read in full to the engine."""
        try:
            if self._is_draining:
                raise self._no_room()
            infer = exchange.finish()
        except WireError as error:
            exchange.fail(error)
            assert exchange.connection is not None, "a request is submitted by its connection"
            exchange.connection.send_error(exchange, error)
            return
        contract, region = exchange.contract, exchange.region
        assert contract is not None, "finished"
        assert region is not None, "finished"
        spec = contract.spec
        now_ns = self._clock.now_ns()
        request = Request(
            id=next(self._ids),
            model=spec.id,
            arrival_ns=now_ns,
            deadline_ns=min(now_ns + (infer.timeout_ns or spec.slo_ns), FOREVER_NS),
            rows=infer.rows,
            priority=infer.priority or spec.priority,
            form=infer.form,
            inputs=refs(infer, self._arena, region),
            regions=(region,),
            outputs=infer.names,
        )
        exchange.request = request
        self._waiting[request.id] = exchange
        if exchange.traceparent is not None and self._join_trace is not None:
            self._join_trace(request.id, exchange.traceparent.decode("latin-1"))
        self._post(Arrived(request=request))

    def forget(self, exchange: Exchange) -> None:
        """The client has gone away. A request under way is cancelled; its region is held until the engine agrees."""
        exchange.connection = None
        if exchange.request is None:
            exchange.discard()
        elif exchange.request.id in self._waiting:
            self._post(Cancelled(request_id=exchange.request.id))

    def refuse(self, connection: Connection, error: WireError) -> Exchange:
        """An exchange that has failed, to say an error in its turn."""
        exchange = Exchange(connection, self._arena, self.regions, self.limits, self._room)
        exchange.keep_alive = False
        exchange.target = connection.url
        exchange.fail(error)
        return exchange

    def turned_away(self, connection: Connection, target: str, error: WireError) -> None:
        """The client is told an error that the engine has not made."""
        self._refused(refusal(connection.client, target, error))

    # The engine's side

    def reply(self, reply: Reply) -> None:
        """Answer one request; nothing when its client has gone away."""
        exchange = self._waiting.pop(reply.request_id, None)
        if exchange is None:
            return
        connection = exchange.connection
        if connection is None:
            exchange.discard()
        else:
            try:
                self._answer(connection, exchange, reply)
            except WireError as error:
                exchange.discard()
                connection.send_error(exchange, error)
        if self._is_draining and not self._waiting:
            self._drained.set()

    def _answer(self, connection: Line, exchange: Exchange, reply: Reply) -> None:
        wish, contract, request = exchange.wish, exchange.contract, exchange.request
        assert wish is not None, "a request that waits has been understood"
        assert contract is not None, "a request that waits has been understood"
        assert request is not None, "a request that waits has been made"
        outcome = reply.outcome
        is_late = outcome is Outcome.LATE and self._late_answers
        if outcome is not Outcome.IN_TIME and not is_late:
            raise error_of(reply, request, self._clock.now_ns(), self.limits.retry_after_ns)
        parameters = None
        if is_late or wish.has_timing:
            asked = (reply.timing, request.id) if wish.has_timing else (None, None)
            parameters = timing_parameters(outcome, *asked)
        payload = encode_answer(wish, contract, reply.outputs, self._outputs.read, self.regions.write, parameters)
        exchange.discard()  # after encoding: an output may lie in the request's own region
        headers, content = JSON_TYPE, payload.body
        if payload.head_length is not None:
            headers = _BINARY_TYPE % payload.head_length
        if exchange.coding is not None and self.limits.gzip_bytes_min <= len(content) <= self.limits.gzip_bytes_max:
            content = body.compress(content, exchange.coding, self.limits.gzip_level)
            headers += exchange.coding.header
        connection.send(exchange, HTTPStatus.OK, headers, content)

    def _abandon(self, request_id: int, exchange: Exchange) -> None:
        connection, exchange.connection = exchange.connection, None
        if connection is not None:
            error = WireError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the server is shutting down and did not wait for the answer",
                reason=Reason.SHUTTING_DOWN.value,
                retry_after_ns=self.limits.retry_after_ns,
            )
            connection.send_error(exchange, error)
            self._post(Cancelled(request_id=request_id))

    # Routes

    def _find_route(self, url: bytes) -> _Route | None:
        """A URL seen for the first time. Only those of known models are remembered, and a bounded number of them."""
        try:
            path = httptools.parse_url(url).path
        except httptools.HttpParserInvalidURLError:
            return None
        match = _INFER.fullmatch(path or b"")
        if match is None:
            return None
        name, version = (
            urllib.parse.unquote_to_bytes(part or b"").decode("utf-8", "replace") for part in match.groups()
        )
        route = _Route(name, version)
        if self._models.find(name, version) is not None:
            if len(self._routes) >= self.limits.routes_max:
                self._routes.clear()
                self._contracts.clear()
            if len(url) <= ROUTE_BYTES_MAX:
                self._routes[url] = route
        return route

    def _contract(self, route: _Route) -> Contract:
        status = self._models.find(route.name, route.version)
        contract = route.contract
        if status is not None and contract is not None and contract.spec is status.spec:
            return contract
        spec = spec_of(status, route.name, route.version, self.limits.retry_after_ns)
        contract = self._contracts.get(spec.id)
        if contract is None or contract.spec is not spec:
            contract = self._contracts[spec.id] = Contract(spec, self.limits.bounds())
        route.contract = contract
        return contract

    def _is_full(self) -> bool:
        return self._is_draining or len(self._waiting) >= self.limits.requests_max

    def _no_room(self) -> WireError:
        if self._is_draining:
            reason, words = Reason.SHUTTING_DOWN, "the server is shutting down"
        else:
            reason, words = Reason.QUEUE_FULL, f"{len(self._waiting)} requests are under way, the limit"
        status, retry_after_ns = HTTPStatus.SERVICE_UNAVAILABLE, self.limits.retry_after_ns
        return WireError(status, words, reason=reason.value, retry_after_ns=retry_after_ns)


class _Server(uvicorn.Server):
    """uvicorn's server as a guest in somebody's loop: it takes no signals, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the program."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self.listening.set()


def _read_headers(exchange: Exchange, headers: list[Header], limits: Limits) -> None:
    """The few headers that matter, told apart by their length first. Raises WireError for a bad one."""
    for name, text in headers:
        size = len(name)
        if size not in _LENGTHS:
            continue
        if size == 14 and name.lower() == b"content-length":
            exchange.announce(int(text))  # digits only, or the parser had refused it
        elif size == 31 and name.lower() == b"inference-header-content-length":
            exchange.head_length = _head_length(text)
        elif size == 15 and name.lower() == b"accept-encoding":
            exchange.coding = body.coding(text)
        elif size == 16 and name.lower() == b"content-encoding":
            exchange.inflater = body.inflater(text, limits.body_bytes_max)
        elif size == 13 and name.lower() == b"authorization":
            exchange.authorization = text
        elif size == 11 and name.lower() == b"traceparent":
            exchange.traceparent = text
        elif size == 10 and name.lower() == b"connection":
            exchange.names_connection = True
        elif size == 6 and name.lower() == b"expect":
            exchange.expects_continue = text.lower() == b"100-continue"
        elif size == 7 and name.lower() == b"upgrade":
            exchange.keep_alive = False  # the parser takes all that follows for the other protocol
            raise bad("an inference is not answered in another protocol; ask without the header Upgrade")


def _head_length(text: bytes) -> int:
    if not text.isdigit() or len(text) > _LENGTH_DIGITS_MAX:
        raise bad(f"Inference-Header-Content-Length {text.decode('latin-1')!r} is not a number of bytes")
    return int(text)
