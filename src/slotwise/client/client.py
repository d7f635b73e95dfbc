"""One client for every way to a server: `http://host:port`, or `unix:///path` of its local socket.

It adds what every caller would write again: connections are made when they are needed, also after a server has been
started anew, and a question is asked once more where that is safe (`Tries`). `Client` blocks and is for one thread at a
time; `AsyncClient` awaits and has many questions under way. Over gRPC, a standard client does all that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from slotwise.client.address import LocalAddress, Tries, address_of
from slotwise.client.asynchronous import AsyncLocalClient
from slotwise.client.errors import ClientError, Refused, Unreachable
from slotwise.client.http import CONNECTIONS_MAX, HttpClient
from slotwise.client.local import ANSWER_S_MAX, LocalClient
from slotwise.client.question import WINDOW, Asker, Question, Streamed
from slotwise.client.sharing import MEMORY_BYTES, Inputs
from slotwise.client.wire import Array, InferResult

TRIES = 3


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
    ) -> None:
        """Nothing is sent yet. Raises AddressError.

        `connections_max` is for HTTP, `memory_bytes` for a local socket.
        """
        self._tries = tries
        self._answer_s_max = answer_s_max
        self._address = address = address_of(url)
        self._opening = asyncio.Lock()
        self._inputs: Inputs | None = None
        self._local: AsyncLocalClient | None = None
        self._http: HttpClient | None = None
        if isinstance(address, LocalAddress):
            self._inputs = Inputs(memory_bytes)
        else:
            self._http = HttpClient(address.host, address.port, connections_max, answer_s_max=answer_s_max)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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

    def close(self) -> None:
        """Close every connection; questions under way raise ConnectionLost."""
        if self._http is not None:
            self._http.close()
        if self._local is not None:
            self._local.close()
        if self._inputs is not None:
            self._inputs.close()

    async def _ask(self, question: Question) -> InferResult:
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
                assert isinstance(self._address, LocalAddress), "the other kind is asked over HTTP"
                fresh = AsyncLocalClient(self._address.path, inputs=self._inputs, answer_s_max=self._answer_s_max)
                await fresh.open()
                self._local = fresh
            return self._local


class Client(Asker[InferResult]):
    """Asks one server, one question after the other or as a stream. Use it as `with Client(url) as client`."""

    def __init__(
        self,
        url: str,
        *,
        tries: int = TRIES,
        memory_bytes: int = MEMORY_BYTES,
        answer_s_max: float = ANSWER_S_MAX,
    ) -> None:
        """Nothing is sent yet. `memory_bytes` is for a local socket. Raises AddressError."""
        self._tries = tries
        self._answer_s_max = answer_s_max
        self._address = address_of(url)
        self._inputs: Inputs | None = None
        self._local: LocalClient | None = None
        self._far: AsyncClient | None = None
        """What asks over HTTP, in a loop of its own."""
        self._runner: asyncio.Runner
        if isinstance(self._address, LocalAddress):
            self._inputs = Inputs(memory_bytes)
        else:
            self._runner = asyncio.Runner()
            self._far = self._runner.run(_made(url, tries, answer_s_max))

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
        tries = Tries(question, self._tries)
        while True:
            try:
                return self._open().ask(tries.question())
            except (Unreachable, Refused) as error:
                pause_s = tries.pause_s(error)
            time.sleep(pause_s)

    def stream(self, questions: Iterable[Question], window: int = WINDOW) -> Iterator[Streamed]:
        """As `AsyncClient.stream`; over a local socket no question is asked twice."""
        if self._far is None:
            yield from self._open().stream(questions, window)
            return
        answers = self._far.stream(questions, window)
        try:
            while (answer := self._runner.run(_next(answers))) is not None:
                yield answer
        finally:
            self._runner.run(_closed(answers))

    def close(self) -> None:
        """Close every connection."""
        if self._far is not None:
            self._far.close()
            self._runner.close()
        if self._local is not None:
            self._local.close()
        if self._inputs is not None:
            self._inputs.close()

    def _open(self) -> LocalClient:
        if self._local is None or not self._local.is_open:
            assert isinstance(self._address, LocalAddress), "the other kind is asked over HTTP"
            self._local = LocalClient(self._address.path, inputs=self._inputs, answer_s_max=self._answer_s_max)
        return self._local


def _outcome_of(task: asyncio.Task[InferResult]) -> InferResult | ClientError:
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, ClientError):
        return error
    raise error


async def _made(url: str, tries: int, answer_s_max: float) -> AsyncClient:
    return AsyncClient(url, tries=tries, answer_s_max=answer_s_max)


async def _next(answers: AsyncIterator[Streamed]) -> Streamed | None:
    return await anext(answers, None)


async def _closed(answers: AsyncIterator[Streamed]) -> None:
    await answers.aclose()  # type: ignore[attr-defined]  # it is a generator
