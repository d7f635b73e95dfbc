"""The executors of a system, from its configuration: on this machine's cores, on nodes, or on both.

`build_fleet` is for a server and `NodeSystem` is the node's own process: an agent with its arena, clock and cache.
Nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from slotwise.config import MIB, Config, ConfigError, memory_bytes
from slotwise.edges.fleets.nodes.agent import Agent
from slotwise.edges.fleets.nodes.joined import JoinedFleet
from slotwise.edges.fleets.nodes.secret import SecretError, read_secret
from slotwise.edges.fleets.nodes.settings import AddressError, read_addresses, read_endpoint
from slotwise.edges.fleets.nodes.weights import Cache
from slotwise.edges.fleets.processes import ProcessFleet
from slotwise.edges.fleets.settings import CoreSlice
from slotwise.edges.slices import cores as core_slices
from slotwise.edges.store.files import SharedArena
from slotwise.engine.clock import RealClock
from slotwise.engine.ports import Post
from slotwise.facts.types import ModelSpec
from slotwise.summary import tell_node

PAGE_BYTES = MIB
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LiveFleet = ProcessFleet | JoinedFleet


def slices(config: Config) -> list[CoreSlice]:
    """One executor for each core that executors may have. Raises ConfigError for a core that there is not."""
    there = core_slices.available()
    chosen = config.cores or there
    for core in chosen:
        if core not in there:
            raise ConfigError(f"there is no core {core} for this process; there are {', '.join(map(str, there))}")
    if len(set(chosen)) < len(chosen):
        raise ConfigError(f"cores {', '.join(map(str, chosen))}: one is named twice; each takes one executor")
    share_bytes = memory_bytes(config) // len(chosen)
    return [
        CoreSlice(executor=f"core{core}", cores=(core,), memory_bytes=share_bytes, page_bytes=PAGE_BYTES)
        for core in chosen
    ]


def emulated_slices(config: Config, executors: int) -> list[CoreSlice]:
    """So many executors that share all cores, for profiles to be waited out."""
    share_bytes = memory_bytes(config) // executors
    return [
        CoreSlice(executor=f"emulated{at}", cores=(), memory_bytes=share_bytes, page_bytes=PAGE_BYTES, threads=1)
        for at in range(executors)
    ]


def build_fleet(
    config: Config, *, post: Post, clock: RealClock, arena: SharedArena, specs: Mapping[str, ModelSpec]
) -> LiveFleet:
    """The fleet of a server. Raises ConfigError."""
    nodes = config.nodes
    own = [] if nodes.only else slices(config)
    if not nodes.addresses:
        if nodes.only:
            raise ConfigError("there is nobody to run models: `nodes.only` is set, and `nodes.addresses` names none")
        return ProcessFleet(slices=own, post=post, clock=clock, arena=arena, specs=specs, limits=config.fleet)
    try:
        addresses, secret = read_addresses(nodes.addresses), read_secret(nodes.token_file)
    except (AddressError, SecretError) as error:
        raise ConfigError(str(error)) from error
    return JoinedFleet(
        slices=own,
        addresses=addresses,
        secret=secret,
        post=post,
        clock=clock,
        arena=arena,
        specs=specs,
        limits=config.fleet,
        nodes=nodes,
    )


class NodeSystem:
    """A node's process between `start` and `close`."""

    def __init__(self, config: Config, listen: str, *, emulated: int = 0, clock_skew_ms: float | None = None) -> None:
        """`emulated` asks for so many executors that wait profiles out. Raises ConfigError."""
        try:
            self.host, self._port = read_endpoint(listen)
            secret = read_secret(config.nodes.token_file)
        except (AddressError, SecretError) as error:
            raise ConfigError(str(error)) from error
        if not secret and self.host not in LOOPBACK:
            raise ConfigError(
                f"whoever reaches {self.host} could order this node about: name a `nodes.token_file` (--token-file),"
                " or listen on 127.0.0.1"
            )
        skew_ns = None if clock_skew_ms is None else int(clock_skew_ms * 1e6)
        self.arena = SharedArena(config.arena_mib * MIB)
        self.agent = Agent(
            slices=emulated_slices(config, emulated) if emulated else slices(config),
            clock=RealClock(asyncio.get_running_loop(), skew_ns),
            arena=self.arena,
            cache=_cache(config),
            secret=secret,
            limits=config.nodes,
            fleet_limits=config.fleet,
            is_emulated=emulated > 0,
        )
        self._told = self.agent.counts()
        self._summary_s = config.summary_s
        self.stopped = asyncio.Event()
        """Set by whoever wants the node to be closed."""
        self.port = 0

    async def start(self) -> None:
        """Bring the executors up and listen. Raises FleetError or OSError."""
        self.port = await self.agent.start(self.host, self._port)

    async def close(self) -> None:
        """End every process and give everything back."""
        await self.agent.close()
        self.arena.close()

    def summary(self) -> str:
        """A line of what was done since the last one, `summary_s` ago."""
        before, self._told = self._told, self.agent.counts()
        return tell_node(self._told, before, self._summary_s)

    def address(self) -> str:
        """Where it listens."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _cache(config: Config) -> Cache:
    folder = Path(config.nodes.cache) if config.nodes.cache else Path.home() / ".cache" / "slotwise" / "weights"
    try:
        return Cache(folder, config.nodes.cache_bytes_max)
    except OSError as error:
        raise ConfigError(
            f"weights cannot be kept in {folder}: {error.strerror}; name another `nodes.cache`"
        ) from error
