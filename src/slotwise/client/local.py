"""A client for a server on the same machine: tensors in shared memory, frames over a Unix socket, blocking calls.

One thread at a time; who has several makes a client for each. `empty` gives arrays that lie in shared memory already:
what is written there is not copied on its way to the server. Outputs come back as read-only arrays in shared memory.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from numpy.typing import DTypeLike

from slotwise.client.conversation import Conversation
from slotwise.client.errors import ClientError, NoAnswer, Unreachable
from slotwise.client.question import WINDOW, Asker, Question, Streamed
from slotwise.client.sharing import Inputs
from slotwise.client.wire import Array, InferResult

ANSWER_S_MAX = 60.0
_DESCRIPTORS_MAX = 4


class LocalClient(Asker[InferResult]):
    """Asks one server through its local socket. Use it as `with LocalClient(path) as client`."""

    def __init__(self, path: str, *, inputs: Inputs | None = None, answer_s_max: float = ANSWER_S_MAX) -> None:
        """Connect. Raises Unreachable where nobody listens, and what the server says if it does not take us.

        `inputs` is memory that outlasts this connection; without it the client makes some and closes it in the end.
        """
        self.is_open = True
        """Whether it can be asked; a connection that has been lost stays so."""
        self._path = path
        self._answer_s_max = answer_s_max
        self._ended: dict[int, InferResult | ClientError] = {}
        self._given_up: set[int] = set()
        self._socket = connect(path)
        self._owns_inputs = inputs is None
        self._conversation = Conversation(Inputs() if inputs is None else inputs)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN | select.POLLOUT)
        try:
            greet(self._socket, self._conversation, answer_s_max)
        except BaseException:
            self.close()
            raise
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(answer_s_max))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike) -> Array:
        """A fresh array in shared memory, to be filled and sent without a copy. Raises NoRoom.

        Do not write to it between `infer` and its answer. It can be sent again; its memory is free once forgotten.
        """
        return self._conversation.inputs.empty(shape, dtype)

    def ask(self, question: Question) -> InferResult:
        """The answer to a question. Raises the ClientError that fits."""
        if not self.is_open:
            raise self._conversation.lost()
        end_s = time.monotonic() + self._answer_s_max
        serial, data = self._conversation.ask(question)
        self._send(data, end_s)
        try:
            while serial not in self._ended:
                self._receive(end_s)
        except NoAnswer:
            self._give_up(serial)
            raise
        outcome = self._ended.pop(serial)
        if isinstance(outcome, ClientError):
            raise outcome
        return outcome

    def stream(self, questions: Iterable[Question], window: int = WINDOW) -> Generator[Streamed]:
        """Ask one question after the other, `window` at once, and hand out the answers as they come.

        A new question is taken when there is room for it. What is not asked for in the end is cancelled. Each is asked
        once, as by `ask`: to try again is for `Client`, which knows when that is safe.
        """
        ahead = enumerate(questions)
        indices: dict[int, int] = {}
        window = max(1, min(window, self._conversation.requests_max))
        has_more = True
        try:
            while True:
                end_s = time.monotonic() + self._answer_s_max
                while has_more and len(indices) < window:
                    index, question = next(ahead, (0, None))
                    if question is None:
                        has_more = False
                        break
                    serial, data = self._conversation.ask(question)
                    indices[serial] = index
                    self._send(data, end_s)
                if not indices:
                    return
                while not any(serial in self._ended for serial in indices):
                    self._receive(end_s)
                for serial in [serial for serial in indices if serial in self._ended]:
                    yield Streamed(index=indices.pop(serial), outcome=self._ended.pop(serial))
        finally:
            for serial in indices:
                self._give_up(serial)

    def close(self) -> None:
        """Leave. What is under way is cancelled; arrays that are still held stay as they are."""
        self._leave()
        if self._owns_inputs:
            self._conversation.inputs.close()

    def _leave(self) -> None:
        self.is_open = False
        self._socket.close()
        self._conversation.end()

    def _lost(self) -> ClientError:
        self._leave()
        return self._conversation.lost()

    def _give_up(self, serial: int) -> None:
        """Take a question back. Its reply, when it comes, is nobody's."""
        if self._ended.pop(serial, None) is not None or not self.is_open:
            return
        data = self._conversation.cancel(serial)
        if data is not None:
            self._given_up.add(serial)
            self._send(data, time.monotonic() + self._answer_s_max)

    def _send(self, data: bytes, end_s: float) -> None:
        while True:
            try:
                self._socket.send(data, socket.MSG_DONTWAIT)
                return
            except BlockingIOError as error:
                if not self._poll.poll(max(0.0, end_s - time.monotonic()) * 1000):
                    raise self._no_answer() from error
                self._receive_all()  # a server that waits for us to read does not read
            except OSError as error:
                self._receive_all()  # it may have said why
                raise self._lost() from error

    def _receive(self, end_s: float) -> None:
        """Wait for a frame and take it: one call of the system, which is what most questions need."""
        try:
            data = receive(self._socket, self._conversation.frame_bytes_max)
        except BlockingIOError as error:
            raise self._no_answer() from error
        self._take(data)
        if time.monotonic() > end_s:
            raise self._no_answer()

    def _receive_all(self) -> None:
        """Take what has come."""
        with suppress(BlockingIOError):
            while True:
                self._take(receive(self._socket, self._conversation.frame_bytes_max, socket.MSG_DONTWAIT))

    def _take(self, data: bytes) -> None:
        if not data:
            raise self._lost()
        ended = self._conversation.take(data)
        if ended is None:
            return
        if ended.serial in self._given_up:
            self._given_up.discard(ended.serial)
        else:
            self._ended[ended.serial] = ended.outcome
        due = self._conversation.release_due()
        if due is not None:
            self._send(due, time.monotonic() + self._answer_s_max)

    def _no_answer(self) -> NoAnswer:
        return NoAnswer(f"the server at {self._path} gave no reply within {self._answer_s_max:g} s")


def connect(path: str) -> socket.socket:
    """A connection to a server's local socket. Raises Unreachable."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        made.connect(path)
    except OSError as error:
        made.close()
        raise Unreachable(f"there is no server at {path}: {error.strerror or error}") from error
    return made


def receive(connection: socket.socket, nbytes_max: int, flags: int = 0) -> bytes:
    """The next frame, empty at the end. Raises BlockingIOError where there is none in time."""
    try:
        return connection.recv(nbytes_max, flags)
    except ConnectionResetError:
        pass  # told before what was sent before it, which may say why
    try:
        return connection.recv(nbytes_max, flags)
    except ConnectionResetError:
        return b""


def _timeval(seconds: float) -> bytes:
    """A span as the system takes it."""
    whole, microseconds = divmod(max(1, int(seconds * 1e6)), 1_000_000)
    return struct.pack("@ll", whole, microseconds)


def greet(connection: socket.socket, conversation: Conversation, answer_s_max: float) -> None:
    """Say hello on a blocking socket and take the welcome. Raises the ClientError that fits."""
    connection.settimeout(answer_s_max)
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # what the server said before it left is read below
            socket.send_fds(connection, [conversation.hello()], [conversation.inputs.fd])
        data, descriptors = _receive_welcome(connection, conversation.frame_bytes_max)
    except TimeoutError as error:
        raise NoAnswer(f"the server did not say hello within {answer_s_max:g} s") from error
    if not data:
        raise conversation.lost()
    conversation.welcome(data, descriptors)


def _receive_welcome(connection: socket.socket, nbytes_max: int) -> tuple[bytes, list[int]]:
    for _ in range(2):  # as in `receive`
        with suppress(ConnectionResetError):
            data, descriptors, _, _ = socket.recv_fds(connection, nbytes_max, _DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC)
            return data, descriptors
    return b"", []
