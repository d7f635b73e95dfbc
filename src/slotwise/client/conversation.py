"""What a client and a server say to each other over the local channel: frames, and what they mean. No socket.

Both the blocking and the asyncio client drive it: what `hello`, `ask`, `cancel` and `release_due` return is to be sent,
and what has come goes to `take`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from slotwise.client.errors import BadRequest, ClientError, ConnectionLost, ServerFault
from slotwise.client.question import Question
from slotwise.client.sharing import Inputs, Outputs
from slotwise.client.wire import Array, InferResult, Timing, error_for
from slotwise.edges.local import frames
from slotwise.facts.value import value

RELEASED_MAX = 256
"""Regions given back in one frame."""
RELEASED_DUE = 64
"""Regions that are given back in a frame of their own when there is no question for them to go along with."""


@value
class Ended:
    """A question that has its one reply."""

    serial: int
    outcome: InferResult | ClientError


class _Asked:
    """What must be kept of a question until its reply: the arrays, since they lie in shared memory, and room taken."""

    __slots__ = ("arrays", "regions")

    def __init__(self, arrays: tuple[Array, ...], regions: list[int]) -> None:
        self.arrays = arrays
        self.regions = regions


class Conversation:
    """One connection's worth of questions and answers."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.requests_max = 0
        """As the server has said; 0 until it has."""
        self.frame_bytes_max = 4096
        self.farewell: ClientError | None = None
        """Why the server ends the connection, once it has said so."""
        self._outputs: Outputs | None = None
        self._asked: dict[int, _Asked] = {}
        self._serial = 0

    @property
    def under_way(self) -> int:
        """Questions without a reply."""
        return len(self._asked)

    def hello(self) -> bytes:
        """The first frame; the descriptor of `inputs` goes with it."""
        return frames.encode(frames.Hello())

    def welcome(self, data: bytes, descriptors: Sequence[int]) -> None:
        """The server's answer to it, with a descriptor. Raises the ClientError that fits."""
        try:
            frame = _decode(data)
            if type(frame) is frames.Refusal:
                raise _error_of(frame)
            if type(frame) is not frames.Welcome or len(descriptors) != 1:
                raise ServerFault("the server does not welcome as the local channel does")
        except ClientError:
            for fd in descriptors:
                os.close(fd)
            raise
        self._outputs = Outputs(descriptors[0], frame.outputs_bytes)
        self.requests_max, self.frame_bytes_max = frame.requests_max, frame.frame_bytes_max

    def ask(self, question: Question) -> tuple[int, bytes]:
        """The question's serial and its frame. Raises BadRequest or NoRoom, and then nothing has been asked."""
        assert self._outputs is not None, "ask after the welcome"
        tensors, regions = [], []
        try:
            for name, array in question.inputs.items():
                tensor, region = self.inputs.place(name, array)
                tensors.append(tensor)
                if region is not None:
                    regions.append(region)
            self._serial += 1
            data = self._frame(question, tuple(tensors))
        except ClientError:
            for region in regions:
                self.inputs.release(region)
            raise
        self._asked[self._serial] = _Asked(tuple(question.inputs.values()), regions)
        return self._serial, data

    def cancel(self, serial: int) -> bytes | None:
        """The frame that takes a question back; None where its reply has come. There is a reply in any case."""
        return frames.encode(frames.Cancel(serial)) if serial in self._asked else None

    def release_due(self) -> bytes | None:
        """A frame that gives back room for outputs, when it is worth one."""
        outputs = self._outputs
        if outputs is None or outputs.forgotten < RELEASED_DUE:
            return None
        return frames.encode(frames.Release(outputs.take_forgotten(RELEASED_MAX)))

    def take(self, data: bytes) -> Ended | None:
        """What a frame of the server's means; None where it ends no question. Raises ServerFault."""
        frame = _decode(data)
        if type(frame) is frames.Answer:
            self._forget(frame.serial)
            assert self._outputs is not None, "answers come after the welcome"
            outputs = self._outputs.arrays(frame)
            timing = None if frame.timing is None else Timing(**msgspec.structs.asdict(frame.timing))
            result = InferResult(model=frame.model, version=frame.version, outputs=dict(outputs), timing=timing)
            return Ended(serial=frame.serial, outcome=result)
        if type(frame) is frames.Refusal:
            if frame.serial is None:
                self.farewell = _error_of(frame)
                return None
            self._forget(frame.serial)
            return Ended(serial=frame.serial, outcome=_error_of(frame))
        raise ServerFault("the server welcomes a second time")

    def lost(self) -> ClientError:
        """What to raise when the connection has ended."""
        return self.farewell or ConnectionLost("the server has closed the connection")

    def end(self) -> None:
        """There will be no more replies: give back the room of all questions under way."""
        for serial in list(self._asked):
            self._forget(serial)

    def _frame(self, question: Question, tensors: tuple[frames.Tensor, ...]) -> bytes:
        model, _, version = question.model.partition("/")
        assert self._outputs is not None, "ask after the welcome"
        released = self._outputs.take_forgotten(RELEASED_MAX)
        data = frames.encode(
            frames.Ask(
                self._serial,
                model,
                version,
                tensors,
                tuple(question.outputs),
                question.timeout_us or 0,
                question.priority or 0,
                question.has_timing,
                released=released,
            )
        )
        if len(data) > self.frame_bytes_max:
            self._outputs.put_back(released)
            raise BadRequest(f"the request takes a frame of {len(data)} bytes; the server reads {self.frame_bytes_max}")
        return data

    def _forget(self, serial: int) -> None:
        asked = self._asked.pop(serial, None)
        if asked is None:
            raise ServerFault(f"the server replies to question {serial}, which is not under way")
        for region in asked.regions:
            self.inputs.release(region)


def _decode(data: bytes) -> frames.ServerFrame:
    try:
        return frames.decode_server(data)
    except frames.FrameError as error:
        raise ServerFault(f"the server does not speak the local channel: {error}") from error


def _error_of(refusal: frames.Refusal) -> ClientError:
    if refusal.status == HTTPStatus.FORBIDDEN:
        return BadRequest(refusal.error, status=refusal.status, reason=refusal.reason)
    return error_for(refusal.status, refusal.error, refusal.reason, refusal.retry_after_ms)
