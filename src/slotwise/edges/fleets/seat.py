"""A seat: the place of one executor, and the processes that hold it one after the other.

    EMPTY --fork--> STARTING --ready--> UP --lost--> ENDING --ended--> EMPTY, and again after a pause

The controller hears of a process when it is ready and when it is lost, once each. A lost one is killed,
and its successor is forked when it has truly gone. The pause doubles while processes do not live long.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from enum import Enum

from slotwise.edges.fleets.channel import Channel, ChannelFull
from slotwise.edges.fleets.memories import Memories
from slotwise.edges.fleets.messages import (
    ControlCommand,
    ExecutorSettings,
    ForgetCommand,
    Memory,
    MessageError,
    Ready,
    Result,
    RunDone,
    RunFailed,
    StopCommand,
    decode_result,
    encode,
)
from slotwise.edges.fleets.nursery import Nursery
from slotwise.edges.fleets.ring import RecordTooLong
from slotwise.edges.fleets.segments import Segments
from slotwise.edges.fleets.settings import CoreSlice, FleetLimits
from slotwise.edges.fleets.translate import result_event, run_command
from slotwise.engine.ports import Arena, Post
from slotwise.facts.actions import RunBatch
from slotwise.facts.events import BatchFailed, ExecutorLost, ExecutorUp
from slotwise.facts.types import ZEROS_SEGMENT, Failure
from slotwise.facts.value import value


class SeatState(Enum):
    """Where a seat stands."""

    EMPTY = "empty"
    STARTING = "starting"
    UP = "up"
    ENDING = "ending"
    CLOSED = "closed"


class Violation(Exception):
    """An executor sent what no executor sends; it is not to be trusted with anything more."""


@value
class Flight:
    """A batch at the executor: the how-manieth it was sent, and what it reads."""

    serial: int
    regions: tuple[int, ...]
    memories: tuple[int, ...]
    """Segments of clients' memory."""


@value
class Surroundings:
    """What all seats of a fleet share."""

    limits: FleetLimits
    nursery: Nursery
    segments: Segments
    memories: Memories
    arena: Arena
    arena_bytes: int
    arena_fd: int
    post: Post
    clock_offset_ns: int


class Seat:
    """One executor's place; a `nursery.Child` for the process in it."""

    def __init__(self, slice_: CoreSlice, around: Surroundings, touch: Callable[[Seat], None]) -> None:
        self.slice = slice_
        self.state = SeatState.EMPTY
        self.pid: int | None = None
        self.restarts = 0
        self.last_end = ""
        self._around = around
        self._touch = touch
        self._loop = asyncio.get_running_loop()
        self._settings = _settings(slice_, around)
        self._channel: Channel | None = None
        self._segment = 0
        self._pidfd: int | None = None
        self._serial = 0
        self._flights: dict[int, Flight] = {}
        self._told: set[int] = set()
        """Memories of clients that the process has been told of."""
        self._deaths_young = 0
        self._begun_s = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> int:
        """Batches at the executor."""
        return len(self._flights)

    @property
    def has_backlog(self) -> bool:
        """Whether commands wait for room in a ring."""
        return self._channel is not None and self._channel.has_backlog

    def begin(self) -> None:
        """Have a process forked for this empty seat."""
        assert self.state is SeatState.EMPTY, "one process at a time"
        limits = self._around.limits
        self.state = SeatState.STARTING
        self._begun_s = self._loop.time()
        self._serial = 0
        self._told.clear()
        self._channel = Channel(
            name=self.slice.executor,
            ring_bytes=limits.ring_bytes,
            outputs_bytes=limits.outputs_bytes,
            backlog_max=limits.backlog_max,
        )
        self._segment = self._around.segments.add(self._channel.outputs)
        self._loop.add_reader(self._channel.results_fd, self._read)
        self._alarm = self._loop.call_later(limits.start_s_max, self._give_up_starting)
        descriptors = self._channel.descriptors(self._around.arena_fd)
        self._around.nursery.fork_executor(self._settings, descriptors, self)

    def forked(self, pid: int, pidfd: int) -> None:
        """The process exists. It may have said already that it is ready, and it may be unwanted by now."""
        self.pid, self._pidfd = pid, pidfd
        if self.state in (SeatState.ENDING, SeatState.CLOSED):
            self.signal(signal.SIGKILL)

    def ended(self, how: str) -> None:
        """The process is gone: what it finished is posted, then its loss, and a successor follows."""
        if self.state is SeatState.UP:
            self._receive()
        self.lose(f"executor {self.slice.executor} {how}")
        self._drop_channel()
        self.last_end = how
        self.signal(signal.SIGKILL)  # an end that the zygote's own end implies may still be on its way
        if self._pidfd is not None:
            os.close(self._pidfd)
        self.pid = self._pidfd = None
        if self.state is not SeatState.CLOSED:
            self.state = SeatState.EMPTY
            self.restarts += 1
            self._alarm = self._loop.call_later(self._pause_s(), self.begin)

    def run(self, action: RunBatch) -> None:
        """Send a batch; one for an executor that is not up is ignored, for its loss is reported."""
        channel = self._channel
        if self.state is not SeatState.UP or channel is None:
            return
        regions = tuple([region for request in action.requests for region in request.regions])
        memories: tuple[int, ...] = ()
        news: tuple[Memory, ...] = ()
        if any(not request.regions or request.step_of is not None for request in action.requests):
            memories = _memories_of(action, self._around.arena.segment)
            news = self._around.memories.messages([segment for segment in memories if segment not in self._told])
        try:
            channel.commands.put(encode(run_command(action, news)))
        except RecordTooLong as error:
            message = f"the batch has too many requests or tensors: {error}"
            self._around.post(_batch_failed(action, message))
            return
        except ChannelFull as error:
            self.lose(str(error))
            return
        self._serial += 1
        for region in regions:
            self._around.arena.keep(region)
        self._around.memories.hold(memories)
        self._told.update(memories)
        self._flights[action.batch_id] = Flight(serial=self._serial, regions=regions, memories=memories)

    def stop(self, batch_id: int) -> None:
        """Stop a batch; one that is not here any more is on its way back."""
        flight = self._flights.get(batch_id)
        if flight is not None:
            self.control(StopCommand(serial=flight.serial))

    def forget(self, segment: int) -> None:
        """A client's memory will not be read from any more."""
        if segment in self._told:
            self._told.discard(segment)
            self.control(ForgetCommand(segment=segment))
            self.write_backlog()  # there may be no turn soon

    def control(self, command: ControlCommand) -> None:
        """Send what must not wait behind a running batch."""
        if self.state is SeatState.UP and self._channel is not None:
            try:
                self._channel.control.put(encode(command))
            except ChannelFull as error:
                self.lose(str(error))

    def flush(self) -> None:
        """The turn has ended: signal what was sent, give outputs back."""
        if self._channel is not None:
            self._channel.write()
            self._channel.release_outputs()

    def write_backlog(self) -> None:
        """Signal what was sent, and try once more to write what found a ring full."""
        if self._channel is not None:
            self._channel.write()

    def lose(self, message: str) -> None:
        """Report the executor lost and end it, if it was up."""
        if self.state is not SeatState.UP:
            return
        self.state = SeatState.ENDING
        self._around.post(ExecutorLost(executor=self.slice.executor, message=message))
        self._drop_channel()
        self.signal(signal.SIGKILL)

    def close(self) -> None:
        """End the process; none follows."""
        self.state = SeatState.CLOSED
        self._drop_channel()
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send the process a signal; nothing if there is none."""
        if self._pidfd is None:
            return
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return  # it has ended already, which is being reported

    def _read(self) -> None:
        if self._channel is None:
            return
        try:
            os.eventfd_read(self._channel.results_fd)
        except BlockingIOError:
            return
        self._receive()

    def _receive(self) -> None:
        channel = self._channel
        self._touch(self)
        while channel is not None and self._channel is channel:
            record = channel.get()
            if record is None:
                return
            try:
                self._take(decode_result(record), channel)
            except (MessageError, Violation) as error:
                self.lose(f"executor {self.slice.executor} cannot be trusted any more: {error}")

    def _take(self, result: Result, channel: Channel) -> None:
        if type(result) is RunDone:
            for answer in result.answers:
                for tensor in answer:
                    if not channel.is_within_outputs(tensor.offset, tensor.nbytes):
                        raise Violation(f"output {tensor.name!r} does not lie in the executor's segment")
            self._land(result.batch_id)
            channel.note_outputs(result.outputs_end)
        elif type(result) is RunFailed:
            self._land(result.batch_id)
        elif type(result) is Ready:
            self._come_up()
            return
        self._around.post(result_event(self.slice.executor, self._segment, result))

    def _land(self, batch_id: int) -> None:
        flight = self._flights.pop(batch_id, None)
        if flight is None:
            raise Violation(f"it reports batch {batch_id}, which it was not sent")
        self._release(flight)

    def _release(self, flight: Flight) -> None:
        for region in flight.regions:
            self._around.arena.release(region)
        self._around.memories.release(flight.memories)

    def _come_up(self) -> None:
        self._cancel_alarm()
        self.state = SeatState.UP
        self._around.post(
            ExecutorUp(
                executor=self.slice.executor,
                memory_bytes=self.slice.memory_bytes,
                page_bytes=self.slice.page_bytes,
            )
        )

    def _give_up_starting(self) -> None:
        self.state = SeatState.ENDING
        self._drop_channel()
        self.signal(signal.SIGKILL)

    def _drop_channel(self) -> None:
        self._cancel_alarm()
        flights, self._flights = self._flights, {}
        for flight in flights.values():
            self._release(flight)
        if self._channel is not None:
            self._loop.remove_reader(self._channel.results_fd)
            self._channel.close()
            self._channel = None
            self._around.segments.retire(self._segment)
            self._touch(self)

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _pause_s(self) -> float:
        """None for a process that had settled; doubling up to the limit for those that die young."""
        limits = self._around.limits
        if self._loop.time() - self._begun_s > limits.settled_s:
            self._deaths_young = 0
            return 0.0
        self._deaths_young += 1
        return float(min(limits.restart_s_max, limits.restart_s_min * 2 ** min(self._deaths_young - 1, 30)))


def _settings(slice_: CoreSlice, around: Surroundings) -> ExecutorSettings:
    limits = around.limits
    return ExecutorSettings(
        name=slice_.executor,
        cores=slice_.cores,
        threads=slice_.threads or len(slice_.cores) or 1,
        nice=limits.nice,
        memory_bytes=slice_.memory_bytes,
        page_bytes=slice_.page_bytes,
        ring_bytes=limits.ring_bytes,
        arena_bytes=around.arena_bytes,
        outputs_bytes=limits.outputs_bytes,
        outputs_wait_ns=limits.outputs_wait_ns,
        bind_bytes_min=limits.bind_bytes_min,
        clock_offset_ns=around.clock_offset_ns,
    )


def _memories_of(action: RunBatch, arena: int) -> tuple[int, ...]:
    """The segments of clients' memory that a batch reads from, each once."""
    found = {ref.segment: None for request in action.requests for ref in request.inputs}
    return tuple([segment for segment in found if segment not in (arena, ZEROS_SEGMENT)])


def _batch_failed(action: RunBatch, message: str) -> BatchFailed:
    return BatchFailed(executor=action.executor, batch_id=action.batch_id, failure=Failure.RUN_ERROR, message=message)
