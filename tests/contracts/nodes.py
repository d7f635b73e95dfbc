"""The contract's harness for executors on a node: over TCP, with a clock that is half a second ahead."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slotwise.edges.fleets.nodes.agent import Agent
from slotwise.edges.fleets.nodes.remote import RemoteNode
from slotwise.edges.fleets.nodes.settings import Address, Nodes
from slotwise.edges.fleets.nodes.weights import Cache, Library
from slotwise.edges.fleets.segments import Segments
from slotwise.edges.fleets.settings import FleetLimits
from slotwise.edges.store.files import SharedArena
from slotwise.engine.clock import RealClock
from slotwise.engine.ports import Fleet, FleetAction
from slotwise.facts.types import ModelSpec, TensorRef
from tests.contracts.harness import MS
from tests.contracts.live import ARENA_BYTES, LIMITS, LiveHarness, make_slices, put_emulated

SECRET = b"known to both of them"
SKEW_NS = 500 * MS
NODES = Nodes(silence_s_max=30.0)


class TurnEnds:
    """A remote node as a fleet of its own, whose turns end."""

    def __init__(self, node: RemoteNode, segments: Segments) -> None:
        self.node = node
        self._segments = segments

    def send(self, action: FleetAction) -> None:
        self.node.send(action)

    def flush(self) -> None:
        self._segments.forget_retired()


class NodeHarness(LiveHarness):
    """Front and node in one loop, a TCP connection between them."""

    def __init__(
        self, specs: Mapping[str, ModelSpec], inputs: Mapping[str, np.ndarray], folder: Path, limits: Nodes = NODES
    ) -> None:
        self.nodes = limits
        self._folder = folder
        super().__init__(specs, inputs)

    async def _start(self, limits: FleetLimits) -> None:
        loop = asyncio.get_running_loop()
        self.node_arena = SharedArena(ARENA_BYTES)
        self.node_clock = RealClock(loop, self.clock.offset_ns + SKEW_NS)
        self.agent = Agent(
            slices=make_slices(),
            clock=self.node_clock,
            arena=self.node_arena,
            cache=Cache(self._folder / "weights", self.nodes.cache_bytes_max),
            secret=SECRET,
            limits=self.nodes,
            fleet_limits=LIMITS,
        )
        port = await self.agent.start("127.0.0.1", 0)
        self.segments = Segments(memoryview(b""))
        self.remote = RemoteNode(
            address=Address(name="node", host="127.0.0.1", port=port),
            prefix="",
            secret=SECRET,
            limits=self.nodes,
            post=self._post,
            clock=self.clock,
            read=self._read_input,
            specs=self.specs,
            segments=self.segments,
            library=Library(),
        )
        self._fleet = TurnEnds(self.remote, self.segments)
        self.remote.start()
        await self.remote.wait_until_up()

    async def _close(self) -> None:
        await self.remote.close()
        await self.agent.close()
        assert self.node_arena.regions == 0, "the node keeps regions of batches that have ended"
        self.node_arena.close()

    @property
    def fleet(self) -> Fleet:
        return self._fleet

    def kill(self, executor: str) -> None:
        self.agent.fleet.kill(executor)

    def hang(self, executor: str) -> None:
        self.agent.fleet.kill(executor, signal.SIGSTOP)

    def _read_input(self, ref: TensorRef) -> memoryview:
        return self.arena.view(ref.offset, ref.nbytes)


def make_emulated_node(folder: Path) -> NodeHarness:
    """Executors of a node that wait out the models' profiles."""
    return NodeHarness(*put_emulated(folder), folder)
