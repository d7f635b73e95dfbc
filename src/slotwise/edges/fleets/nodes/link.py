"""Frames over a TCP connection, the same at both ends. What a message means is no concern of this file.

    4 bytes: length of the head    8 bytes: length of the body    head: a message    body: tensors, or nothing

Little lies in the system's own buffers (TCP_NOTSENT_LOWAT), so that what is urgent is not behind what is long. A frame
beyond the limits ends the connection before it is read.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from typing import Protocol

from slotwise.edges.fleets.messages import Message, MessageError
from slotwise.edges.fleets.nodes.messages import encode

_PREFIX = struct.Struct(">IQ")
HEAD_BYTES_MAX = 8 << 20
UNSENT_BYTES = 128 << 10
"""What the system may hold back to send later."""
LINGER_S = 1.0
"""How long what was said last may take to go out."""


class End(Protocol):
    """Whoever is behind one end of a link."""

    def met(self, link: Link) -> None:
        """The connection is there."""

    def take(self, link: Link, head: memoryview, body: memoryview) -> None:
        """One frame has come in full. Raises MessageError for one that no honest end sends."""

    def lost(self, link: Link, why: str) -> None:
        """The connection is gone. Called once."""


class Link(asyncio.Protocol):
    """One end of a connection."""

    def __init__(self, end: End, body_bytes_max: int) -> None:
        self._end = end
        self._body_bytes_max = body_bytes_max
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._frame: bytearray | None = None
        self._head_bytes = 0
        self._filled_bytes = 0
        self._why = ""
        self.peer = ""
        self.taken_bytes = 0
        """Of all frames that have come in full."""
        self.heard_s = self._loop.time()
        """When something came last."""

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        assert isinstance(transport, asyncio.Transport), "a stream"
        self._transport = transport
        host, port = transport.get_extra_info("peername")[:2]
        self.peer = f"{host}:{port}"
        own: socket.socket = transport.get_extra_info("socket")
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._end.met(self)

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        self.heard_s = self._loop.time()
        view = memoryview(data)
        try:
            while view:
                view = self._fill(view) if self._frame is not None else self._begin(view)
        except MessageError as error:
            self.end(str(error))

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._transport = None
        self._end.lost(self, self._why or (str(error) if error else "the other end closed the connection"))

    # The end's side

    def send(self, message: Message, body: Sequence[bytes | memoryview] = ()) -> int:
        """Send a frame; its body in parts. They are copied. How many bytes it takes."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return 0
        head = encode(message)
        assert len(head) <= HEAD_BYTES_MAX, "a message is a description, not what it describes"
        frame = b"".join([_PREFIX.pack(len(head), sum([len(part) for part in body])), head, *body])
        transport.write(frame)
        return len(frame)

    def end(self, why: str) -> None:
        """Close the connection, after what was said last unless that takes long; `why` is for this side."""
        self._why = self._why or why
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._loop.call_later(LINGER_S, self._transport.abort)

    def cut(self, why: str) -> None:
        """Close the connection at once."""
        self._why = self._why or why
        if self._transport is not None:
            self._transport.abort()

    # Frames

    def _begin(self, view: memoryview) -> memoryview:
        """Read the prefix of a frame; what is left of the bytes."""
        missing = _PREFIX.size - len(self._buffer)
        self._buffer += view[:missing]
        if len(self._buffer) == _PREFIX.size:
            head_bytes, body_bytes = _PREFIX.unpack(self._buffer)
            self._buffer.clear()
            if head_bytes > HEAD_BYTES_MAX or body_bytes > self._body_bytes_max:
                raise MessageError(
                    f"a frame of {head_bytes} and {body_bytes} bytes; the limits are {HEAD_BYTES_MAX}"
                    f" and {self._body_bytes_max} (`frame_bytes_max`)"
                )
            self._frame = bytearray(head_bytes + body_bytes)
            self._head_bytes, self._filled_bytes = head_bytes, 0
        return view[missing:]

    def _fill(self, view: memoryview) -> memoryview:
        """Read on in a frame, and hand it over if that was all; what is left of the bytes."""
        frame = self._frame
        assert frame is not None, "begun"
        part = view[: len(frame) - self._filled_bytes]
        frame[self._filled_bytes : self._filled_bytes + len(part)] = part
        self._filled_bytes += len(part)
        if self._filled_bytes == len(frame):
            self._frame = None
            self.taken_bytes += _PREFIX.size + len(frame)
            whole = memoryview(frame)
            self._end.take(self, whole[: self._head_bytes], whole[self._head_bytes :])
        return view[len(part) :]
