"""The way of inferences from the gRPC door to its server: the local channel, as for any client on the same machine.

One connection carries all of them. The data of a request's inputs is copied once, from its message into memory that
executors read; that of its outputs once, out of memory that the server has lent. What its client has shown of its
rights goes along in the frame, since it is the server that judges it. A request that nobody waits for any more is taken
back; its reply comes all the same, and what it holds is held until then.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque

import msgspec

from slotwise.edges.local import frames
from slotwise.edges.local.memory import MemoryFault, map_to_read
from slotwise.edges.oip.errors import ErrorBody
from slotwise.edges.oip.grpc.errors import CallError, bad, error_for, unavailable
from slotwise.edges.oip.grpc.messages import Question
from slotwise.edges.store.files import make_memory, map_memory
from slotwise.edges.store.layout import Layout

HELLO_S_MAX = 10.0
FRAMES_PER_TURN = 64
RELEASED_DUE = 64
RELEASED_BYTES_DUE = 1 << 20
"""Room for outputs is given back along with the next request, or by itself from so many regions or bytes on."""
_WELCOME_BYTES_MAX = 4096


class Shown(msgspec.Struct, frozen=True, gc=False):
    """What a client has shown with its call, for the server to judge; empty where it has shown nothing."""

    authorization: str = ""
    traceparent: str = ""
    peer: str = ""
    """Where it is, for the log of what is turned away."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An answer: its head, and the data behind it, which stays only until the next wait."""

    head: bytes
    data: memoryview


class _Asked:
    """A question under way: who waits for it, and where its inputs lie."""

    __slots__ = ("answered", "outputs", "region")

    def __init__(self, answered: asyncio.Future[frames.Relayed | CallError], region: int, outputs: memoryview) -> None:
        self.answered = answered
        self.region = region
        self.outputs = outputs
        """The memory that its connection has lent."""


class Channel:
    """Asks the server. Of `requests_max` questions under way, one more is refused at once."""

    def __init__(self, path: str, *, memory_bytes: int, requests_max: int, retry_after_ns: int) -> None:
        self._path = path
        self._requests_max = requests_max
        self._retry_after_ns = retry_after_ns
        self._loop = asyncio.get_running_loop()
        self._fd = make_memory("slotwise-grpc", memory_bytes)
        self._memory = map_memory(self._fd, memory_bytes, writable=True)
        self._layout = Layout(memory_bytes)
        self._opening = asyncio.Lock()
        self._socket: socket.socket | None = None
        self._outputs = memoryview(b"")
        self._frame_bytes_max = _WELCOME_BYTES_MAX
        self._asked: dict[int, _Asked] = {}
        self._serial = 0
        self._released: list[int] = []
        self._released_bytes = 0
        self._unsent: deque[bytes] = deque()

    async def infer(self, question: Question, shown: Shown) -> Answer:
        """The answer to a question. Raises CallError when there is none."""
        if len(self._asked) >= self._requests_max:
            words = f"{len(self._asked)} requests are under way at this door, the limit"
            raise unavailable(words, self._retry_after_ns, "queue_full")
        if self._socket is None:
            await self.open()
        serial, asked = self._ask(question, shown)
        try:
            outcome = await asked.answered
        except asyncio.CancelledError:
            if serial in self._asked:
                self._send(frames.encode(frames.Cancel(serial)))
            elif not asked.answered.cancelled():
                self._data_of(asked, asked.answered.result())  # it came just now, and nobody looks at it
            raise
        if isinstance(outcome, CallError):
            raise outcome
        return Answer(outcome.head, self._data_of(asked, outcome))

    async def open(self) -> None:
        """Connect, unless that has been done. Raises CallError where the server does not take us."""
        async with self._opening:
            if self._socket is not None:
                return
            try:
                made, outputs, limit = await asyncio.to_thread(self._dial)
            except (OSError, frames.FrameError, MemoryFault) as error:
                raise unavailable(f"the server cannot be reached: {error}", self._retry_after_ns) from error
            self._socket, self._outputs, self._frame_bytes_max = made, outputs, limit
            self._loop.add_reader(made, self._read)

    def close(self) -> None:
        """Leave. Questions under way end as those of a server that has gone."""
        self._lose()
        os.close(self._fd)

    def _dial(self) -> tuple[socket.socket, memoryview, int]:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.settimeout(HELLO_S_MAX)
        try:
            made.connect(self._path)
            socket.send_fds(made, [frames.encode(frames.Hello())], [self._fd])
            data, descriptors, _, _ = socket.recv_fds(made, _WELCOME_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC)
            welcome = frames.decode_server(data)
            if type(welcome) is not frames.Welcome or not descriptors:
                raise frames.FrameError(f"it does not welcome: {welcome!r}")
            try:
                outputs = map_to_read(descriptors[0], welcome.outputs_bytes)
            finally:
                os.close(descriptors[0])
            made.setblocking(False)  # noqa: FBT003  # the method has no keyword
        except BaseException:
            made.close()
            raise
        return made, outputs, welcome.frame_bytes_max

    def _ask(self, question: Question, shown: Shown) -> tuple[int, _Asked]:
        region = self._place(question.tensors)
        self._serial += 1
        relay = frames.Relay(
            self._serial,
            question.model,
            question.version,
            question.head,
            region,
            sum(map(len, question.tensors)),
            question.timeout_us,
            shown.authorization,
            shown.traceparent,
            shown.peer,
            self._take_released(),
        )
        data = frames.encode(relay)
        if len(data) > self._frame_bytes_max:
            self._layout.release(region)
            self._released.extend(relay.released)
            raise bad(f"the request's head has {len(question.head)} bytes, which is more than the server reads")
        self._asked[self._serial] = asked = _Asked(self._loop.create_future(), region, self._outputs)
        self._send(data)
        return self._serial, asked

    def _place(self, tensors: list[bytes]) -> int:
        """Copy data into the memory, as `frames.Relay` has it; the region that it holds."""
        align = frames.ALIGNMENT
        nbytes = sum([-(-len(tensor) // align) * align for tensor in tensors])
        region = self._layout.allocate(nbytes)
        if region is None:
            words = f"no room for {nbytes} bytes of inputs at this door"
            raise unavailable(words, self._retry_after_ns, "no_room")
        at = region
        for tensor in tensors:
            self._memory[at : at + len(tensor)] = tensor
            at += -(-len(tensor) // align) * align
        return region

    def _data_of(self, asked: _Asked, outcome: frames.Relayed | CallError) -> memoryview:
        """The data of an answer, whose room is given back after this turn of the loop."""
        if isinstance(outcome, CallError) or outcome.region is None:
            return memoryview(b"")
        if asked.outputs is self._outputs:
            self._release(outcome.region, outcome.nbytes)
        return asked.outputs[outcome.region : outcome.region + outcome.nbytes]

    def _release(self, region: int, nbytes: int) -> None:
        """Give room for outputs back; not at once, so what lies there can still be read in this turn of the loop."""
        self._released.append(region)
        self._released_bytes += nbytes
        if len(self._released) >= RELEASED_DUE or self._released_bytes >= RELEASED_BYTES_DUE:
            self._loop.call_soon(self._give_back)

    def _give_back(self) -> None:
        if self._released:
            self._send(frames.encode(frames.Release(self._take_released())))

    def _take_released(self) -> tuple[int, ...]:
        released, self._released, self._released_bytes = tuple(self._released), [], 0
        return released

    # The socket's side

    def _read(self) -> None:
        for _ in range(FRAMES_PER_TURN):
            assert self._socket is not None, "reading ends with the socket"
            try:
                data = self._socket.recv(self._frame_bytes_max)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lose()
                return
            try:
                self._take(frames.decode_server(data))
            except frames.FrameError:
                self._lose()
                return

    def _take(self, frame: frames.ServerFrame) -> None:
        if type(frame) is frames.Relayed:
            self._end(frame.serial, frame)
        elif type(frame) is frames.Refusal and frame.serial is not None:
            told = ErrorBody(frame.error, frame.reason or None, frame.predicted_ms, frame.retry_after_ms or None)
            self._end(frame.serial, error_for(frame.status, told))

    def _end(self, serial: int, outcome: frames.Relayed | CallError) -> None:
        asked = self._asked.pop(serial)
        self._layout.release(asked.region)
        if not asked.answered.done():
            asked.answered.set_result(outcome)
        elif type(outcome) is frames.Relayed and outcome.region is not None:
            self._release(outcome.region, outcome.nbytes)

    def _send(self, data: bytes) -> None:
        if self._socket is None:
            return
        if self._unsent or not self._put(data):
            if not self._unsent:
                self._loop.add_writer(self._socket, self._write)
            self._unsent.append(data)

    def _put(self, data: bytes) -> bool:
        assert self._socket is not None, "asked before"
        try:
            self._socket.send(data)
        except BlockingIOError:
            return False
        except OSError:
            pass  # the server has gone, which is read next
        return True

    def _write(self) -> None:
        while self._unsent:
            if not self._put(self._unsent[0]):
                return
            self._unsent.popleft()
        assert self._socket is not None, "writing ends with the socket"
        self._loop.remove_writer(self._socket)

    def _lose(self) -> None:
        """The connection is over: whoever waits is told, and the next question makes a new one."""
        if self._socket is None:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._socket = None
        self._unsent.clear()
        self._take_released()
        self._outputs = memoryview(b"")
        words = "the server has closed the connection without an answer"
        lost = unavailable(words, self._retry_after_ns, "connection_lost")
        for serial in list(self._asked):
            self._end(serial, lost)
