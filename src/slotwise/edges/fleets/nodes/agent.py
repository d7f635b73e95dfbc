"""A node: a fleet of its own, ordered about by one front at a time.

The front hears of every executor that is up, sends batches with their tensors, and hears what came of them. Here
tensors are moved between frames and the node's own shared memory, weights are fetched, and nothing is decided. When
the front is gone every executor is replaced: nobody waits for what it runs, and the next front finds nothing loaded.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from slotwise.edges.fleets.messages import LoadCommand, LoadFailure, MessageError, RunFailed
from slotwise.edges.fleets.nodes.budget import TELLING_BYTES
from slotwise.edges.fleets.nodes.cargo import Cargo, ResultEvent, action_of, result_of
from slotwise.edges.fleets.nodes.fetches import Fetches
from slotwise.edges.fleets.nodes.gate import Gate
from slotwise.edges.fleets.nodes.link import Link
from slotwise.edges.fleets.nodes.messages import (
    Chunk,
    FromFront,
    Inspect,
    Inspected,
    InspectFailed,
    LoadModel,
    Lost,
    NoChunk,
    NodeResult,
    Ping,
    Pong,
    Probe,
    Received,
    Replace,
    Run,
    Stop,
    Told,
    UnloadModel,
    Up,
)
from slotwise.edges.fleets.nodes.settings import Nodes
from slotwise.edges.fleets.nodes.weights import Cache
from slotwise.edges.fleets.processes import ProcessFleet, SharedMemory
from slotwise.edges.fleets.settings import CoreSlice, FleetLimits
from slotwise.engine.ports import Clock, ModelError
from slotwise.facts.actions import Load, ReplaceExecutor, StopBatch, Unload
from slotwise.facts.events import BatchDone, Event, ExecutorLost, ExecutorUp
from slotwise.facts.profile import Profile
from slotwise.facts.types import Failure, ModelSpec
from slotwise.facts.value import value

EMULATION_FILE = "model.emulated.json"


class NodeClock(Clock, Protocol):
    """The node's clock, which its executors share."""

    offset_ns: int


@value
class NodeCounts:
    """What a node has done since its start."""

    front: str
    """Where the present front is; empty while there is none."""
    executors_up: int
    batches: int
    failures: int
    loads: int


class Executor:
    """One executor as its front knows it: which life it is in, and loads and unloads that wait for their turn."""

    def __init__(self) -> None:
        self.life = 0
        self.up: ExecutorUp | None = None
        self.orders: deque[LoadModel | UnloadModel] = deque()
        self.carrying: asyncio.Task[None] | None = None

    def end(self) -> None:
        """The process is gone, and with it what was asked of it."""
        self.up = None
        self.orders.clear()
        if self.carrying is not None:
            self.carrying.cancel()
            self.carrying = None


class Agent:
    """Hosts executors for a front; a `gate.Host`. Make it, `start` it and `close` it in one asyncio loop."""

    def __init__(
        self,
        *,
        slices: Sequence[CoreSlice],
        clock: NodeClock,
        arena: SharedMemory,
        cache: Cache,
        secret: bytes,
        limits: Nodes,
        fleet_limits: FleetLimits,
        is_emulated: bool = False,
    ) -> None:
        """`is_emulated` has every model's profile waited out instead of the model run."""
        self._specs: dict[str, ModelSpec] = {}
        self.fleet = ProcessFleet(
            slices=slices, post=self._post, clock=clock, arena=arena, specs=self._specs, limits=fleet_limits
        )
        self.clock = clock
        self._arena = arena
        self._cache = cache
        self._limits = limits
        self._is_emulated = is_emulated
        self._loop = asyncio.get_running_loop()
        self._gate = Gate(self, secret, arena.nbytes, limits)
        self._front: Link | None = None
        self._fetches: Fetches | None = None
        self._executors: dict[str, Executor] = {slice_.executor: Executor() for slice_ in slices}
        self._inspecting: set[asyncio.Task[None]] = set()
        self._has_turn = False
        self._counts: Counter[str] = Counter()

    async def start(self, host: str, port: int) -> int:
        """Bring the executors up and open the gate; the port. Raises FleetError or OSError."""
        await self.fleet.start()
        return await self._gate.open(host, port)

    async def close(self) -> None:
        """Send the front away and end every process."""
        await self._gate.close()
        await self.fleet.close()

    def counts(self) -> NodeCounts:
        """A snapshot."""
        return NodeCounts(
            front=self._front.peer if self._front is not None else "",
            executors_up=sum(executor.up is not None for executor in self._executors.values()),
            batches=self._counts["RunDone"],
            failures=self._counts["RunFailed"],
            loads=self._counts["LoadDone"],
        )

    # The gate's side

    def entered(self, link: Link) -> None:
        """A front is there: it hears of every executor that is up."""
        self._front = link
        self._fetches = Fetches(link, self._cache, self._limits)
        for name, executor in self._executors.items():
            if executor.up is not None:
                self._say_up(name, executor.life, executor.up)

    def take(self, link: Link, message: FromFront, body: memoryview) -> None:
        """Do as the front says. What is meant for a process that has died is let fall. Raises MessageError."""
        if type(message) is Ping:
            self._tell_time(link, message)
        elif type(message) is Probe or type(message) is Run:
            if len(body) >= TELLING_BYTES:
                link.send(Received(received_bytes=link.taken_bytes, at_ns=self.clock.now_ns()))
            if type(message) is Run and self._is_alive(message.executor, message.life):
                self._run(message, body)
        elif type(message) is Chunk or type(message) is NoChunk:
            assert self._fetches is not None, "the front is there"
            self._fetches.take(message, body)
        elif type(message) is Inspect:
            self._start_inspection(link, message)
        else:
            self._order(message)
        self._end_turn_soon()

    def left(self, why: str) -> None:
        """The front is gone: what runs is stopped and what is loaded is given up, by new processes."""
        self._front = None
        if self._fetches is not None:
            self._fetches.close()
            self._fetches = None
        for task in self._inspecting:
            task.cancel()
        for name, executor in self._executors.items():
            if executor.up is not None:
                self.fleet.send(ReplaceExecutor(executor=name, message=f"the front is gone: {why}"))
        self._specs.clear()
        self._end_turn_soon()

    # What the front says

    def _tell_time(self, link: Link, ping: Ping) -> None:
        now_ns = self.clock.now_ns()
        link.send(
            Pong(
                sent_ns=ping.sent_ns,
                received_ns=now_ns,
                returned_ns=self.clock.now_ns(),
                received_bytes=link.taken_bytes,
            )
        )

    def _order(self, message: FromFront) -> None:
        if type(message) is Stop:
            if self._is_alive(message.executor, message.life):
                self.fleet.send(StopBatch(executor=message.executor, batch_id=message.batch_id))
        elif type(message) is Replace:
            if self._is_alive(message.executor, message.life):
                self.fleet.send(ReplaceExecutor(executor=message.executor, message=message.message))
        elif type(message) is LoadModel or type(message) is UnloadModel:
            if self._is_alive(message.executor, message.life):
                self._queue(self._executors[message.executor], message)
        else:
            raise MessageError("a front proves once that it knows the secret")

    def _is_alive(self, name: str, life: int) -> bool:
        executor = self._executors.get(name)
        return executor is not None and executor.up is not None and executor.life == life

    def _run(self, message: Run, body: memoryview) -> None:
        nbytes = len(body)
        region = self._arena.allocate(nbytes)
        if region is None:
            self._tell(message.executor, message.life, _no_room(message.command.batch_id, self.clock.now_ns()))
            return
        self._arena.view(region, nbytes)[:] = body
        try:
            self.fleet.send(action_of(message, region, nbytes))
        finally:
            self._arena.release(region)  # the fleet holds it until the batch is back

    def _queue(self, executor: Executor, message: LoadModel | UnloadModel) -> None:
        """Loads and unloads are carried out in the order sent, though some have to wait for their weights."""
        executor.orders.append(message)
        if executor.carrying is None:
            executor.carrying = asyncio.create_task(self._carry_out(executor))

    async def _carry_out(self, executor: Executor) -> None:
        while executor.orders:
            order = executor.orders[0]
            if type(order) is LoadModel:
                await self._load(order)
            else:
                self.fleet.send(
                    Unload(executor=order.executor, model=order.command.model, load_id=order.command.load_id)
                )
            executor.orders.popleft()
            self._end_turn_soon()
        executor.carrying = None

    async def _load(self, order: LoadModel) -> None:
        command = order.command
        try:
            path = await self._find(order)
        except TimeoutError:
            message = f"its weights did not come within {self._limits.fetch_s_max:g} s; they go on coming"
            self._tell(order.executor, order.life, _load_failure(command, Failure.TOO_LATE, message))
        except (ModelError, OSError) as error:
            await asyncio.sleep(self._limits.retry_s_max)  # whoever is told may ask for the same again at once
            self._tell(order.executor, order.life, _load_failure(command, Failure.CHANGED, str(error)))
        else:
            self._specs[command.model] = _spec(command, path)
            self.fleet.send(
                Load(
                    executor=order.executor,
                    model=command.model,
                    load_id=command.load_id,
                    earliest_ns=command.earliest_ns,
                    latest_ns=command.latest_ns,
                )
            )

    async def _find(self, order: LoadModel) -> Path:
        """The file to load, or that of its emulation. Raises ModelError, TimeoutError or OSError."""
        if self._is_emulated:
            return self._cache.put(hashlib.sha256(order.emulation).hexdigest(), EMULATION_FILE, order.emulation)
        assert self._fetches is not None, "the front is there"
        return await self._fetches.get(order.weights, self._limits.fetch_s_max)

    def _start_inspection(self, link: Link, message: Inspect) -> None:
        task = asyncio.create_task(self._inspect(link, message))
        self._inspecting.add(task)
        task.add_done_callback(self._inspecting.discard)

    async def _inspect(self, link: Link, message: Inspect) -> None:
        assert self._fetches is not None, "the front is there"
        try:
            path = await self._fetches.get(message.weights, self._limits.fetch_s_max)
            inspection = await self.fleet.inspect(str(path), message.batch_max, message.shapes)
        except (ModelError, OSError, TimeoutError) as error:
            text = str(error) or f"its weights did not come within {self._limits.fetch_s_max:g} s"
            link.send(InspectFailed(ticket=message.ticket, text=text))
        else:
            link.send(Inspected(ticket=message.ticket, inspection=inspection))

    # What the fleet says

    def _post(self, event: Event) -> None:
        executor = self._executors[event.executor]  # type: ignore[union-attr]  # a fleet speaks of its executors
        if type(event) is ExecutorUp:
            executor.life += 1
            executor.up = event
            self._say_up(event.executor, executor.life, event)
        elif type(event) is ExecutorLost:
            executor.end()
            if self._front is not None:
                self._front.send(Lost(executor=event.executor, life=executor.life, message=event.message))
        else:
            self._report(executor.life, event)  # type: ignore[arg-type]  # all else is what came of an action
        self._end_turn_soon()

    def _say_up(self, name: str, life: int, event: ExecutorUp) -> None:
        if self._front is not None:
            self._front.send(Up(executor=name, life=life, memory_bytes=event.memory_bytes, page_bytes=event.page_bytes))

    def _report(self, life: int, event: ResultEvent) -> None:
        cargo = Cargo()
        result = result_of(event, cargo, self.fleet.read)
        if type(event) is BatchDone and cargo.nbytes > self._limits.frame_bytes_max:
            result, cargo = _too_large(event, cargo.nbytes, self._limits.frame_bytes_max), Cargo()
        self._tell(event.executor, life, result, cargo)

    def _tell(self, executor: str, life: int, result: NodeResult, cargo: Cargo | None = None) -> None:
        self._counts[type(result).__name__] += 1
        if self._front is not None:
            told = Told(executor=executor, life=life, result=result)
            self._front.send(told, cargo.parts if cargo else ())

    def _end_turn_soon(self) -> None:
        """Signal executors, and give their outputs back, once what runs now has ended."""
        if not self._has_turn:
            self._has_turn = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._has_turn = False
        self.fleet.flush()


def _spec(command: LoadCommand, path: Path) -> ModelSpec:
    """What the node's fleet needs to know of a model: its file, and what it is booked with."""
    profile = Profile(rows=(1,), run_ns=(1,), load_ns=0, memory_bytes=command.memory_bytes)
    return ModelSpec(
        id=command.model,
        name=command.model,
        version="",
        profile=profile,
        slo_ns=1,
        path=str(path),
        batchable=command.batchable,
    )


def _no_room(batch_id: int, now_ns: int) -> RunFailed:
    message = "the node's arena has no room for its inputs"
    return RunFailed(batch_id=batch_id, failure=Failure.TOO_LATE, message=message, started_ns=now_ns, ended_ns=now_ns)


def _too_large(done: BatchDone, nbytes: int, limit: int) -> RunFailed:
    return RunFailed(
        batch_id=done.batch_id,
        failure=Failure.RUN_ERROR,
        message=f"its outputs have {nbytes} bytes; `frame_bytes_max` is {limit}",
        started_ns=done.started_ns,
        ended_ns=done.ended_ns,
    )


def _load_failure(command: LoadCommand, failure: Failure, message: str) -> LoadFailure:
    return LoadFailure(model=command.model, load_id=command.load_id, failure=failure, message=message)
