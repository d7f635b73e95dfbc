"""The ways over HTTP: kept connections that notice a reply too many, requests in binary and in JSON, and pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import msgspec
import numpy as np
from harness.models import json_body

from slotwise.client import Array, ClientError, encode_get, encode_infer
from slotwise.client.connection import Connection, OnReply, WireReply
from slotwise.client.wire import DTYPES, decode_answer
from slotwise.demo.mix import is_as_expected
from soak.questions import Asked, Flaw
from soak.tally import End, Outcome, tells_removed

ANSWER_S_MAX = 40.0
"""A request without an answer for so long counts as unanswered; the widest deadline is a quarter of it."""
IDLE_S_MAX = 10.0
"""A connection that idled longer is not asked again: the server closes it after 30 s, which is no lost answer."""
HOST = "127.0.0.1"


class NoReply(Exception):
    """The connection ended, or time was up, before a whole reply had come."""


class Watched(Connection):
    """A connection that counts its replies."""

    def __init__(self, on_lost: Callable[[Connection], None], on_surplus: Callable[[], None]) -> None:
        super().__init__(on_lost)
        self._on_surplus = on_surplus
        self._open_questions = 0

    def send(self, request: bytes, on_reply: OnReply) -> None:
        """As for any connection."""
        self._open_questions += 1
        super().send(request, on_reply)

    def on_message_complete(self) -> None:
        """A reply is whole; there must be a request that it belongs to."""
        self._open_questions -= 1
        if self._open_questions < 0:
            self._on_surplus()
        super().on_message_complete()


class Connections:
    """As many connections to the HTTP door as there are requests under way, and some to spare."""

    def __init__(self, port: int, on_surplus: Callable[[], None]) -> None:
        self.port = port
        self._on_surplus = on_surplus
        self._free: list[tuple[Connection, float]] = []
        self._all: set[Connection] = set()

    async def exchange(self, request: bytes) -> WireReply:
        """Send a whole request and wait for its reply. Raises NoReply."""
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                connection = await self._connected()
                replied: asyncio.Future[WireReply | None] = asyncio.get_running_loop().create_future()
                connection.send(request, lambda reply: None if replied.done() else replied.set_result(reply))
                reply = await replied
        except TimeoutError as error:
            raise NoReply(f"no reply within {ANSWER_S_MAX:g} s") from error
        except OSError as error:
            raise NoReply(f"no connection: {error}") from error
        if reply is None:
            raise NoReply("the connection ended before the reply")
        if connection.is_open:
            self._free.append((connection, asyncio.get_running_loop().time()))
        return reply

    async def get(self, path: str) -> WireReply:
        """A page. Raises NoReply."""
        return await self.exchange(encode_get(HOST, path))

    async def post(self, path: str) -> WireReply:
        """A route of management, without a body. Raises NoReply."""
        return await self.exchange(f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n".encode())

    def close(self) -> None:
        """Close all."""
        for connection in list(self._all):
            connection.close()

    async def _connected(self) -> Connection:
        loop = asyncio.get_running_loop()
        while self._free:
            connection, since_s = self._free.pop()
            if connection.is_open and loop.time() - since_s <= IDLE_S_MAX:
                return connection
            connection.close()
        _, made = await loop.create_connection(lambda: Watched(self._all.discard, self._on_surplus), HOST, self.port)
        self._all.add(made)
        return made


class BinaryWay:
    """Asks with tensors in binary."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def ask(self, asked: Asked) -> Outcome:
        """How it ended."""
        return await _outcome(self._connections, asked, binary_request(asked), _binary_outputs)


class JsonWay:
    """Asks with all in JSON."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def ask(self, asked: Asked) -> Outcome:
        """How it ended."""
        timeout_ns = None if asked.timeout_us is None else asked.timeout_us * 1000
        content = json_body(asked.inputs, timeout_ns).content
        request = _request(asked.model, content[:-2] if asked.flaw is Flaw.GARBAGE else content)
        return await _outcome(self._connections, asked, request, _json_outputs)


def binary_request(asked: Asked) -> bytes:
    """A request in binary; garbage is what is said to be JSON and is not."""
    if asked.flaw is Flaw.GARBAGE:
        return _request(asked.model, b'{"inputs": [{"name": \xff')
    return encode_infer(HOST, asked.model, asked.inputs, timeout_us=asked.timeout_us)


def judged(asked: Asked, status: int, told: str) -> Outcome:
    """What a status other than 200 means."""
    if status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        return Outcome(End.REFUSED, told)
    if status == HTTPStatus.GATEWAY_TIMEOUT:
        return Outcome(End.TOO_LATE, told)
    if status == HTTPStatus.NOT_FOUND and tells_removed(told):
        return Outcome(End.REMOVED, told)
    is_deserved = asked.flaw is not None and HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return Outcome(End.REJECTED if is_deserved else End.WRONG, f"{status}: {told}")


def judged_answer(asked: Asked, outputs: dict[str, Array]) -> Outcome:
    """Whether an answer is the right one."""
    if asked.flaw is not None:
        return Outcome(End.WRONG, f"an answer to a request with {asked.flaw.name}")
    if is_as_expected(asked.exhibit, outputs):
        return Outcome(End.OK)
    return Outcome(End.WRONG, "; ".join(_difference(outputs.get(name), one) for name, one in _expected(asked)))


def _expected(asked: Asked) -> list[tuple[str, Array]]:
    return sorted(asked.exhibit.expected.items())


def _difference(given: Array | None, expected: Array) -> str:
    """How an output lies beside the one expected."""
    if given is None:
        return "missing"
    if given.shape != expected.shape:
        return f"shape {given.shape}, not {expected.shape}"
    apart = np.abs(given.astype(np.float64) - expected.astype(np.float64))
    at = int(apart.argmax())
    return f"{int((apart > 0).sum())} of {apart.size} differ, number {at} is {given.flat[at]}, not {expected.flat[at]}"


async def _outcome(
    connections: Connections, asked: Asked, request: bytes, outputs: Callable[[WireReply], dict[str, Array]]
) -> Outcome:
    try:
        reply = await connections.exchange(request)
        if reply.status != HTTPStatus.OK:
            return judged(asked, reply.status, reply.body.decode(errors="replace"))
        return judged_answer(asked, outputs(reply))
    except NoReply as error:
        return Outcome(End.UNANSWERED, str(error))
    except (ClientError, msgspec.MsgspecError) as error:
        return Outcome(End.WRONG, f"an answer that is not the protocol's: {error}")


def _binary_outputs(reply: WireReply) -> dict[str, Array]:
    return decode_answer(reply.body, reply.head_length).outputs


class _Output(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class _Answer(msgspec.Struct):
    outputs: list[_Output]


def _json_outputs(reply: WireReply) -> dict[str, Array]:
    answer = msgspec.json.decode(reply.body, type=_Answer)
    return {one.name: np.array(one.data, DTYPES[one.datatype]).reshape(one.shape) for one in answer.outputs}


def _request(model: str, content: bytes) -> bytes:
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
