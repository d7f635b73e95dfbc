"""All messages between a front and a node, and their encoding.

A message is a version byte and then MessagePack, as those to executors are, with which it shares what is said of
batches and loads. Tensors lie in the body of the frame that brings the message: their offsets count from its start.
Instants are on the node's clock. A `life` tells an executor's processes apart: what is meant for one that has
died never reaches its successor.

    node -> front    Challenge Welcome Refused Up Lost Told Pong Received Want Inspected InspectFailed
    front -> node    Hello Run Stop LoadModel UnloadModel Replace Ping Probe Chunk NoChunk Inspect
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from slotwise.edges.fleets.messages import (
    LoadCommand,
    LoadDone,
    LoadFailure,
    Message,
    MessageError,
    RunCommand,
    RunDone,
    RunFailed,
    UnloadCommand,
    UnloadDone,
)
from slotwise.engine.ports import Inspection

VERSION = 1
_PREFIX = bytes([VERSION])

NodeResult = RunDone | RunFailed | LoadDone | LoadFailure | UnloadDone


class WeightsFile(msgspec.Struct, array_like=True, frozen=True):
    """One file of a model, by its SHA-256."""

    name: str
    nbytes: int
    sha256: str


class Weights(msgspec.Struct, array_like=True, frozen=True):
    """A model as files in one folder: the file to load, and those beside it. `digest` stands for all of them."""

    digest: str
    main: str
    files: tuple[WeightsFile, ...]


class Challenge(Message, tag=1):
    """The node begins: who comes must prove that it knows the secret."""

    nonce: bytes


class Hello(Message, tag=2):
    """The front's proof, and what the node is to prove its own knowledge with."""

    nonce: bytes
    proof: bytes


class Welcome(Message, tag=3):
    """The node's proof, and how much of inputs it can hold at once."""

    proof: bytes
    arena_bytes: int


class Refused(Message, tag=4):
    """The node does not take this front, and why."""

    text: str


class Up(Message, tag=5):
    """An executor is ready, and holds nothing."""

    executor: str
    life: int
    memory_bytes: int
    page_bytes: int


class Lost(Message, tag=6):
    """An executor is gone."""

    executor: str
    life: int
    message: str


class Told(Message, tag=7):
    """What an executor reports. Outputs lie in the body."""

    executor: str
    life: int
    result: NodeResult


class Run(Message, tag=8):
    """Run a batch. Inputs lie in the body."""

    executor: str
    life: int
    command: RunCommand


class Stop(Message, tag=9):
    """Stop a batch."""

    executor: str
    life: int
    batch_id: int


class LoadModel(Message, tag=10):
    """Make a model ready. `emulation` is the file of its emulation, for executors that only wait profiles out."""

    executor: str
    life: int
    command: LoadCommand
    weights: Weights
    emulation: bytes


class UnloadModel(Message, tag=11):
    """Give a load's memory back."""

    executor: str
    life: int
    command: UnloadCommand


class Replace(Message, tag=12):
    """End an executor, and start another."""

    executor: str
    life: int
    message: str


class Ping(Message, tag=13):
    """What time is it? `sent_ns` is on the front's clock, as it is in the Pong."""

    sent_ns: int


class Pong(Message, tag=14):
    """The time, as the Ping came and as this went, and how many bytes have come from the front in all."""

    sent_ns: int
    received_ns: int
    returned_ns: int
    received_bytes: int


class Probe(Message, tag=15):
    """A body for nothing but the time that it takes."""


class Received(Message, tag=16):
    """A frame with a large body has come in full: how many bytes have come in all, and when."""

    received_bytes: int
    at_ns: int


class Want(Message, tag=17):
    """Send a piece of a file."""

    sha256: str
    offset: int
    nbytes: int


class Chunk(Message, tag=18):
    """The piece is the body."""

    sha256: str
    offset: int


class NoChunk(Message, tag=19):
    """The file cannot be sent, and why."""

    sha256: str
    text: str


class Inspect(Message, tag=20):
    """Load and measure a model apart from the executors."""

    ticket: int
    weights: Weights
    batch_max: int
    shapes: dict[str, tuple[int, ...]]


class Inspected(Message, tag=21):
    """What was found."""

    ticket: int
    inspection: Inspection


class InspectFailed(Message, tag=22):
    """Why the model cannot be served, in words for its owner."""

    ticket: int
    text: str


FromNode = Challenge | Welcome | Refused | Up | Lost | Told | Pong | Received | Want | Inspected | InspectFailed
FromFront = Hello | Run | Stop | LoadModel | UnloadModel | Replace | Ping | Probe | Chunk | NoChunk | Inspect

_encode = msgspec.msgpack.Encoder().encode
_decode_from_node: Callable[[bytes | memoryview], FromNode] = msgspec.msgpack.Decoder(FromNode).decode
_decode_from_front: Callable[[bytes | memoryview], FromFront] = msgspec.msgpack.Decoder(FromFront).decode


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return _PREFIX + _encode(message)


def decode_from_node(head: memoryview) -> FromNode:
    """Read what a node says. Raises MessageError."""
    try:
        return _decode_from_node(_checked(head))
    except msgspec.DecodeError as error:
        raise MessageError(f"not a message of a node: {error}") from error


def decode_from_front(head: memoryview) -> FromFront:
    """Read what a front says. Raises MessageError."""
    try:
        return _decode_from_front(_checked(head))
    except msgspec.DecodeError as error:
        raise MessageError(f"not a message of a front: {error}") from error


def _checked(head: memoryview) -> memoryview:
    version = head[0] if head else 0
    if version != VERSION:
        raise MessageError(f"the other end speaks version {version} of the protocol, this one {VERSION}")
    return head[1:]
