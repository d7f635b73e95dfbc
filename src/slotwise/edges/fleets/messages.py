"""All messages between the front, the zygote, the executors and the inspectors, and their encoding.

A message is one version byte and then MessagePack, fields in order and without names. Both ends are of one
installation, so another version is a bug, and is refused. Texts are cut to `TEXT_LENGTH_MAX`.

    front -> zygote      ForkExecutor ForkInspector
    zygote -> front      ZygoteReady Forked Exited
    front -> executor    RunCommand (commands ring)   LoadCommand UnloadCommand StopCommand ForgetCommand (control ring)
    executor -> front    Ready RunDone RunFailed LoadDone LoadFailure UnloadDone (results ring)
    inspector -> front   Inspected InspectFailure
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from slotwise.engine.ports import Inspection
from slotwise.facts.types import Failure

VERSION = 1
TEXT_LENGTH_MAX = 2000
_PREFIX = bytes([VERSION])

M = TypeVar("M")


class Message(msgspec.Struct, array_like=True, gc=False, kw_only=True):
    """What all messages have in common: how they are encoded."""


class Tensor(msgspec.Struct, array_like=True, gc=False):
    """A tensor, an input in the segment named, 0 being the arena; an output in the executor's own."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    segment: int = 0


class Memory(msgspec.Struct, array_like=True, gc=False):
    """Memory of a client, which inputs may lie in, and where an executor opens it."""

    segment: int
    path: str
    nbytes: int


class Question(msgspec.Struct, array_like=True, gc=False):
    """One request's part of a batch."""

    rows: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]


class RunCommand(Message, tag=1):
    """Run a batch. The n-th of these that an executor reads has serial n.

    `memories` are those that it or a later batch reads from and that the executor has not been told of.
    """

    batch_id: int
    model: str
    earliest_ns: int
    latest_ns: int
    questions: tuple[Question, ...]
    memories: tuple[Memory, ...] = ()


class StopCommand(Message, tag=2):
    """Stop the batch of this serial if it has not ended."""

    serial: int


class LoadCommand(Message, tag=3):
    """Make a model ready. `batchable` says whether its first dimension is the batch.

    Where there is a `pack` it is loaded, and the file at `path` if the pack has been spoilt meanwhile.
    """

    model: str
    load_id: int
    path: str
    pack: str
    memory_bytes: int
    batchable: bool
    earliest_ns: int
    latest_ns: int


class UnloadCommand(Message, tag=4):
    """Give a load's memory back."""

    model: str
    load_id: int


class ForgetCommand(Message, tag=5):
    """No further batch reads from this memory of a client."""

    segment: int


class Ready(Message, tag=16):
    """The executor is bound to its slice and waits for commands."""


class RunDone(Message, tag=17):
    """A batch has ended well. `outputs_end` is what to publish as released once they have been read."""

    batch_id: int
    started_ns: int
    ended_ns: int
    cpu_ns: int
    outputs_end: int
    answers: tuple[tuple[Tensor, ...], ...]


class RunFailed(Message, tag=18):
    """A batch did not run to a valid end."""

    batch_id: int
    failure: Failure
    message: str
    started_ns: int
    ended_ns: int


class LoadDone(Message, tag=19):
    """A model is ready."""

    model: str
    load_id: int
    started_ns: int
    ended_ns: int


class LoadFailure(Message, tag=20):
    """A model is not ready, and nothing of it stays."""

    model: str
    load_id: int
    failure: Failure
    message: str


class UnloadDone(Message, tag=21):
    """A model's memory is free."""

    model: str
    load_id: int


class ExecutorSettings(msgspec.Struct, array_like=True, frozen=True):
    """What an executor is told at its birth."""

    name: str
    cores: tuple[int, ...]
    threads: int
    nice: int
    memory_bytes: int
    page_bytes: int
    ring_bytes: int
    arena_bytes: int
    outputs_bytes: int
    outputs_wait_ns: int
    bind_bytes_min: int
    clock_offset_ns: int


class InspectorSettings(msgspec.Struct, array_like=True, frozen=True):
    """What an inspector is told at its birth. `shapes` gives inputs whose shape varies an example's shape."""

    path: str
    batch_max: int
    cores: tuple[int, ...]
    threads: int
    nice: int
    budget_ns: int
    memory_bytes: int
    shapes: dict[str, tuple[int, ...]]
    pack_into: str


class ForkExecutor(Message, tag=32):
    """Fork an executor. Descriptors: channel, outputs, arena, then the events of commands, control, results."""

    ticket: int
    settings: ExecutorSettings


class ForkInspector(Message, tag=33):
    """Fork an inspector. Descriptor: the socket to answer on."""

    ticket: int
    settings: InspectorSettings


class ZygoteReady(Message, tag=34):
    """The zygote has everything imported."""


class Forked(Message, tag=35):
    """A process was made. Descriptor: its pidfd."""

    ticket: int
    pid: int


class Exited(Message, tag=36):
    """A process has ended; `how` says how, in words."""

    ticket: int
    how: str


class Inspected(Message, tag=48):
    """What an inspector found."""

    inspection: Inspection


class InspectFailure(Message, tag=49):
    """Why a model cannot be served, in words for its owner."""

    text: str


ControlCommand = StopCommand | LoadCommand | UnloadCommand | ForgetCommand
Result = Ready | RunDone | RunFailed | LoadDone | LoadFailure | UnloadDone
ZygoteCommand = ForkExecutor | ForkInspector
ZygoteReport = ZygoteReady | Forked | Exited
InspectorReport = Inspected | InspectFailure


class MessageError(ValueError):
    """Bytes that are no message of this version."""


_encode = msgspec.msgpack.Encoder().encode
_decode_run = msgspec.msgpack.Decoder(RunCommand).decode
_decode_control: Callable[[bytes], ControlCommand] = msgspec.msgpack.Decoder(ControlCommand).decode
_decode_result: Callable[[bytes], Result] = msgspec.msgpack.Decoder(Result).decode
_decode_zygote_command: Callable[[bytes], ZygoteCommand] = msgspec.msgpack.Decoder(ZygoteCommand).decode
_decode_zygote_report: Callable[[bytes], ZygoteReport] = msgspec.msgpack.Decoder(ZygoteReport).decode
_decode_inspector_report: Callable[[bytes], InspectorReport] = msgspec.msgpack.Decoder(InspectorReport).decode


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return _PREFIX + _encode(message)


def decode_run(record: bytes) -> RunCommand:
    """Read a record of the commands ring."""
    return _decode(_decode_run, record)


def decode_control(record: bytes) -> ControlCommand:
    """Read a record of the control ring."""
    return _decode(_decode_control, record)


def decode_result(record: bytes) -> Result:
    """Read a record of the results ring."""
    return _decode(_decode_result, record)


def decode_zygote_command(record: bytes) -> ZygoteCommand:
    """Read what the front asks of the zygote."""
    return _decode(_decode_zygote_command, record)


def decode_zygote_report(record: bytes) -> ZygoteReport:
    """Read what the zygote reports."""
    return _decode(_decode_zygote_report, record)


def decode_inspector_report(record: bytes) -> InspectorReport:
    """Read what an inspector found."""
    return _decode(_decode_inspector_report, record)


def _decode(decode: Callable[[bytes], M], record: bytes) -> M:
    if record[:1] != _PREFIX:
        raise MessageError(f"a message of version {record[:1].hex() or 'none'}; this end speaks {VERSION}")
    try:
        return decode(record[1:])
    except msgspec.DecodeError as error:
        raise MessageError(f"not a message: {error}") from error
