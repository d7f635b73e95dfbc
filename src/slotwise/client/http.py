"""A client over HTTP for programs: numpy arrays in, numpy arrays out, typed errors, connections kept and bounded."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Self

from slotwise.client.connection import Connection, WireReply
from slotwise.client.errors import BadRequest, ConnectionLost, NoAnswer, Unreachable
from slotwise.client.wire import (
    Array,
    InferResult,
    decode_answer,
    encode_get,
    encode_infer,
    encode_post,
    error_of,
    shown_of,
)

CONNECTIONS_MAX = 16
ANSWER_S_MAX = 60.0


class HttpClient:
    """Asks one server. Use it as `async with HttpClient(...) as client`, within one event loop.

    Up to `connections_max` questions are under way at once and further ones wait for a connection; each waits
    `answer_s_max` at most for its reply.
    """

    def __init__(
        self,
        host: str,
        port: int,
        connections_max: int = CONNECTIONS_MAX,
        *,
        answer_s_max: float = ANSWER_S_MAX,
        token: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`token` is shown with every request; with `tls` the connections are encrypted. Raises ValueError."""
        self._address = (host, port)
        self._host = f"{host}:{port}"
        self._shown = shown_of(token)
        self._tls = tls
        self._answer_s_max = answer_s_max
        self._free: list[Connection] = []
        self._all: set[Connection] = set()
        self._permits = asyncio.Semaphore(connections_max)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        timeout_us: int | None = None,
        priority: int | None = None,
        *,
        outputs: Sequence[str] = (),
        has_timing: bool = False,
    ) -> InferResult:
        """The model's answer; the model's own deadline and priority hold where none are given.

        `model` is a name, or name/version. Raises the ClientError that fits.
        """
        request = encode_infer(
            self._host,
            model,
            inputs,
            timeout_us=timeout_us,
            priority=priority,
            outputs=outputs,
            has_timing=has_timing,
            shown=self._shown,
        )
        return await self.infer_encoded(request)

    async def infer_encoded(self, request: bytes) -> InferResult:
        """The answer to a request that `encode_infer` has made. Raises the ClientError that fits."""
        reply = await self._ask(request)
        if reply.status != HTTPStatus.OK:
            raise error_of(reply.status, reply.body)
        return decode_answer(reply.body, reply.head_length)

    async def get(self, path: str) -> bytes:
        """The body of a page of the server's. Raises the ClientError that fits."""
        return await self._page(encode_get(self._host, path, self._shown))

    async def post(self, path: str, body: bytes) -> bytes:
        """What the server answers to JSON that is sent to a page. Raises the ClientError that fits."""
        return await self._page(encode_post(self._host, path, body, self._shown))

    def close(self) -> None:
        """Close every connection; questions under way raise ConnectionLost."""
        for connection in list(self._all):
            connection.close()

    async def _page(self, request: bytes) -> bytes:
        reply = await self._ask(request)
        if reply.status != HTTPStatus.OK:
            raise error_of(reply.status, reply.body)
        return reply.body

    async def _ask(self, request: bytes) -> WireReply:
        async with self._permits:
            connection = await self._connect()
            replied: asyncio.Future[WireReply | None] = asyncio.get_running_loop().create_future()
            connection.send(request, lambda reply: None if replied.done() else replied.set_result(reply))
            try:
                reply = await asyncio.wait_for(replied, self._answer_s_max)
            except TimeoutError as error:
                connection.close()
                raise NoAnswer(f"{self._host} gave no reply within {self._answer_s_max:g} s") from error
            except asyncio.CancelledError:
                connection.close()
                raise
        if reply is None:
            raise ConnectionLost(f"{self._host} closed the connection before it had replied")
        if connection.is_open:
            self._free.append(connection)
        return reply

    async def _connect(self) -> Connection:
        while self._free:
            connection = self._free.pop()
            if connection.is_open:
                return connection
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(lambda: Connection(self._all.discard), *self._address, ssl=self._tls)
        except ssl.SSLError as error:
            words = f"{self._host} does not speak TLS that is trusted here ({error.reason or error}); name its CA file"
            raise BadRequest(words) from error
        except OSError as error:
            raise Unreachable(f"{self._host} cannot be reached: {error.strerror or error}") from error
        self._all.add(made)
        return made
