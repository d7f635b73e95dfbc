"""A local door before a system that echoes, in a thread of its own, and a bare socket to it that says anything."""

from __future__ import annotations

import itertools
import mmap
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from slotwise.client import Array
from slotwise.client.local import receive
from slotwise.edges.local import frames
from slotwise.edges.local.limits import LOCAL_LIMITS, LocalLimits
from slotwise.edges.oip.access import Access, Grant
from slotwise.edges.oip.codec import Bounds
from slotwise.edges.oip.limits import Limits
from slotwise.edges.oip.local.door import LocalDoor, Relays
from slotwise.edges.oip.regions import Regions
from slotwise.edges.store.files import SharedArena, make_memory
from slotwise.engine.loop import Engine
from tests.edges.echo import WAIT_S_MAX, Behind, EchoMemories, NoFleet, on_a_thread

MEMORY_BYTES = 1 << 20
ROW = np.array([[1, 2, 3, 4]], np.float32)


class LocalSystem(Behind):
    """All of it, behind the local door."""

    door: LocalDoor

    def __init__(self, limits: LocalLimits, late_answers: bool, is_gate: bool, grants: Sequence[Grant] | None) -> None:
        super().__init__(256 << 20)
        self.memories = EchoMemories(self.arena)
        self.door = LocalDoor(
            models=self.models,
            arena=self.arena,
            outputs=self.memories,
            memories=self.memories,
            lend=SharedArena,
            post=self._post,
            clock=self.clock,
            limits=limits,
            bounds=Bounds(),
            request_ids=itertools.count(1),
            refused=self.refused.append,
            server="test",
            relays=Relays(access=Access(grants, self.clock), regions=Regions(Limits())) if is_gate else None,
            late_answers=late_answers,
        )
        self.engine = Engine(
            clock=self.clock,
            controller=self.controller,
            fleet=NoFleet(),
            front=self.door,
            recorders=[self.statistics],
        )
        self.path = ""

    @property
    def clients(self) -> int:
        return len(self.door.statistics().clients)

    @property
    def in_flight(self) -> int:
        return self.door.statistics().requests_in_flight


@contextmanager
def serving(
    path: Path,
    limits: LocalLimits = LOCAL_LIMITS,
    *,
    late_answers: bool = False,
    is_gate: bool = False,
    grants: Sequence[Grant] | None = None,
) -> Iterator[LocalSystem]:
    """A system that listens at a path; for clients, or as a gate for one that relays what others ask."""

    async def begin() -> LocalSystem:
        system = LocalSystem(limits, late_answers, is_gate, grants)
        system.path = str(path)
        system.door.start(system.path)
        return system

    with on_a_thread(begin) as found:
        yield found


class Bare:
    """A client that says what it is told to."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(WAIT_S_MAX)
        self.socket.connect(path)
        self.fd = make_memory("bare", MEMORY_BYTES)
        self.memory = mmap.mmap(self.fd, MEMORY_BYTES)
        self.outputs_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        os.close(self.fd)
        if self.outputs_fd >= 0:
            os.close(self.outputs_fd)

    def hello(self) -> frames.Welcome:
        self.say(frames.Hello(), self.fd)
        data, fds, _, _ = socket.recv_fds(self.socket, 1 << 16, 4)
        (self.outputs_fd,) = fds
        welcome = frames.decode_server(data)
        assert isinstance(welcome, frames.Welcome)
        return welcome

    def say(self, frame: frames.Frame, *descriptors: int) -> None:
        self.send(frames.encode(frame), *descriptors)

    def send(self, data: bytes, *descriptors: int) -> None:
        socket.send_fds(self.socket, [data], list(descriptors))

    def flood(self, data: bytes, count: int) -> int:
        """Send as often as there is room for at once; how often that was."""
        self.socket.settimeout(0)
        sent = 0
        with suppress(BlockingIOError):
            while sent < count:
                self.socket.send(data)
                sent += 1
        self.socket.settimeout(WAIT_S_MAX)
        return sent

    def hear(self) -> frames.ServerFrame:
        return frames.decode_server(receive(self.socket, 1 << 18))

    def refusal(self) -> frames.Refusal:
        heard = self.hear()
        assert isinstance(heard, frames.Refusal), heard
        return heard

    def answer(self) -> frames.Answer:
        heard = self.hear()
        assert isinstance(heard, frames.Answer), heard
        return heard

    def is_closed(self) -> bool:
        """Whether the server has nothing more to say and has closed the connection."""
        return not receive(self.socket, 1 << 18)

    def put(self, array: Array, offset: int = 0) -> frames.Tensor:
        self.memory[offset : offset + array.nbytes] = array.tobytes()
        return frames.Tensor("x", "FP32", array.shape, offset, array.nbytes)


def ask(serial: int, model: str, *inputs: frames.Tensor, **more: object) -> frames.Ask:
    return frames.Ask(serial, model, "", inputs, **more)  # type: ignore[arg-type]  # checked by the struct


def descriptors() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))
