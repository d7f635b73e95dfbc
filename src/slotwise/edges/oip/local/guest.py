"""A client at the local door: its memory, the memory lent to it, what it has asked, and what it may not do.

A client that says what no client says (bytes that are no frame, memory that is not safe, room given back that it does
not hold) is told so and let go of; what it holds is given back, what it has asked is cancelled.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from http import HTTPStatus
from typing import Protocol

from slotwise.edges.local import frames
from slotwise.edges.local.limits import LocalLimits
from slotwise.edges.local.link import Link
from slotwise.edges.local.memory import MemoryFault, check_memory, map_to_read, seal_writers
from slotwise.edges.oip.answers import Laid, ref_of
from slotwise.edges.oip.codec import Contract, Infer, Place
from slotwise.edges.oip.errors import WireError, bad, too_large
from slotwise.engine.ports import Arena, Outputs
from slotwise.facts.actions import Reply
from slotwise.facts.types import Request, TensorRef
from slotwise.facts.units import MS


class LentMemory(Arena, Protocol):
    """Memory for one client's outputs."""

    @property
    def fd(self) -> int:
        """The memory's descriptor."""

    def close(self) -> None:
        """Give the memory up."""


class Desk(Protocol):
    """Where a client takes its requests."""

    limits: LocalLimits
    server: str
    replies: Counter[int]
    """How many replies have gone out, by status."""

    def lend(self, nbytes: int) -> LentMemory:
        """Memory for a client's outputs."""

    def share(self, fd: int, nbytes: int) -> int:
        """Have executors read a client's memory where it lies; returns the name of the segment."""

    def unshare(self, segment: int) -> None:
        """The client has gone."""

    def submit(self, guest: Guest, asked: frames.Asked) -> None:
        """Take a request to the engine. Raises WireError."""

    def cancel(self, guest: Guest, serial: int) -> None:
        """The answer is not wanted any more."""

    def forget(self, guest: Guest) -> None:
        """The client has gone away."""

    def turned_away(self, guest: Guest, asked: frames.Asked | None, error: WireError) -> None:
        """The client is told an error that the engine has not made."""


class _Lie(Exception):
    """A frame that no honest client sends."""


class Question:
    """A request that waits for its reply, and the region that its inputs were copied to, if they were."""

    __slots__ = ("asked", "contract", "guest", "infer", "region", "request")

    def __init__(self, guest: Guest, asked: frames.Asked, contract: Contract, infer: Infer, region: int | None) -> None:
        self.guest = guest
        self.asked = asked
        self.contract = contract
        self.infer = infer
        self.region = region
        self.request: Request


class Guest:
    """A client at the door; a `link.Guest`."""

    def __init__(self, desk: Desk, link: Link) -> None:
        self.link = link
        self.serials: dict[int, int] = {}
        """Of requests under way, with the ids that the engine knows them by."""
        self._desk = desk
        self.segment = 0
        """Under which executors know the client's memory."""
        self._memory: memoryview | None = None
        self._lent: LentMemory | None = None
        self._held: set[int] = set()
        self._patience = asyncio.get_running_loop().call_later(desk.limits.hello_s, self._lose_patience)

    # The link's side

    @property
    def is_busy(self) -> bool:
        """Whether it has more than one question under way."""
        return len(self.serials) > 1

    def take(self, data: bytes, descriptors: list[int]) -> None:
        """One frame."""
        try:
            frame = frames.decode_client(data)
            if self._memory is None:
                self._meet(frame, descriptors)
            elif type(frame) is frames.Ask or type(frame) is frames.Relay:
                self._ask(frame)
            elif type(frame) is frames.Release:
                self._give_back(frame.released)
            elif type(frame) is frames.Cancel:
                self._desk.cancel(self, frame.serial)
            else:
                raise _Lie("a client says hello once")
        except (frames.FrameError, MemoryFault, _Lie) as fault:
            self.turn_away(bad(str(fault)))
        except OSError as shortage:
            words = f"the server cannot take another client now: {shortage.strerror}"
            again_ns = self._desk.limits.retry_after_ns
            self.turn_away(WireError(HTTPStatus.SERVICE_UNAVAILABLE, words, reason="no_room", retry_after_ns=again_ns))
        finally:
            for fd in descriptors:
                os.close(fd)

    def take_too_long(self) -> None:
        """A frame was longer than the limit."""
        self.turn_away(too_large(f"a frame has {self._desk.limits.frame_bytes_max} bytes at most; this one was longer"))

    def lost(self) -> None:
        """The connection is gone: give back what there is, and cancel what is under way."""
        self._patience.cancel()
        if self._memory is not None:
            self._memory = None
            self._desk.unshare(self.segment)
        if self._lent is not None:
            self._lent.close()
            self._lent = None
        self._desk.forget(self)

    # The door's side

    def read(self, place: Place, view: memoryview) -> None:
        """Copy an input out of the client's memory. Raises WireError when it does not lie there."""
        view[:] = self.view(place.offset, place.nbytes)

    def view(self, offset: int, nbytes: int) -> memoryview:
        """Bytes of the client's memory, which may change at any instant. Raises WireError when they are not there."""
        self.check(offset, nbytes)
        assert self._memory is not None, "asked after the client has said hello"
        return self._memory[offset : offset + nbytes]

    def check(self, offset: int, nbytes: int) -> None:
        """Raise WireError for an input that does not lie in the client's memory."""
        memory = self._memory
        assert memory is not None, "asked after the client has said hello"
        if offset + nbytes > len(memory):
            words = f"bytes {offset} to {offset + nbytes} are not in the client's memory, which has {len(memory)}"
            raise bad(words)
        if offset % frames.ALIGNMENT:
            raise bad(f"an input begins at byte {offset}; it must be a multiple of {frames.ALIGNMENT}")

    def answer(self, question: Question, reply: Reply, outputs: Outputs, timing: frames.Spent | None) -> None:
        """Copy the outputs that were asked for to the client's room and say so. Raises WireError."""
        wanted = question.infer.wish.wanted
        found = [ref_of(one, reply.outputs, position) for position, one in enumerate(wanted)]
        region, tensors = self._place(found, outputs)
        spec = question.contract.spec
        ask = question.asked
        assert type(ask) is frames.Ask, "a Relay has its own answer"
        self._send(frames.Answer(ask.serial, spec.name, spec.version, tensors, region, timing, ask.id), region)

    def answer_relay(self, question: Question, laid: Laid) -> None:
        """Copy the data of an answer to the client's room and say so. Raises WireError."""
        nbytes = sum(map(len, laid.data))
        region = self._room(nbytes)
        if region is not None:
            assert self._lent is not None, "there is a region in it"
            view, at = self._lent.view(region, nbytes), 0
            for piece in laid.data:
                view[at : at + len(piece)] = piece
                at += len(piece)
        self._send(frames.Relayed(question.asked.serial, laid.head, nbytes, region), region)

    def refuse(self, asked: frames.Asked | None, error: WireError) -> None:
        """Say an error, of a question or of the whole connection."""
        self._desk.replies[error.status] += 1
        if error.request is None:
            self._desk.turned_away(self, asked, error)
        refusal = frames.Refusal(
            None if asked is None else asked.serial,
            error.status,
            error.message,
            error.reason or "",
            error.predicted_ms,
            -(-error.retry_after_ns // MS),
            error.request,
        )
        self.link.send(frames.encode(refusal))

    def turn_away(self, error: WireError) -> None:
        """Say an error, and then end the connection."""
        self.refuse(None, error)
        self.link.end()

    def _meet(self, frame: frames.ClientFrame, descriptors: list[int]) -> None:
        limits = self._desk.limits
        if type(frame) is not frames.Hello or len(descriptors) != 1:
            raise _Lie("a client begins with Hello and the descriptor of its memory")
        nbytes = check_memory(descriptors[0], limits.memory_bytes_max)
        memory = map_to_read(descriptors[0], nbytes)
        self._lent = lent = self._desk.lend(limits.outputs_bytes)
        seal_writers(lent.fd)
        self.segment = self._desk.share(descriptors[0], nbytes)
        self._memory = memory
        self._patience.cancel()
        welcome = frames.Welcome(self._desk.server, limits.requests_max, limits.frame_bytes_max, limits.outputs_bytes)
        self.link.send(frames.encode(welcome), lent.fd)

    def _send(self, answer: frames.Answer | frames.Relayed, region: int | None) -> None:
        data = frames.encode(answer)
        if len(data) > self._desk.limits.frame_bytes_max:
            if region is not None:
                self._give_back((region,))
            raise bad("the answer has too many outputs for one frame; ask for some of them by name")
        self._desk.replies[HTTPStatus.OK] += 1
        self.link.send(data)

    def _ask(self, asked: frames.Asked) -> None:
        if asked.released:
            self._give_back(asked.released)
        if asked.serial in self.serials:
            raise _Lie(f"serial {asked.serial} is that of a request under way")
        try:
            self._desk.submit(self, asked)
        except WireError as error:
            self.refuse(asked, error)

    def _give_back(self, released: tuple[int, ...]) -> None:
        assert self._lent is not None, "lent when the client has said hello"
        for region in released:
            if region not in self._held:
                raise _Lie(f"room at {region} is given back, but the client does not hold it")
            self._held.remove(region)
            self._lent.release(region)

    def _place(self, found: list[TensorRef], outputs: Outputs) -> tuple[int | None, tuple[frames.Tensor, ...]]:
        lent = self._lent
        assert lent is not None, "answers go to those who are there"
        region = self._room(sum([-(-ref.nbytes // frames.ALIGNMENT) * frames.ALIGNMENT for ref in found]))
        at = region or 0
        tensors = []
        for ref in found:
            lent.view(at, ref.nbytes)[:] = outputs.read(ref)
            tensors.append(frames.Tensor(ref.name, ref.datatype, ref.shape, at, ref.nbytes))
            at += -(-ref.nbytes // frames.ALIGNMENT) * frames.ALIGNMENT
        return region, tuple(tensors)

    def _room(self, nbytes: int) -> int | None:
        """A region of the client's room, held until it gives it back; None for no bytes. Raises WireError."""
        assert self._lent is not None, "answers go to those who are there"
        if not nbytes:
            return None
        region = self._lent.allocate(nbytes)
        if region is None:
            raise WireError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"no room for {nbytes} bytes of outputs: this client holds {len(self._held)} earlier answers;"
                " let go of them, or ask for less at once",
                reason="no_room",
                retry_after_ns=self._desk.limits.retry_after_ns,
            )
        self._held.add(region)
        return region

    def _lose_patience(self) -> None:
        seconds = f"{self._desk.limits.hello_s:g} s"
        self.turn_away(WireError(HTTPStatus.REQUEST_TIMEOUT, f"no Hello within {seconds}"))
