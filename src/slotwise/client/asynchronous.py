"""The client of `client/local.py` within an asyncio event loop: many questions at once on one connection."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from numpy.typing import DTypeLike

from slotwise.client.conversation import Conversation
from slotwise.client.errors import ClientError, NoAnswer, ServerFault
from slotwise.client.local import ANSWER_S_MAX, connect, greet, receive
from slotwise.client.question import Asker, Question
from slotwise.client.sharing import Inputs
from slotwise.client.wire import Array, InferResult

FRAMES_PER_TURN = 64
Then = Callable[[InferResult | ClientError], None]


class AsyncLocalClient(Asker[Coroutine[Any, Any, InferResult]]):
    """Asks one server through its local socket. Use it as `async with AsyncLocalClient(path) as client`."""

    def __init__(self, path: str, *, inputs: Inputs | None = None, answer_s_max: float = ANSWER_S_MAX) -> None:
        """`inputs` is memory that outlasts the connection; without it the client makes some, and closes it at last."""
        self.is_open = False
        """Whether it can be asked; a connection that has been lost stays so."""
        self._path = path
        self._answer_s_max = answer_s_max
        self._owns_inputs = inputs is None
        self._conversation = Conversation(Inputs() if inputs is None else inputs)
        self._waiting: dict[int, Then] = {}
        self._unsent: deque[bytes] = deque()
        self._loop: asyncio.AbstractEventLoop
        self._socket: socket.socket
        self._permits: asyncio.Semaphore

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def open(self) -> None:
        """Connect. Raises Unreachable where nobody listens, and what the server says if it does not take us."""
        made = await asyncio.to_thread(self._dial)
        self._loop, self._socket, self.is_open = asyncio.get_running_loop(), made, True
        self._permits = asyncio.Semaphore(self._conversation.requests_max)
        self._loop.add_reader(made, self._read)

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike) -> Array:
        """A fresh array in shared memory, to be filled and sent without a copy. Raises NoRoom.

        Do not write to it between `ask` and its answer. It can be sent again; its memory is free once forgotten.
        """
        return self._conversation.inputs.empty(shape, dtype)

    async def ask(self, question: Question) -> InferResult:
        """The answer to a question; waits where the server takes no more at once. Raises the ClientError that fits.

        Whoever is cancelled meanwhile takes the question back.
        """
        async with self._permits:
            answered: asyncio.Future[InferResult | ClientError] = self._loop.create_future()
            serial = self.start(question, lambda outcome: None if answered.done() else answered.set_result(outcome))
            try:
                async with asyncio.timeout(self._answer_s_max):
                    outcome = await answered
            except TimeoutError as error:
                self.take_back(serial)
                raise NoAnswer(f"the server at {self._path} gave no reply within {self._answer_s_max:g} s") from error
            except asyncio.CancelledError:
                self.take_back(serial)
                raise
        if isinstance(outcome, ClientError):
            raise outcome
        return outcome

    @property
    def requests_max(self) -> int:
        """How many questions the server takes at once."""
        return self._conversation.requests_max

    def start(self, question: Question, then: Then) -> int:
        """Ask and go on: `then` is called later with how it ended. The serial is for `take_back`.

        Raises BadRequest, NoRoom or what ended the connection, and then nothing has been asked.
        """
        if not self.is_open:
            raise self._conversation.lost()
        serial, data = self._conversation.ask(question)
        self._waiting[serial] = then
        self._send(data)
        return serial

    def take_back(self, serial: int) -> None:
        """Take a question back. Its reply, which comes in any case, is nobody's."""
        self._waiting.pop(serial, None)
        data = self._conversation.cancel(serial)
        if data is not None:
            self._send(data)

    def close(self) -> None:
        """Leave. Questions under way raise ConnectionLost; arrays that are still held stay as they are."""
        if self.is_open:
            self._lose(self._conversation.lost())
        if self._owns_inputs:
            self._conversation.inputs.close()

    def _dial(self) -> socket.socket:
        made = connect(self._path)
        try:
            greet(made, self._conversation, self._answer_s_max)
        except BaseException:
            made.close()
            raise
        made.setblocking(False)  # noqa: FBT003  # the method has no keyword
        return made

    def _read(self) -> None:
        try:
            for _ in range(FRAMES_PER_TURN):
                data = receive(self._socket, self._conversation.frame_bytes_max)
                if not data:
                    self._lose(self._conversation.lost())
                    return
                self._take(data)
        except BlockingIOError:
            pass
        except ServerFault as fault:
            self._lose(fault)
            return
        due = self._conversation.release_due()
        if due is not None:
            self._send(due)

    def _take(self, data: bytes) -> None:
        ended = self._conversation.take(data)
        if ended is None:
            return
        then = self._waiting.pop(ended.serial, None)
        if then is not None:
            then(ended.outcome)

    def _send(self, data: bytes) -> None:
        if not self.is_open:
            return
        if self._unsent or not self._put(data):
            if not self._unsent:
                self._loop.add_writer(self._socket, self._write)
            self._unsent.append(data)

    def _put(self, data: bytes) -> bool:
        try:
            self._socket.send(data)
        except BlockingIOError:
            return False
        except OSError:
            pass  # the server has gone, which is read with what it said last
        return True

    def _write(self) -> None:
        while self._unsent:
            if not self._put(self._unsent[0]):
                return
            self._unsent.popleft()
        self._loop.remove_writer(self._socket)

    def _lose(self, error: ClientError) -> None:
        self.is_open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._conversation.end()
        waiting, self._waiting = self._waiting, {}
        for then in waiting.values():
            then(error)
