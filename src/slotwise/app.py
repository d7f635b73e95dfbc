"""Wires systems together: the only module that sees every part. It decides nothing and does no work of its own.

`LiveSystem` is a server on this machine; `simulated` is the same controller over a fleet in virtual time.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from slotwise import __version__
from slotwise.config import (
    MIB,
    Config,
    ConfigError,
    cache_folder,
    check_address,
    check_logs,
    check_memory,
    printed,
    serves_grpc,
)
from slotwise.edges.fleets.nodes.caller import NodeState
from slotwise.edges.fleets.nodes.joined import JoinedFleet
from slotwise.edges.fleets.nodes.remote import NodeStatistics
from slotwise.edges.fleets.processes import ExecutorStatistics
from slotwise.edges.local.limits import LocalLimits
from slotwise.edges.logs.refusals import Refusals
from slotwise.edges.logs.settings import Logs
from slotwise.edges.logs.writer import DirectLogs, ThreadedLogs
from slotwise.edges.metrics import prometheus
from slotwise.edges.oip.access import read_grants
from slotwise.edges.oip.grpc.keeper import DoorKeeper, DoorStatus
from slotwise.edges.oip.grpc.limits import DoorSettings, gate_limits
from slotwise.edges.oip.http import HttpDoor
from slotwise.edges.oip.local.door import LocalDoor, LocalStatistics, Relays
from slotwise.edges.oip.management import Identity
from slotwise.edges.oip.pages import json_page, text_page
from slotwise.edges.oip.recording import Recording
from slotwise.edges.oip.tls import Tls, check_tls
from slotwise.edges.repository.registry import Progress, Registry
from slotwise.edges.store.files import SharedArena
from slotwise.edges.traces.recorder import TraceRecorder, has_library, otlp
from slotwise.edges.traces.settings import Traces
from slotwise.engine.clock import RealClock
from slotwise.engine.fronts import Fronts
from slotwise.engine.journal import Journal
from slotwise.engine.loop import Engine, LoopStatistics
from slotwise.engine.ports import NO_SHAPES, Inspection, Recorder
from slotwise.engine.statistics import Statistics
from slotwise.executors import build_fleet
from slotwise.facts.actions import Reply
from slotwise.facts.events import Event
from slotwise.facts.statistics import LogUse
from slotwise.facts.types import ModelSpec, Request
from slotwise.facts.value import value
from slotwise.pipelines.relay import Relay
from slotwise.pipelines.tensors import Tensors
from slotwise.policy.controller import Controller, Limits
from slotwise.policy.presets import build_controller
from slotwise.sim.fleet import FleetSettings
from slotwise.sim.world import World
from slotwise.summary import Tally

GC_THRESHOLD = 50_000
"""Objects made between collections; long-lived ones are frozen once the models are in."""
METRICS_PATH = "/metrics"
"""Where Prometheus finds its numbers."""
STATUS_PATH = "/v2/slotwise/status"
"""Where a server tells how it stands."""
GRPC_DOOR = "grpc"
"""The gRPC door among the processes whose memory is told."""
SETTLE_POLL_S = 0.02


@value
class SystemStatus:
    """A server as it stands."""

    policy: str
    loop: LoopStatistics
    executors: tuple[ExecutorStatistics, ...]
    grpc: DoorStatus | None
    resident: dict[str, tuple[str, ...]]
    """Models ready or on their way, by executor."""
    memory_bytes: dict[str, int]
    """What each process takes of the machine's memory (PSS); this one is `front`, the gRPC door `grpc`."""
    clock_offset_ns: int
    """What the engine's clock, which the journal is written in, is ahead of the machine's monotonic one."""
    logs: tuple[LogUse, ...] = ()
    local: LocalStatistics | None = None
    """The local channel and who uses it, where there is one."""
    nodes: tuple[NodeStatistics, ...] = ()


class LiveSystem:
    """A server: door, engine, executors and models, alive between `start` and `close`. It is its own `Inspector`."""

    def __init__(self, config: Config, *, recorders: Sequence[Recorder] = (), progress: Progress | None = None) -> None:
        """Raises ConfigError, PresetError or TlsError when the configuration cannot be met."""
        self.config = config
        tls = config.tls if config.tls.certificate else None
        if tls is not None:
            check_tls(tls)
        check_memory(config)
        check_address(config)
        self.controller = build_controller(config.policy, settings=config.policy_settings, limits=config.controller)
        self.arena = SharedArena(config.arena_mib * MIB)
        self.registry = Registry(
            root=Path(config.repository),
            inspector=self,
            post=self._ask,
            cache=cache_folder(config),
            defaults=config.defaults,
            limits=config.models,
            progress=progress,
        )
        self._clock = clock = RealClock(asyncio.get_running_loop())
        self._started_ns = clock.now_ns()
        self.fleet = build_fleet(config, post=self._post, clock=clock, arena=self.arena, specs=self.registry.specs)
        self.statistics = Statistics()
        self._logs = ThreadedLogs(check_logs(config.logs)) if config.logs.folder else None
        self.refusals = Refusals(
            clock,
            per_s=config.logs.refused_per_s,
            burst=config.logs.refused_burst,
            put=self._logs.put_refused if self._logs is not None else None,
        )
        self._tally = Tally() if config.summary_s else None
        request_ids = itertools.count(1)
        self._journal_file = _journal_file(config)
        self._traces = _traces(config.traces, clock) if config.traces.endpoint else None
        self._join_trace = self._traces.join if self._traces is not None else None
        self.door = self._make_door(tls, request_ids)
        self.local = self._make_local(request_ids, config.local) if config.local_socket else None
        self.grpc = DoorKeeper(_grpc_settings(config), self.refusals.note) if serves_grpc(config) else None
        self.gate = self._make_gate(request_ids) if self.grpc is not None else None
        """Where the gRPC door asks: a local door of its own, which judges what each of its clients has shown."""
        self.relay = self._make_relay(request_ids)
        journals = [Journal(self._journal_file, journal_header(config))] if self._journal_file is not None else []
        self.engine = Engine(
            clock=clock,
            controller=self.controller,
            fleet=self.fleet,
            front=self.relay,
            recorders=[*self._request_recorders(), *journals, *recorders],
            on_failure=self._fail,
        )
        self.failure: Exception | None = None
        """A bug that has stopped the engine; the server must be closed."""
        self.stopped = asyncio.Event()
        """Set by whoever wants the server to be closed, and by a failure."""
        self._watching: asyncio.Task[None] | None = None
        self.http_port = 0

    async def start(self) -> None:
        """Bring everything up. HTTP answers from the start: that it initializes, until every model has been looked at.

        The other doors open last. Raises FleetError or GrpcDoorError.
        """
        self.door.is_initializing = True
        upstream = self.grpc.upstream if self.grpc is not None else ""
        self.http_port = await self.door.start(
            self.config.host, self.config.http_port, upstream, management_port=self.config.management_port
        )
        await self.fleet.start()
        await self.registry.open()
        await self._settle()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        self.door.is_initializing = False
        if self.local is not None:
            self.local.start(self.config.local_socket)
        if self.gate is not None and self.grpc is not None:
            self.gate.start(self.grpc.channel)
            await self.grpc.start()
        if self.config.watch_s:
            self._watching = asyncio.create_task(self.registry.watch(self.config.watch_s))
            self._watching.add_done_callback(self._watch_ended)

    async def close(self) -> None:
        """Answer what is under way, then end every process and give everything back."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        patience_s = self.config.drain_s if self.failure is None else 0.0
        doors = [door.stop(patience_s) for door in (self.door, self.gate, self.local) if door is not None]
        if self.grpc is not None:
            doors.append(self.grpc.stop())
        await asyncio.gather(*doors)
        self.door.regions.unregister()
        await self.fleet.close()
        self.arena.close()
        if self._journal_file is not None:
            self._journal_file.close()
        for keeper in (self._logs, self._traces):
            if keeper is not None:
                await asyncio.to_thread(keeper.close)

    def hurry(self) -> None:
        """While it closes: wait no longer for requests under way; they are told that nobody did."""
        for door in (self.door, self.gate, self.local):
            if door is not None:
                door.hurry()

    async def reload(self) -> None:
        """Read the file of tokens and what has changed in the repository. Raises AccessError or ModelError."""
        if self.config.tokens:
            self.door.access.replace(read_grants(Path(self.config.tokens)))
        await self.registry.poll()

    async def inspect(
        self, path: str, batch_max: int, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES, pack_into: str = ""
    ) -> Inspection:
        """Let the fleet try a model in a process of its own. Raises ModelError."""
        return await self.fleet.inspect(path, batch_max, shapes, pack_into)

    def url(self) -> str:
        """Where it is served, once the door is open."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"{'https' if self.config.tls.certificate else 'http'}://{host}:{self.http_port}"

    def status(self) -> SystemStatus:
        """A snapshot."""
        executors = self.controller.view.executors
        return SystemStatus(
            policy=self.config.policy,
            loop=self.engine.statistics(),
            executors=self.fleet.statistics().executors,
            grpc=self.grpc.status() if self.grpc is not None else None,
            resident={name: executor.residency.models() for name, executor in executors.items()},
            memory_bytes=self._memory_bytes(),
            clock_offset_ns=self._clock.offset_ns,
            logs=self.log_uses(),
            local=self.local.statistics() if self.local is not None else None,
            nodes=self.node_statistics(),
        )

    def node_statistics(self) -> tuple[NodeStatistics, ...]:
        """Each node as it stands; none where there are none."""
        return self.fleet.node_statistics() if isinstance(self.fleet, JoinedFleet) else ()

    def summary(self) -> str:
        """A line of what was done since the last one; `summary_s` asks for them."""
        assert self._tally is not None, "asked for"
        return self._tally.tell(self._clock.now_ns(), self.engine.statistics().lag_ns_p99)

    def log_uses(self) -> tuple[LogUse, ...]:
        """What has become of the rows of logs, and of traces."""
        logs = self._logs.statistics() if self._logs is not None else ()
        return logs if self._traces is None else (*logs, self._traces.statistics())

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """A scrape, and its content type. What processes take is read in a thread, since the kernel counts pages."""
        memory = await asyncio.to_thread(self._memory_bytes)
        return prometheus.scrape(self._snapshot(memory), accept)

    def _memory_bytes(self) -> dict[str, int]:
        return self.fleet.memory_bytes({} if self.grpc is None else {GRPC_DOOR: self.grpc.pid})

    def _snapshot(self, memory: Mapping[str, int]) -> prometheus.Snapshot:
        door, loop, views = self.door.statistics(), self.engine.statistics(), self.controller.view.executors
        local = self.local.statistics() if self.local is not None else None
        gate = self.gate.statistics() if self.gate is not None else None
        return prometheus.Snapshot(
            policy=self.config.policy,
            version=__version__,
            models=self.statistics.models(self._clock.now_ns()),
            executors=self.statistics.executors(),
            executors_now=[
                prometheus.ExecutorNow(
                    executor=one.executor,
                    is_up=one.executor in views,
                    restarts=one.restarts,
                    in_flight=one.in_flight,
                    models=views[one.executor].residency.models() if one.executor in views else (),
                    memory_bytes=memory.get(one.executor),
                )
                for one in self.fleet.statistics().executors
            ],
            turns=loop.turns,
            lag=loop.lag,
            uptime_ns=self._clock.now_ns() - self._started_ns,
            logs=self.log_uses(),
            front_memory_bytes=memory.get("front"),
            requests_in_flight=sum(one.requests_in_flight for one in (door, gate, local) if one is not None),
            connections=door.connections,
            replies=door.replies,
            refusals=self.refusals.counts,
            local_clients=len(local.clients) if local is not None else None,
            local_replies=local.replies if local is not None else None,
            grpc_replies=gate.replies if gate is not None else None,
            grpc_memory_bytes=memory.get(GRPC_DOOR),
            nodes=[_node_now(one) for one in self.node_statistics()],
        )

    def _make_door(self, tls: Tls | None, request_ids: Iterator[int]) -> HttpDoor:
        return HttpDoor(
            models=self.registry,
            arena=self.arena,
            outputs=self.fleet,
            post=self._ask,
            clock=self._clock,
            statistics=self.statistics,
            identity=Identity(name="slotwise", version=__version__, epoch_ns=time.time_ns() - self._clock.now_ns()),
            limits=self.config.door,
            request_ids=request_ids,
            refused=self.refusals.note,
            late_answers=self.config.late_answers,
            tls=tls,
            grants=read_grants(Path(self.config.tokens)) if self.config.tokens else None,
            recording=Recording(tracing=self._traces.sampling if self._traces else None, logging=self._logs),
            more_routes=[json_page(STATUS_PATH, self.status), text_page(METRICS_PATH, self.metrics)],
            join_trace=self._join_trace,
        )

    def _make_gate(self, request_ids: Iterator[int]) -> LocalDoor:
        relays = Relays(access=self.door.access, regions=self.door.regions, join_trace=self._join_trace)
        return self._make_local(request_ids, gate_limits(self.config.grpc_door), relays)

    def _make_local(self, request_ids: Iterator[int], limits: LocalLimits, relays: Relays | None = None) -> LocalDoor:
        return LocalDoor(
            models=self.registry,
            arena=self.arena,
            outputs=self.fleet,
            memories=self.fleet,
            lend=SharedArena,
            post=self._ask,
            clock=self._clock,
            limits=limits,
            bounds=self.config.door.bounds(),
            request_ids=request_ids,
            refused=self.refusals.note,
            server=f"slotwise {__version__}",
            relays=relays,
            late_answers=self.config.late_answers,
        )

    def _make_relay(self, request_ids: Iterator[int]) -> Relay:
        return Relay(
            post=self._post,
            front=Fronts.of(self.door, self.gate, self.local),
            clock=self._clock,
            request_ids=request_ids,
            members=self.registry.specs,
            tensors=Tensors(self.arena, self.fleet),
            deadlines=self.config.pipeline_deadlines,
            recorders=self._request_recorders(),
        )

    def _request_recorders(self) -> list[Recorder]:
        """Those who are told of pipelines' requests as well as of those that the engine sees."""
        return [keeper for keeper in (self.statistics, self._tally, self._logs, self._traces) if keeper is not None]

    def _fail(self, failure: Exception) -> None:
        self.failure = failure
        self.stopped.set()

    def _watch_ended(self, watching: asyncio.Task[None]) -> None:
        error = None if watching.cancelled() else watching.exception()
        if isinstance(error, Exception):
            self._fail(error)

    def _post(self, event: Event) -> None:
        self.engine.post(event)

    def _ask(self, event: Event) -> None:
        self.relay.post(event)

    async def _settle(self) -> None:
        """Wait for the first loads, so that the first requests do not meet cold models."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self.config.settle_s
        is_loading = True
        while is_loading and loop.time() < end_s:
            await asyncio.sleep(SETTLE_POLL_S)
            is_loading = any(executor.loads for executor in self.controller.view.executors.values())


def _node_now(node: NodeStatistics) -> prometheus.NodeNow:
    is_up = node.state is NodeState.UP
    return prometheus.NodeNow(
        node=node.node,
        is_up=is_up,
        executors_up=node.executors_up,
        in_flight=node.in_flight,
        losses=node.losses,
        returned_too_late=node.returned_too_late,
        round_trip_ns=node.round_trip_ns if is_up else None,
        clock_error_ns=node.round_trip_ns // 2 if is_up else None,
        bytes_per_s=(node.bytes_per_s or None) if is_up else None,
        backlog_bytes=node.backlog_bytes if is_up else None,
    )


def _grpc_settings(config: Config) -> DoorSettings:
    return DoorSettings(
        host=config.host,
        port=config.grpc_port,
        upstream_idle_s=config.door.keep_alive_s / 2,
        patience_s=config.drain_s,
        tls=config.tls if config.tls.certificate else None,
        limits=config.grpc_door,
    )


def journal_header(config: Config) -> dict[str, object]:
    """What a replay needs to build the same controller."""
    return {
        "policy": config.policy,
        "settings": dict(config.policy_settings),
        "limits": config.controller,
        "config": printed(config),
    }


def controller_of(header: Mapping[str, object]) -> Controller:
    """The controller that a journal's header speaks of. Raises ConfigError or PresetError."""
    policy, settings = header.get("policy"), header.get("settings", {})
    if not isinstance(policy, str) or not isinstance(settings, dict):
        raise ConfigError("the journal's header does not say which policy with which settings made it")
    try:
        limits = msgspec.convert(header.get("limits", {}), Limits)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the limits in the journal's header: {error}") from error
    return build_controller(policy, settings=settings, limits=limits)


def simulated(
    *,
    policy: str,
    settings: Mapping[str, object],
    models: Sequence[ModelSpec],
    fleet: FleetSettings,
    seed: int,
    recorders: Sequence[Recorder] = (),
    pipeline_recorders: Sequence[Recorder] = (),
    on_reply: Callable[[Request, Reply], None] | None = None,
) -> World:
    """A system in virtual time under a policy by name. Raises PresetError."""
    controller = build_controller(policy, settings=settings)
    return World(
        controller=controller,
        models=models,
        fleet=fleet,
        seed=seed,
        recorders=recorders,
        pipeline_recorders=pipeline_recorders,
        on_reply=on_reply,
    )


def _traces(traces: Traces, clock: RealClock) -> TraceRecorder:
    if not has_library():
        raise ConfigError("traces need OpenTelemetry: pip install 'slotwise[otel]'; or leave `traces.endpoint` empty")
    return TraceRecorder(traces, otlp(traces, __version__, time.time_ns() - clock.now_ns()))


def simulated_logs(logs: Logs) -> DirectLogs:
    """The logs of a run in virtual time. Raises ConfigError."""
    return DirectLogs(check_logs(logs))


def _journal_file(config: Config) -> IO[bytes] | None:
    if not config.journal:
        return None
    try:
        return Path(config.journal).open("wb")
    except OSError as error:
        raise ConfigError(f"the journal {config.journal} cannot be written: {error.strerror}") from error
