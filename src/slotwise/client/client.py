"""One client for every way to a server, by its URL.

    http://host:port   grpc://host:port   unix:///path of its local socket   https and grpcs for the first two over TLS

It adds what every caller would write again: connections are made when they are needed, also after a server has been
started anew, and a question is asked once more where that is safe (`Tries`). `Client` blocks, and has futures and
callbacks besides; `AsyncClient` awaits and has many questions under way.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike

from slotwise.client.address import Address, AddressError, GrpcAddress, HttpAddress, LocalAddress, Tries, address_of
from slotwise.client.asynchronous import AsyncLocalClient
from slotwise.client.background import Background, call_with
from slotwise.client.errors import ClientError, Refused, Unreachable
from slotwise.client.http import CONNECTIONS_MAX, HttpClient
from slotwise.client.local import ANSWER_S_MAX, LocalClient
from slotwise.client.question import WINDOW, Asker, Question, Streamed
from slotwise.client.sharing import MEMORY_BYTES, Inputs
from slotwise.client.tries import stream_with_tries
from slotwise.client.wire import Array, InferResult
from slotwise.facts.value import value

if TYPE_CHECKING:
    from slotwise.client.grpc import GrpcClient

TRIES = 3


@value
class _Settings:
    """What both clients are told, beside the URL."""

    tries: int
    connections_max: int
    memory_bytes: int
    answer_s_max: float
    token: str
    ca_file: str


class AsyncClient(Asker[Coroutine[Any, Any, InferResult]]):
    """Asks one server, within one event loop. Use it as `async with AsyncClient(url) as client`."""

    def __init__(
        self,
        url: str,
        *,
        tries: int = TRIES,
        connections_max: int = CONNECTIONS_MAX,
        memory_bytes: int = MEMORY_BYTES,
        answer_s_max: float = ANSWER_S_MAX,
        token: str = "",
        ca_file: str = "",
    ) -> None:
        """Nothing is sent yet. Raises AddressError, ValueError for what is no token, OSError for a missing file.

        `connections_max` is for HTTP, `memory_bytes` for a local socket, which asks for no token either. `ca_file`
        names the certificates (PEM) that a server's must be signed by; without it, those that the system trusts hold.
        """
        self._tries = tries
        self._answer_s_max = answer_s_max
        self._address = address = address_of(url)
        self._opening = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None
        self._inputs: Inputs | None = None
        self._local: AsyncLocalClient | None = None
        self._http: HttpClient | None = None
        self._grpc: GrpcClient | None = None
        if isinstance(address, LocalAddress):
            self._inputs = Inputs(memory_bytes)
        elif isinstance(address, HttpAddress):
            tls = ssl.create_default_context(cafile=ca_file or None) if address.is_tls else None
            self._http = HttpClient(
                address.host, address.port, connections_max, answer_s_max=answer_s_max, token=token, tls=tls
            )
        else:
            self._grpc = _grpc_client(address, answer_s_max, token, ca_file)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike) -> Array:
        """A fresh array to fill and send; over a local socket it is not copied then. Raises NoRoom.

        Do not write to it between a question and its answer.
        """
        return np.empty(shape, dtype) if self._inputs is None else self._inputs.empty(shape, dtype)

    async def ask(self, question: Question) -> InferResult:
        """The answer to a question. Raises the ClientError that fits."""
        tries = Tries(question, self._tries)
        while True:
            try:
                return await self._ask(tries.question())
            except (Unreachable, Refused) as error:
                pause_s = tries.pause_s(error)
            await asyncio.sleep(pause_s)

    async def stream(self, questions: Iterable[Question], window: int = WINDOW) -> AsyncIterator[Streamed]:
        """Ask one question after the other, `window` at once, and hand out the answers as they come.

        A new question is taken when there is room for it. What is not asked for in the end is cancelled.
        """
        ahead = enumerate(questions)
        under_way: dict[asyncio.Task[InferResult], int] = {}
        has_more = True
        try:
            while True:
                while has_more and len(under_way) < max(1, window):
                    index, question = next(ahead, (0, None))
                    if question is None:
                        has_more = False
                    else:
                        under_way[asyncio.create_task(self.ask(question))] = index
                if not under_way:
                    return
                done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in under_way if task in done]:
                    yield Streamed(index=under_way.pop(task), outcome=_outcome_of(task))
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def aclose(self) -> None:
        """Close every connection and wait until that is done; questions under way raise ConnectionLost."""
        self.close()
        if self._closing is not None:
            await self._closing

    def close(self) -> None:
        """As `aclose`, but the last of it happens in the loop's next turns."""
        if self._http is not None:
            self._http.close()
        if self._grpc is not None and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._grpc.close())
        if self._local is not None:
            self._local.close()
        if self._inputs is not None:
            self._inputs.close()

    async def _ask(self, question: Question) -> InferResult:
        if self._grpc is not None:
            return await self._grpc.ask(question)
        if self._http is None:
            return await (await self._open()).ask(question)
        return await self._http.infer(
            question.model,
            question.inputs,
            question.timeout_us,
            question.priority,
            outputs=question.outputs,
            has_timing=question.has_timing,
        )

    async def _open(self) -> AsyncLocalClient:
        async with self._opening:
            if self._local is None or not self._local.is_open:
                assert isinstance(self._address, LocalAddress), "the other kinds have no local client"
                fresh = AsyncLocalClient(self._address.path, inputs=self._inputs, answer_s_max=self._answer_s_max)
                await fresh.open()
                self._local = fresh
            return self._local


class Client(Asker[InferResult]):
    """Asks one server. Use it as `with Client(url) as client`, from one thread at a time.

    `ask` and `infer` wait for the answer, `stream` hands out many as they come. `submit` gives a future and `call`
    takes a callback; both return at once, may be used from any thread, and have connections and memory of their own.
    """

    def __init__(
        self,
        url: str,
        *,
        tries: int = TRIES,
        connections_max: int = CONNECTIONS_MAX,
        memory_bytes: int = MEMORY_BYTES,
        answer_s_max: float = ANSWER_S_MAX,
        token: str = "",
        ca_file: str = "",
    ) -> None:
        """As `AsyncClient`."""
        self._url = url
        self._address: Address = address_of(url)
        self._settings = _Settings(
            tries=tries,
            connections_max=connections_max,
            memory_bytes=memory_bytes,
            answer_s_max=answer_s_max,
            token=token,
            ca_file=ca_file,
        )
        self._inputs: Inputs | None = None
        self._local: LocalClient | None = None
        self._far: AsyncClient | None = None
        """What asks over HTTP and gRPC, in a loop of its own."""
        self._runner: asyncio.Runner
        self._background: Background | None = None
        """What asks for `submit`."""
        self._starting = threading.Lock()
        if isinstance(self._address, LocalAddress):
            self._inputs = Inputs(memory_bytes)
        else:
            self._runner = asyncio.Runner()
            try:
                self._far = self._runner.run(self._made())
            except BaseException:
                self._runner.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike) -> Array:
        """As `AsyncClient.empty`."""
        return np.empty(shape, dtype) if self._inputs is None else self._inputs.empty(shape, dtype)

    def ask(self, question: Question) -> InferResult:
        """The answer to a question. Raises the ClientError that fits."""
        if self._far is not None:
            return self._runner.run(self._far.ask(question))
        tries = Tries(question, self._settings.tries)
        while True:
            try:
                return self._open().ask(tries.question())
            except (Unreachable, Refused) as error:
                pause_s = tries.pause_s(error)
            time.sleep(pause_s)

    def stream(self, questions: Iterable[Question], window: int = WINDOW) -> Iterator[Streamed]:
        """As `AsyncClient.stream`. Over a local socket, losing the connection ends it: the ClientError is raised."""
        if self._far is None:
            local = self._open()
            yield from stream_with_tries(lambda ahead: local.stream(ahead, window), questions, self._settings.tries)
            return
        answers = self._far.stream(questions, window)
        try:
            while (answer := self._runner.run(_next(answers))) is not None:
                yield answer
        finally:
            self._runner.run(_closed(answers))

    def submit(self, question: Question) -> Future[InferResult]:
        """Ask and go on: a future of the answer, which raises the ClientError that fits. To cancel it takes it back.

        Do not write to the question's arrays before it is done.
        """
        with self._starting:
            if self._background is None:
                self._background = Background(self._made)
        return self._background.submit(question)

    def call(self, question: Question, then: Callable[[InferResult | ClientError], None]) -> Future[InferResult]:
        """Ask and go on; `then` is called with how it ended, once, in a thread of the client's, and must not block."""
        return call_with(self.submit(question), then)

    def close(self) -> None:
        """Close every connection; questions that were submitted and are under way are cancelled."""
        if self._background is not None:
            self._background.close()
            self._background = None
        if self._far is not None:
            self._runner.run(self._far.aclose())
            self._runner.close()
        if self._local is not None:
            self._local.close()
        if self._inputs is not None:
            self._inputs.close()

    async def _made(self) -> AsyncClient:
        settings = self._settings
        return AsyncClient(
            self._url,
            tries=settings.tries,
            connections_max=settings.connections_max,
            memory_bytes=settings.memory_bytes,
            answer_s_max=settings.answer_s_max,
            token=settings.token,
            ca_file=settings.ca_file,
        )

    def _open(self) -> LocalClient:
        if self._local is None or not self._local.is_open:
            assert isinstance(self._address, LocalAddress), "the other kinds have no local client"
            answer_s_max = self._settings.answer_s_max
            self._local = LocalClient(self._address.path, inputs=self._inputs, answer_s_max=answer_s_max)
        return self._local


def _grpc_client(address: GrpcAddress, answer_s_max: float, token: str, ca_file: str) -> GrpcClient:
    """The client in a file of its own, which needs an extra. Raises AddressError where that is not installed."""
    if find_spec("grpc") is None:
        raise AddressError("gRPC needs a library that is not installed: pip install 'slotwise[grpc]'; or ask over HTTP")
    from slotwise.client.grpc import GrpcClient

    return GrpcClient(
        address.host,
        address.port,
        answer_s_max=answer_s_max,
        token=token,
        is_tls=address.is_tls,
        ca_file=ca_file,
    )


def _outcome_of(task: asyncio.Task[InferResult]) -> InferResult | ClientError:
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, ClientError):
        return error
    raise error


async def _next(answers: AsyncIterator[Streamed]) -> Streamed | None:
    return await anext(answers, None)


async def _closed(answers: AsyncIterator[Streamed]) -> None:
    await answers.aclose()  # type: ignore[attr-defined]  # it is a generator
