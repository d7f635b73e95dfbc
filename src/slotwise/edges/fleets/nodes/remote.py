"""The front's end of one node: sends it actions, and posts what it says as events.

Executors are announced once the node's clock is known, and reported lost, each of them, when the connection is.
Instants are translated on this side, both ways. A batch whose inputs cannot be there before its window closes is
returned at once instead of being sent, so that nothing piles up before a slow link.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from slotwise.edges.fleets.messages import LoadDone, MessageError, RunDone, RunFailed, UnloadCommand
from slotwise.edges.fleets.nodes.caller import Caller, NodeState
from slotwise.edges.fleets.nodes.cargo import Cargo, Read, command_of, inputs_nbytes
from slotwise.edges.fleets.nodes.clock import Order
from slotwise.edges.fleets.nodes.messages import (
    Chunk,
    FromNode,
    Inspect,
    Inspected,
    InspectFailed,
    LoadModel,
    Lost,
    NoChunk,
    NodeResult,
    Replace,
    Run,
    Stop,
    Told,
    UnloadModel,
    Up,
    Want,
)
from slotwise.edges.fleets.nodes.settings import Address, Nodes
from slotwise.edges.fleets.nodes.weights import Library
from slotwise.edges.fleets.segments import Segments
from slotwise.edges.fleets.translate import load_command, result_event
from slotwise.engine.ports import Clock, FleetAction, Inspection, ModelError, Post
from slotwise.facts.actions import Load, ReplaceExecutor, RunBatch, StopBatch, Unload
from slotwise.facts.events import BatchFailed, ExecutorLost, ExecutorUp, LoadFailed
from slotwise.facts.profile import Profile
from slotwise.facts.types import Failure, ModelSpec, TensorSpec
from slotwise.facts.value import value


@value
class NodeStatistics:
    """One node as it stands. `last_end` says why it was lost, or not reached, the last time."""

    node: str
    address: str
    state: NodeState
    executors_up: int
    in_flight: int
    losses: int
    last_end: str
    clock_ahead_ns: int
    """What its clock is ahead of the engine's, as estimated."""
    round_trip_ns: int
    bytes_per_s: float
    """What the link carries towards it, as estimated; 0 while nothing is known."""
    backlog_bytes: int
    returned_too_late: int
    """Batches that were not sent, because they would have come too late or the backlog is at its limit."""


class Emulation(msgspec.Struct):
    """The file of a model's emulation."""

    profile: Profile
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool


class Place:
    """One executor of the node that is up."""

    __slots__ = ("is_announced", "order", "up")

    def __init__(self, up: Up) -> None:
        self.up = up
        self.is_announced = False
        self.order = Order()


@value
class Flight:
    """A batch at the node: the executor there, and when it may begin."""

    executor: str
    earliest_ns: int


class RemoteNode:
    """One node; a `caller.Host`. Its executors are called by the node's name for them behind `prefix`."""

    def __init__(
        self,
        *,
        address: Address,
        prefix: str,
        secret: bytes,
        limits: Nodes,
        post: Post,
        clock: Clock,
        read: Read,
        specs: Mapping[str, ModelSpec],
        segments: Segments,
        library: Library,
    ) -> None:
        self.name = address.name
        self._address = address
        self._prefix = prefix
        self._limits = limits
        self._post = post
        self._clock = clock
        self._read = read
        self._specs = specs
        self._segments = segments
        self._library = library
        self._caller = Caller(self, address, secret, limits, clock)
        self._places: dict[str, Place] = {}
        self._flights: dict[int, Flight] = {}
        self._inspections: dict[int, asyncio.Future[Inspection]] = {}
        self._first_up = asyncio.Event()
        self._tickets = 0
        self._returned = 0
        self._orders: asyncio.Queue[Load | Unload] = asyncio.Queue()
        self._wants: asyncio.Queue[Want] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_up(self) -> bool:
        """Whether the node can be used."""
        return self._caller.state is NodeState.UP

    async def wait_until_up(self) -> None:
        """Wait for the node to be used for the first time."""
        await self._first_up.wait()

    def start(self) -> None:
        """Begin to call the node."""
        self._caller.begin()

    async def close(self) -> None:
        """Hang up."""
        await self._caller.close()

    def send(self, action: FleetAction) -> None:
        """Hand an action to its executor. One that is gone ignores it and is, or has been, reported lost."""
        name = action.executor.removeprefix(self._prefix)
        place = self._places.get(name)
        if place is None or not self.is_up:
            return
        life = place.up.life
        if type(action) is RunBatch:
            self._run(action, name, life)
        elif type(action) is StopBatch:
            self._caller.send(Stop(executor=name, life=life, batch_id=action.batch_id))
        elif type(action) is Load or type(action) is Unload:
            self._orders.put_nowait(action)
        elif type(action) is ReplaceExecutor:
            self._caller.send(Replace(executor=name, life=life, message=action.message))

    async def inspect(self, path: str, batch_max: int, shapes: Mapping[str, tuple[int, ...]]) -> Inspection:
        """Have the node load and measure a model, apart from its executors. Raises ModelError."""
        weights = await self._library.weights(path)
        if not self.is_up:
            raise ModelError(f"node {self.name} is not there to measure the model")
        self._tickets += 1
        ticket = self._tickets
        future: asyncio.Future[Inspection] = asyncio.get_running_loop().create_future()
        self._inspections[ticket] = future
        self._caller.send(Inspect(ticket=ticket, weights=weights, batch_max=batch_max, shapes=dict(shapes)))
        try:
            return await future
        finally:
            self._inspections.pop(ticket, None)

    def statistics(self) -> NodeStatistics:
        """A snapshot."""
        caller = self._caller
        return NodeStatistics(
            node=self.name,
            address=f"{self._address.host}:{self._address.port}",
            state=caller.state,
            executors_up=len(self._places) if self.is_up else 0,
            in_flight=len(self._flights),
            losses=caller.losses,
            last_end=caller.last_end if not self.is_up or caller.losses else "",
            clock_ahead_ns=caller.estimate.ahead_ns,
            round_trip_ns=caller.estimate.round_trip_ns,
            bytes_per_s=caller.budget.bytes_per_s,
            backlog_bytes=caller.budget.backlog_bytes,
            returned_too_late=self._returned,
        )

    def executors(self) -> dict[str, int]:
        """The executors that are up, by their full names, and how many batches are at each."""
        counts = dict.fromkeys(self._places, 0) if self.is_up else {}
        for flight in self._flights.values():
            counts[flight.executor] += 1
        return {f"{self._prefix}{name}": count for name, count in counts.items()}

    # The caller's side

    def entered(self) -> None:
        """The node is up, and so are those executors that have said so."""
        self._first_up.set()
        self._tasks = [asyncio.create_task(self._carry_orders()), asyncio.create_task(self._serve_wants())]
        for place in self._places.values():
            self._announce(place)

    def take(self, message: FromNode, body: memoryview) -> None:
        """The node says something. Raises MessageError."""
        match message:
            case Told():
                self._take_result(message, body)
            case Up():
                place = self._places[message.executor] = Place(message)
                if self.is_up:
                    self._announce(place)
            case Lost():
                self._lose(message.executor, message.message)
            case Want():
                self._wants.put_nowait(message)
            case Inspected() | InspectFailed():
                self._end_inspection(message)
            case _:
                raise MessageError(f"a node that has been met does not say {type(message).__name__}")

    def left(self, why: str) -> None:
        """The node is lost, and with it every executor."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self._orders, self._wants = asyncio.Queue(), asyncio.Queue()
        for name in list(self._places):
            self._lose(name, f"node {self.name} was lost: {why}")
        for future in self._inspections.values():
            if not future.done():
                future.set_exception(ModelError(f"node {self.name} was lost while it measured the model: {why}"))

    # Actions

    def _run(self, action: RunBatch, name: str, life: int) -> None:
        limits, caller = self._limits, self._caller
        nbytes = inputs_nbytes(action)
        if nbytes > min(limits.frame_bytes_max, caller.arena_bytes):
            text = f"`frame_bytes_max` of the nodes is {limits.frame_bytes_max}, the node's arena {caller.arena_bytes}"
            self._return(action, Failure.RUN_ERROR, f"the batch's inputs have {nbytes} bytes; {text}")
            return
        now_ns = self._clock.now_ns()
        there_ns = caller.budget.arrives_ns(nbytes, now_ns, caller.way_ns)
        backlog_bytes = caller.budget.backlog_bytes
        is_full = backlog_bytes > 0 and backlog_bytes + nbytes > limits.backlog_bytes_max
        if there_ns > action.latest_ns or is_full:
            self._returned += 1
            caller.wants_probe = True  # the link may be faster by now, and nothing that is not sent would show it
            self._return(action, Failure.TOO_LATE, f"its inputs cannot be at node {self.name} in time", there_ns)
            return
        cargo = Cargo()
        command = command_of(action, cargo, self._read, caller.estimate.there)
        caller.send(Run(executor=name, life=life, command=command), cargo.parts)
        self._flights[action.batch_id] = Flight(executor=name, earliest_ns=action.earliest_ns)

    def _return(self, action: RunBatch, failure: Failure, message: str, ended_ns: int = 0) -> None:
        """Return a batch that was not sent; `ended_ns` is when it would have been there."""
        self._post(
            BatchFailed(
                executor=action.executor,
                batch_id=action.batch_id,
                failure=failure,
                message=message,
                started_ns=ended_ns,
                ended_ns=ended_ns,
            )
        )

    async def _carry_orders(self) -> None:
        """Send loads and unloads, in order; what a model consists of may have to be found out first."""
        while True:
            order = await self._orders.get()
            place = self._places.get(order.executor.removeprefix(self._prefix))
            if place is None:
                continue
            if type(order) is Load:
                await self._load(order, place.up)
            else:
                command = UnloadCommand(model=order.model, load_id=order.load_id)
                self._caller.send(UnloadModel(executor=place.up.executor, life=place.up.life, command=command))

    async def _load(self, action: Load, up: Up) -> None:
        spec = self._specs.get(action.model)
        if spec is None:
            self._fail_load(action, Failure.BAD_MODEL, f"{action.model} is not known any more")
            return
        try:
            weights = await self._library.weights(spec.path)
        except ModelError as error:
            # Whoever is told may ask for the same again at once.
            pause_s = self._limits.retry_s_max
            asyncio.get_running_loop().call_later(pause_s, self._fail_load, action, Failure.CHANGED, str(error))
            return
        caller = self._caller
        command = msgspec.structs.replace(
            load_command(action, spec),
            path="",
            earliest_ns=caller.estimate.there(action.earliest_ns),
            latest_ns=caller.estimate.there(action.latest_ns),
        )
        emulation = msgspec.json.encode(Emulation(spec.profile, spec.inputs, spec.outputs, spec.batchable))
        caller.send(
            LoadModel(executor=up.executor, life=up.life, command=command, weights=weights, emulation=emulation)
        )

    def _fail_load(self, action: Load, failure: Failure, message: str) -> None:
        self._post(
            LoadFailed(
                executor=action.executor,
                model=action.model,
                load_id=action.load_id,
                failure=failure,
                message=message,
            )
        )

    async def _serve_wants(self) -> None:
        """Send the pieces of files that the node asks for."""
        while True:
            want = await self._wants.get()
            try:
                piece = await self._library.read(want.sha256, want.offset, min(want.nbytes, self._limits.chunk_bytes))
            except ModelError as error:
                self._caller.send(NoChunk(sha256=want.sha256, text=str(error)))
            else:
                self._caller.send(Chunk(sha256=want.sha256, offset=want.offset), (piece,))

    # Events

    def _announce(self, place: Place) -> None:
        up = place.up
        place.is_announced = True
        self._post(
            ExecutorUp(
                executor=f"{self._prefix}{up.executor}",
                memory_bytes=up.memory_bytes,
                page_bytes=up.page_bytes,
                way_ns=max(1, self._caller.estimate.round_trip_ns),
            )
        )

    def _lose(self, name: str, message: str) -> None:
        place = self._places.pop(name, None)
        if place is None or not place.is_announced or self._caller.state is NodeState.CLOSED:
            return
        self._flights = {key: flight for key, flight in self._flights.items() if flight.executor != name}
        self._post(ExecutorLost(executor=f"{self._prefix}{name}", message=message))

    def _take_result(self, told: Told, body: memoryview) -> None:
        place = self._places.get(told.executor)
        if place is None or place.up.life != told.life:
            return
        result = self._translate(told.result, place)
        if result is None:
            return
        segment = 0
        if type(result) is RunDone and len(body):
            _check(result, len(body))
            segment = self._segments.add(body)
            self._segments.retire(segment)  # it is read in the turn that follows
        self._post(result_event(f"{self._prefix}{told.executor}", segment, result))

    def _translate(self, result: NodeResult, place: Place) -> NodeResult | None:
        """A result with this side's instants; None for a batch that is not under way."""
        estimate, now_ns = self._caller.estimate, self._clock.now_ns()
        if type(result) is RunDone or type(result) is RunFailed:
            flight = self._flights.pop(result.batch_id, None)
            if flight is None:
                return None
            started_ns, ended_ns = place.order.place(
                estimate.here(result.started_ns), estimate.here(result.ended_ns), flight.earliest_ns, now_ns
            )
            return msgspec.structs.replace(result, started_ns=started_ns, ended_ns=ended_ns)
        if type(result) is LoadDone:
            ended_ns = min(estimate.here(result.ended_ns), now_ns)
            started_ns = min(estimate.here(result.started_ns), ended_ns)
            return msgspec.structs.replace(result, started_ns=started_ns, ended_ns=ended_ns)
        return result

    def _end_inspection(self, message: Inspected | InspectFailed) -> None:
        future = self._inspections.get(message.ticket)
        if future is None or future.done():
            return
        if type(message) is InspectFailed:
            future.set_exception(ModelError(message.text))
        elif type(message) is Inspected:
            future.set_result(message.inspection)


def _check(result: RunDone, nbytes: int) -> None:
    """Raise MessageError unless all outputs lie in the body that brought them."""
    for answer in result.answers:
        for tensor in answer:
            if not 0 <= tensor.offset <= tensor.offset + tensor.nbytes <= nbytes:
                raise MessageError(f"output {tensor.name!r} does not lie in the frame that brought it")
