"""Every frame of the local channel, and its encoding. Pure: no socket, no memory.

A frame is one message of a SOCK_SEQPACKET socket: a version byte and then MessagePack, fields in order and without
names. What cannot be read is a `FrameError`, and whoever sent it is not listened to any more.

    client -> server   Hello (with the descriptor of its memory), then Ask, Relay, Release, Cancel
    server -> client   Welcome (with the descriptor of the memory for outputs), then Answer, Relayed, Refusal

A serial is the client's own name for a question; it is free again when the one reply to it has come. Offsets of
inputs are in the client's memory, those of outputs in the server's. Each answer holds one region of the latter, named
by its offset, until the client gives it back by `released`, in a Release or along with its next Ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec

VERSION = 1
ALIGNMENT = 64
"""Inputs begin at a multiple of this, and regions of outputs do."""
_PREFIX = bytes([VERSION])
_COUNT_MAX = (1 << 62) - 1

Count = Annotated[int, msgspec.Meta(ge=0, le=_COUNT_MAX)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
RELAYED_NAME_LENGTH_MAX = 1000
SHOWN_LENGTH_MAX = 4096
F = TypeVar("F")


class Frame(msgspec.Struct, array_like=True, gc=False):
    """What all frames have in common: how they are encoded."""


class Tensor(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Bytes of shared memory, and what they are."""

    name: Name
    datatype: Name
    shape: tuple[Count, ...]
    offset: Count
    nbytes: Count


class Hello(Frame, tag=1):
    """The first frame of a client. With it comes the descriptor of the memory that its inputs lie in."""


class Ask(Frame, tag=2):
    """A request. Without a version the newest is meant, and without outputs all are."""

    serial: Count
    model: Name
    version: Name
    inputs: tuple[Tensor, ...]
    outputs: tuple[Name, ...] = ()
    timeout_us: Count = 0
    priority: Count = 0
    has_timing: bool = False
    id: Name = ""
    released: tuple[Count, ...] = ()
    """Regions of outputs that are given back before the request is looked at."""


class Release(Frame, tag=3):
    """Regions of outputs that are given back."""

    released: tuple[Count, ...]


class Cancel(Frame, tag=4):
    """The answer is not wanted any more; a reply comes all the same. Nothing happens when it is on its way."""

    serial: Count


class Relay(Frame, tag=5):
    """A request that another has made, in the protocol's own form: a JSON head that says `binary_data_size` of inputs.

    Their data lies in the client's memory from `offset` on, one behind the other, each at a multiple of ALIGNMENT. What
    holds for the one who asked goes along, for it is the server that judges it. Only the gRPC door's own socket takes
    such frames.
    """

    serial: Count
    model: Annotated[str, msgspec.Meta(max_length=RELAYED_NAME_LENGTH_MAX)]
    version: Annotated[str, msgspec.Meta(max_length=RELAYED_NAME_LENGTH_MAX)]
    head: bytes
    offset: Count
    nbytes: Count
    """Of all data together, gaps not counted."""
    timeout_us: Count = 0
    """The deadline, where the head names none."""
    authorization: Annotated[str, msgspec.Meta(max_length=SHOWN_LENGTH_MAX)] = ""
    """What the one who asked has shown of its rights, as HTTP's header of that name."""
    traceparent: Annotated[str, msgspec.Meta(max_length=SHOWN_LENGTH_MAX)] = ""
    """Of which trace the request is a part, as HTTP's header of that name."""
    peer: Name = ""
    """Where the one who asked is, for the log of what is turned away."""
    released: tuple[Count, ...] = ()


Asked = Ask | Relay


class Welcome(Frame, tag=16):
    """The server takes the client. With it comes the descriptor of the memory for outputs, to be read only."""

    server: str
    requests_max: int
    """How many may be under way on this connection."""
    frame_bytes_max: int
    outputs_bytes: int


class Spent(msgspec.Struct, array_like=True, gc=False):
    """How a request's time was spent, in microseconds; only the outcome is told of one that did not ask."""

    outcome: str
    queue_us: int | None = None
    """From arrival until its batch was sent to an executor."""
    wait_us: int | None = None
    """From there until the batch started."""
    execution_us: int | None = None
    executor: str | None = None
    batch_rows: int | None = None
    attempts: int | None = None
    prediction_error_us: int | None = None
    request: int | None = None
    """Its number in the server's journals and logs."""


class Answer(Frame, tag=17):
    """The answer to a request; its outputs lie in the region at `region`, which there is not where they are empty."""

    serial: int
    model: str
    version: str
    outputs: tuple[Tensor, ...]
    region: int | None = None
    timing: Spent | None = None
    """Where it was asked for, or the answer is late."""
    id: str = ""


class Relayed(Frame, tag=19):
    """The answer to a Relay in the protocol's own form: a JSON head, and binary data of so many bytes at `region`.

    There is no region where there is no data.
    """

    serial: int
    head: bytes
    nbytes: int
    region: int | None = None


class Refusal(Frame, tag=18):
    """No answer, and why: what an error over HTTP says. Without a serial it is about the connection, which ends."""

    serial: int | None
    status: int
    error: str
    reason: str = ""
    predicted_ms: float | None = None
    retry_after_ms: int = 0
    request: int | None = None
    """The request's number in journals and logs, if it came so far."""


ClientFrame = Hello | Ask | Relay | Release | Cancel
ServerFrame = Welcome | Answer | Relayed | Refusal


class FrameError(ValueError):
    """Bytes that are no frame of this version."""


_encode = msgspec.msgpack.Encoder().encode
_decode_client: Callable[[memoryview], ClientFrame] = msgspec.msgpack.Decoder(ClientFrame).decode
_decode_server: Callable[[memoryview], ServerFrame] = msgspec.msgpack.Decoder(ServerFrame).decode


def encode(frame: Frame) -> bytes:
    """The bytes of a frame."""
    return _PREFIX + _encode(frame)


def decode_client(data: bytes) -> ClientFrame:
    """Read what a client has sent. Raises FrameError."""
    return _decode(_decode_client, data)


def decode_server(data: bytes) -> ServerFrame:
    """Read what a server has sent. Raises FrameError."""
    return _decode(_decode_server, data)


def _decode(decode: Callable[[memoryview], F], data: bytes) -> F:
    if data[:1] != _PREFIX:
        raise FrameError(f"a frame of version {data[0] if data else 'none'}; this end speaks version {VERSION}")
    try:
        return decode(memoryview(data)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"not a frame: {error}") from error
