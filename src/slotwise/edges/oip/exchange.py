"""One inference request while it is being read, and until it is answered. No socket: a connection feeds it.

A body is collected in memory and understood when it is complete. A long binary one is not collected: as soon
as its head is there, the region in shared memory is taken and every further piece goes straight into it.
Whatever is wrong ends up in `error`, and what comes after that is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple, Protocol

from slotwise.edges.oip.body import Coding, Inflater
from slotwise.edges.oip.codec import Contract, Filler, Infer, Wish, borrow, decode, decode_raw, fill, split
from slotwise.edges.oip.datatypes import BYTES
from slotwise.edges.oip.errors import WireError, too_large
from slotwise.edges.oip.limits import Limits
from slotwise.edges.oip.regions import Regions
from slotwise.engine.ports import Arena
from slotwise.facts.types import Request

JoinTrace = Callable[[int, str], None]
"""Told of a request by its number, before it arrives, which trace of its client's it is a part of (`traceparent`)."""


class Line(Protocol):
    """Where an exchange came from, and where its answer goes."""

    def send(self, exchange: Exchange, status: HTTPStatus, headers: bytes, body: bytes) -> None:
        """Answer. Headers are lines, each with its end."""

    def send_error(self, exchange: Exchange, error: WireError) -> None:
        """Answer with an error."""


class Room:
    """What is left of the memory for bodies that are being collected, over all connections."""

    def __init__(self, nbytes: int) -> None:
        self._left = nbytes

    def take(self, nbytes: int, retry_after_ns: int) -> None:
        """Count bytes in. Raises WireError when there is no room for them."""
        if nbytes > self._left:
            raise WireError(
                HTTPStatus.SERVICE_UNAVAILABLE, "too many large bodies at once", retry_after_ns=retry_after_ns
            )
        self._left -= nbytes

    def give(self, nbytes: int) -> None:
        """Count bytes out."""
        self._left += nbytes


class Opened(NamedTuple):
    """A request whose head has been understood, its region, and what is here of its binary data."""

    infer: Infer
    view: memoryview
    binary: memoryview


class Exchange:
    """A request to the one hot route. It stands in uvicorn's line of cycles, so it bears the names used there."""

    # Most of these keep their first value in most requests, so they are set where they change and stand here once.
    contract: Contract | None = None
    head_length: int | None = None
    inflater: Inflater | None = None
    infer: Infer | None = None
    """Once the head has been understood."""
    wish: Wish | None = None
    """Once all has been understood."""
    region: int | None = None
    request: Request | None = None
    error: WireError | None = None
    target: bytes = b""
    """The URL, where it failed before its model was known."""
    authorization: bytes | None = None
    traceparent: bytes | None = None
    """Of which trace of its client's it is a part, as that says."""
    keep_alive = True
    expects_continue = False
    coding: Coding | None = None
    """What the answer may be compressed with."""
    names_connection = False
    """It has a header Connection."""
    is_complete = False
    """The body has been read to its end."""
    response_complete = False
    _body: bytes | bytearray = b""
    _size = 0
    _length: int | None = None
    _collected = 0
    _filler: Filler | None = None

    def __init__(self, connection: Line, arena: Arena, regions: Regions, limits: Limits, room: Room) -> None:
        self.connection: Line | None = connection
        """None when it has been answered, or the client has gone away."""
        self._arena = arena
        self._regions = regions
        self._limits = limits
        self._room = room

    def fail(self, error: WireError) -> None:
        """Nothing will come of it: give back what it holds. The first reason stands."""
        if self.error is None:
            # Without what led to it: those frames hold the body and this exchange, in a ring that only the collector
            # of garbage would find, and it comes seldom.
            error.__cause__ = error.__context__ = None
            self.error = error.with_traceback(None)
            self.discard()

    def announce(self, length: int) -> None:
        """The length of the body to come, as the client says. Raises WireError when it is beyond the limit."""
        if length > self._limits.body_bytes_max:
            self.keep_alive = False
            raise too_large(f"the body has {length} bytes, {self._limits.body_bytes_max} are the limit")
        self._length = length

    def write(self, piece: bytes) -> None:
        """The next bytes of the body, of any length."""
        self.expects_continue = False
        if self.error is not None:
            return
        try:
            if self.inflater is not None:
                piece = self.inflater.write(piece)
            self._size += len(piece)
            if self._size > self._limits.body_bytes_max:
                raise too_large(f"the body has more than {self._limits.body_bytes_max} bytes, the limit")
            if not self._body and self._filler is None:
                self._body = piece
            else:
                self._append(piece)
            if self._length is not None and self._size < self._length and self._filler is None:
                self._stream(self._length)
        except WireError as error:
            self.keep_alive &= error.status is not HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            self.fail(error)

    def finish(self) -> Infer:
        """The body has ended and its tensors lie in `region`. Raises WireError when it is no sound request."""
        if self.inflater is not None:
            self.inflater.finish()
        if self._filler is not None:
            self._filler.finish()
            self._filler = None
        else:
            fill(*self._open(self._size))
            self._drop_body()
        assert self.infer is not None, "opened by now"
        assert self.region is not None, "opened by now"
        if self.infer.borrows:
            borrow(self.infer, self._arena.view(self.region, self.infer.nbytes), self._regions.read)
        infer, self.infer = self.infer, None  # its JSON data is in the region now, and need not be held twice
        self.wish = infer.wish
        return infer

    def discard(self) -> None:
        """Give everything back that it holds."""
        if self._body:
            self._drop_body()
        self._filler = None
        if self.region is not None:
            self._arena.release(self.region)
            self.region = None

    def _append(self, piece: bytes) -> None:
        if self._filler is not None:
            self._filler.write(piece)
            return
        # The first piece is kept as it came; from the second on there is a copy to grow.
        fresh = len(piece) if type(self._body) is bytearray else self._size
        self._room.take(fresh, self._limits.retry_after_ns)
        self._collected += fresh
        if type(self._body) is bytes:
            self._body = bytearray(self._body)
        self._body += piece

    def _stream(self, length: int) -> None:
        """There is more to come. If it is worth it, and the head is here, take it piece by piece from now on."""
        if length < self._limits.stream_bytes_min or self.inflater is not None:
            return
        if self.head_length is None or self.head_length > self._size:
            return
        if self.head_length == 0 and self._takes_bytes():
            return  # its length goes before it, in a form that has to be made of the whole
        infer, view, binary = self._open(length)
        self._filler = Filler(infer, view)
        self._filler.write(binary)
        self._drop_body()

    def _takes_bytes(self) -> bool:
        return self.contract is not None and any(t.datatype == BYTES for t in self.contract.spec.inputs)

    def _open(self, length: int) -> Opened:
        """Understand the head of a body of that length, and take a region for its tensors."""
        assert self.contract is not None, "set before the body is read"
        if self.head_length == 0:
            infer = decode_raw(self._body, length, self.contract)
            binary = memoryview(self._body)
        else:
            head, binary = split(self._body, self.head_length)
            infer = decode(head, length - len(head), self.contract)
        nbytes = infer.nbytes or 1
        self.infer = infer
        self.region = self._arena.allocate(nbytes)
        if self.region is None:
            raise self._no_room(nbytes)
        return Opened(infer, self._arena.view(self.region, nbytes), binary)

    def _no_room(self, nbytes: int) -> WireError:
        return WireError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"no room in shared memory for {nbytes} bytes of tensors",
            reason="no_room",
            retry_after_ns=self._limits.retry_after_ns,
        )

    def _drop_body(self) -> None:
        self._body = b""
        if self._collected:
            self._room.give(self._collected)
            self._collected = 0
