"""One fleet of the executors on this machine and those of nodes, either of which there may be none of.

An executor of a node is called `NODE:NAME`; whatever has no such name is this machine's. Inputs that go to a node are
read here, from the arena or from the memory of a client; outputs that come from one are read like all others.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from slotwise.edges.fleets.nodes.remote import NodeStatistics, RemoteNode
from slotwise.edges.fleets.nodes.settings import Address, Nodes
from slotwise.edges.fleets.nodes.weights import Library
from slotwise.edges.fleets.processes import (
    NO_OTHERS,
    ExecutorStatistics,
    FleetError,
    FleetStatistics,
    MachineClock,
    ProcessFleet,
    SharedMemory,
    measured,
)
from slotwise.edges.fleets.seat import SeatState
from slotwise.edges.fleets.segments import Segments
from slotwise.edges.fleets.settings import CoreSlice, FleetLimits
from slotwise.engine.ports import NO_SHAPES, Arena, Clock, FleetAction, Inspection, ModelError, Post
from slotwise.facts.types import ModelSpec, TensorRef

SEPARATOR = ":"
"""Between a node's name and its executor's."""


class FrontClock(Clock, MachineClock, Protocol):
    """The engine's clock, which executors on this machine share."""


class Inputs:
    """Where requests' inputs lie: the arena, and memories of clients by segment."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._memories: dict[int, memoryview] = {}

    def add(self, segment: int, fd: int, nbytes: int) -> None:
        """A client's memory can be read from."""
        self._memories[segment] = memoryview(mmap.mmap(fd, nbytes, prot=mmap.PROT_READ))

    def remove(self, segment: int) -> None:
        """The client has gone."""
        del self._memories[segment]

    def read(self, ref: TensorRef) -> memoryview:
        """The bytes of an input."""
        if ref.segment == self._arena.segment:
            return self._arena.view(ref.offset, ref.nbytes)
        return self._memories[ref.segment][ref.offset : ref.offset + ref.nbytes]


class JoinedFleet:
    """Executors here and on nodes; the engine's `Fleet`, `Outputs`, `Inspector` and `Memories`."""

    def __init__(
        self,
        *,
        slices: Sequence[CoreSlice],
        addresses: Sequence[Address],
        secret: bytes,
        post: Post,
        clock: FrontClock,
        arena: SharedMemory,
        specs: Mapping[str, ModelSpec],
        limits: FleetLimits,
        nodes: Nodes,
    ) -> None:
        """Without `slices` there are no executors on this machine."""
        assert addresses, "a fleet without nodes is one of processes"
        self._segments = segments = Segments(arena.view(0, arena.nbytes))
        self.read = segments.read
        self._inputs = Inputs(arena)
        self._limits = nodes
        self._local: ProcessFleet | None = None
        if slices:
            self._local = ProcessFleet(
                slices=slices, post=post, clock=clock, arena=arena, specs=specs, limits=limits, segments=segments
            )
        library = Library()
        self._nodes = {
            address.name: RemoteNode(
                address=address,
                prefix=f"{address.name}{SEPARATOR}",
                secret=secret,
                limits=nodes,
                post=post,
                clock=clock,
                read=self._inputs.read,
                specs=specs,
                segments=segments,
                library=library,
            )
            for address in addresses
        }

    async def start(self) -> None:
        """Start the executors here, and wait for nodes as long as may be. Raises FleetError where there is nobody."""
        for node in self._nodes.values():
            node.start()
        if self._local is not None:
            await self._local.start()
        with suppress(TimeoutError):  # those that are missing join when they come
            await asyncio.wait_for(self._wait_for_nodes(), self._limits.start_s)
        if self._local is None and not any(node.is_up for node in self._nodes.values()):
            told = [f"{node.node} at {node.address}: {node.last_end}" for node in self.node_statistics()]
            await self.close()
            raise FleetError(f"no node came up within {self._limits.start_s:g} s: {'; '.join(told)}")

    async def close(self) -> None:
        """Hang up, and end every process on this machine."""
        await asyncio.gather(*(node.close() for node in self._nodes.values()))
        if self._local is not None:
            await self._local.close()

    def send(self, action: FleetAction) -> None:
        """Hand an action to its executor. An executor that is gone ignores it and is reported lost."""
        name, is_remote, _ = action.executor.partition(SEPARATOR)
        if is_remote:
            node = self._nodes.get(name)
            if node is not None:
                node.send(action)
        elif self._local is not None:
            self._local.send(action)

    def flush(self) -> None:
        """The turn has ended: signal executors here, and forget the outputs that it replied with."""
        if self._local is not None:
            self._local.flush()
        else:
            self._segments.forget_retired()

    def share(self, fd: int, nbytes: int) -> int:
        """Make memory of a client known under a segment number. `fd` stays the caller's."""
        segment = self._segments.draw() if self._local is None else self._local.share(fd, nbytes)
        self._inputs.add(segment, fd, nbytes)
        return segment

    def unshare(self, segment: int) -> None:
        """Nothing new will be read from it."""
        self._inputs.remove(segment)
        if self._local is not None:
            self._local.unshare(segment)

    async def inspect(
        self, path: str, batch_max: int, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES, pack_into: str = ""
    ) -> Inspection:
        """Load, warm up and measure a model: here, or on a node where nothing is run here. Raises ModelError.

        A node takes models as they are, so where nothing is run here nothing is packed.
        """
        if self._local is not None:
            return await self._local.inspect(path, batch_max, shapes, pack_into)
        for node in self._nodes.values():
            if node.is_up:
                return await node.inspect(path, batch_max, shapes)
        raise ModelError("there is no node to measure the model on")

    def kill(self, executor: str, number: int = signal.SIGKILL) -> None:
        """Send the process of an executor on this machine a signal: for trials of what happens then."""
        assert self._local is not None, "there are executors here"
        self._local.kill(executor, number)

    def statistics(self) -> FleetStatistics:
        """A snapshot. Of nodes' executors those stand here that are up."""
        remote = [
            ExecutorStatistics(
                executor=name, state=SeatState.UP, pid=None, restarts=0, in_flight=in_flight, last_end=""
            )
            for node in self._nodes.values()
            for name, in_flight in node.executors().items()
        ]
        local = self._local.statistics() if self._local is not None else None
        return FleetStatistics(
            executors=(*(local.executors if local else ()), *remote),
            zygote_pid=local.zygote_pid if local else None,
            zygote_restarts=local.zygote_restarts if local else 0,
            inspector_pid=local.inspector_pid if local else None,
        )

    def node_statistics(self) -> tuple[NodeStatistics, ...]:
        """Each node as it stands."""
        return tuple(node.statistics() for node in self._nodes.values())

    def memory_bytes(self, others: Mapping[str, int | None] = NO_OTHERS) -> dict[str, int]:
        """What this process (`front`), the others on this machine and `others`, by name, take of memory."""
        if self._local is not None:
            return self._local.memory_bytes(others)
        return measured({**others, "front": os.getpid()})

    async def _wait_for_nodes(self) -> None:
        for node in self._nodes.values():
            await node.wait_until_up()
