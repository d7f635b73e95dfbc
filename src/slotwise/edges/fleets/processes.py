"""A fleet of processes on this machine: the engine's `Fleet`, `Outputs` and `Inspector` for a live asyncio loop.

Everything happens in the loop's own thread. Actions are written to shared memory as they come and each
executor is signalled once a turn; results wake the loop through a descriptor and are posted as events.

    processes   the ports, and the seats by name            seat        one executor's place, its life and death
    channel     rings, signals and outputs of a process     nursery     the zygote, which forks and reaps
    segments    where outputs are read                      inspections models tried in processes of their own
    memories    clients' memory, read where it lies
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from slotwise.edges.fleets.inspections import Inspections
from slotwise.edges.fleets.memories import Memories
from slotwise.edges.fleets.messages import UnloadCommand
from slotwise.edges.fleets.nursery import Nursery
from slotwise.edges.fleets.seat import Seat, SeatState, Surroundings
from slotwise.edges.fleets.segments import Segments
from slotwise.edges.fleets.settings import CoreSlice, FleetLimits
from slotwise.edges.fleets.translate import load_command
from slotwise.engine.ports import NO_SHAPES, Arena, FleetAction, Inspection, Post
from slotwise.facts.actions import Load, ReplaceExecutor, RunBatch, StopBatch, Unload
from slotwise.facts.events import LoadFailed
from slotwise.facts.types import Failure, ModelSpec
from slotwise.facts.value import value

BACKLOG_POLL_S = 0.001
"""How often commands that found a ring full are tried again."""
START_POLL_S = 0.002
NO_OTHERS: Mapping[str, int | None] = MappingProxyType({})


class FleetError(RuntimeError):
    """The fleet cannot start; the text says which executor, and why."""


class MachineClock(Protocol):
    """The engine's clock, as far as it is shared with executors."""

    offset_ns: int


class SharedMemory(Arena, Protocol):
    """An arena that other processes can map."""

    @property
    def fd(self) -> int:
        """The memory's descriptor."""

    @property
    def nbytes(self) -> int:
        """The memory's size."""


@value
class ExecutorStatistics:
    """One executor as it stands. `last_end` says how the process before it ended."""

    executor: str
    state: SeatState
    pid: int | None
    restarts: int
    in_flight: int
    last_end: str


@value
class FleetStatistics:
    """The fleet as it stands."""

    executors: tuple[ExecutorStatistics, ...]
    zygote_pid: int | None
    zygote_restarts: int
    inspector_pid: int | None


class ProcessFleet:
    """Executors as processes. Make it, `start` it and `close` it in the engine's loop."""

    def __init__(
        self,
        *,
        slices: Sequence[CoreSlice],
        post: Post,
        clock: MachineClock,
        arena: SharedMemory,
        specs: Mapping[str, ModelSpec],
        limits: FleetLimits = FleetLimits(),  # noqa: B008  # a value that nobody changes
        segments: Segments | None = None,
    ) -> None:
        """`segments` is given where outputs of other fleets are read beside those of this one."""
        assert slices, "a fleet has one slice at least"
        assert len({slice_.executor for slice_ in slices}) == len(slices), "executors have different names"
        self._slices = tuple(slices)
        self._post = post
        self._clock = clock
        self._arena = arena
        self._specs = specs
        self._limits = limits
        self._segments = Segments(arena.view(0, arena.nbytes)) if segments is None else segments
        self.read = self._segments.read
        self._memories = Memories(self._segments, self._forget_memory)
        self.share = self._memories.share
        self.unshare = self._memories.unshare
        self._seats: dict[str, Seat] = {}
        self._touched: dict[Seat, None] = {}
        self._loop: asyncio.AbstractEventLoop
        self._nursery: Nursery | None = None
        self._inspections: Inspections | None = None
        self._arena_fd: int | None = None
        self._backlog_alarm: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Start the zygote and every executor. Raises FleetError, and then nothing is left running."""
        limits = self._limits
        self._loop = asyncio.get_running_loop()
        self._nursery = Nursery(restart_s=limits.restart_s_min, answer_s_max=limits.zygote_answer_s_max)
        self._inspections = Inspections(self._nursery, self._slices[0], limits)
        self._arena_fd = os.open(f"/proc/self/fd/{self._arena.fd}", os.O_RDONLY | os.O_CLOEXEC)
        around = Surroundings(
            limits=limits,
            nursery=self._nursery,
            segments=self._segments,
            memories=self._memories,
            arena=self._arena,
            arena_bytes=self._arena.nbytes,
            arena_fd=self._arena_fd,
            post=self._post,
            clock_offset_ns=self._clock.offset_ns,
        )
        self._nursery.start()
        self._seats = {slice_.executor: Seat(slice_, around, self._touch) for slice_ in self._slices}
        for seat in self._seats.values():
            seat.begin()
        await self._wait_until_up()

    async def close(self) -> None:
        """End every process and give back all descriptors and memory but the arena's."""
        for seat in self._seats.values():
            seat.close()
        if self._backlog_alarm is not None:
            self._backlog_alarm.cancel()
        if self._nursery is not None and self._inspections is not None:
            self._inspections.close()
            await self._nursery.wait_until_childless(self._limits.close_s_max)
            await self._nursery.close()
        if self._arena_fd is not None:
            os.close(self._arena_fd)
            self._arena_fd = None
        self._touched.clear()
        self._segments.forget_retired()
        self._segments.close()
        self._memories.close()

    def send(self, action: FleetAction) -> None:
        """Hand an action to its executor. An executor that is gone ignores it and is reported lost."""
        seat = self._seats.get(action.executor)
        if seat is None:
            return
        self._touched[seat] = None
        if type(action) is RunBatch:
            seat.run(action)
        elif type(action) is StopBatch:
            seat.stop(action.batch_id)
        elif type(action) is Load:
            self._load(seat, action)
        elif type(action) is Unload:
            seat.control(UnloadCommand(model=action.model, load_id=action.load_id))
        elif type(action) is ReplaceExecutor:
            seat.lose(action.message)

    def flush(self) -> None:
        """The turn has ended: signal every executor that was sent something, give back the outputs it replied with."""
        has_backlog = False
        for seat in self._touched:
            seat.flush()
            has_backlog = has_backlog or seat.has_backlog
        self._touched.clear()
        self._segments.forget_retired()
        if has_backlog:
            self._poll_backlog()

    async def inspect(
        self, path: str, batch_max: int, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES, pack_into: str = ""
    ) -> Inspection:
        """Load, warm up and measure a model apart from the executors. Raises ModelError.

        `shapes` gives inputs with dimensions that vary, beside the batch, the shape of an example.
        """
        assert self._inspections is not None, "start the fleet first"
        return await self._inspections.inspect(path, batch_max, shapes, pack_into)

    def kill(self, executor: str, number: int = signal.SIGKILL) -> None:
        """Send an executor's process a signal, as a fault would: for trials of what happens then."""
        self._seats[executor].signal(number)

    def statistics(self) -> FleetStatistics:
        """A snapshot."""
        return FleetStatistics(
            executors=tuple(_executor_statistics(seat) for seat in self._seats.values()),
            zygote_pid=self._nursery.pid if self._nursery else None,
            zygote_restarts=self._nursery.restarts if self._nursery else 0,
            inspector_pid=self._inspections.pid if self._inspections else None,
        )

    def memory_bytes(self, others: Mapping[str, int | None] = NO_OTHERS) -> dict[str, int]:
        """What this process (`front`), the zygote and each executor take of memory, shared pages in proportion (PSS).

        So do `others`, by name. Takes about a millisecond a process, so ask seldom. A process that is just ending is
        left out.
        """
        pids = {**others} | {seat.slice.executor: seat.pid for seat in self._seats.values()}
        pids["zygote"] = self._nursery.pid if self._nursery else None
        pids["front"] = os.getpid()
        return measured(pids)

    def _forget_memory(self, segment: int) -> None:
        for seat in self._seats.values():
            seat.forget(segment)

    def _touch(self, seat: Seat) -> None:
        self._touched[seat] = None

    def _load(self, seat: Seat, action: Load) -> None:
        spec = self._specs.get(action.model)
        if spec is not None:
            seat.control(load_command(action, spec))
            return
        self._post(
            LoadFailed(
                executor=action.executor,
                model=action.model,
                load_id=action.load_id,
                failure=Failure.BAD_MODEL,
                message=f"{action.model} is not known any more",
            )
        )

    def _poll_backlog(self) -> None:
        """An executor that makes room does not say so: look again until every record is in its ring."""
        if self._backlog_alarm is not None:
            self._backlog_alarm.cancel()
            self._backlog_alarm = None
        waiting = [seat for seat in self._seats.values() if seat.has_backlog]
        for seat in waiting:
            seat.write_backlog()
        if any(seat.has_backlog for seat in waiting):
            self._backlog_alarm = self._loop.call_later(BACKLOG_POLL_S, self._poll_backlog)

    async def _wait_until_up(self) -> None:
        end_s = self._loop.time() + self._limits.start_s_max
        while not all(seat.state is SeatState.UP for seat in self._seats.values()):
            await asyncio.sleep(START_POLL_S)
            if asyncio.get_running_loop().time() > end_s:
                missing = [
                    f"{seat.slice.executor} ({seat.last_end or 'no sign of life'})"
                    for seat in self._seats.values()
                    if seat.state is not SeatState.UP
                ]
                await self.close()
                raise FleetError(
                    f"executors did not come up within {self._limits.start_s_max:g} s: {', '.join(missing)};"
                    " see what they wrote to standard error, and whether their cores exist"
                )


def _executor_statistics(seat: Seat) -> ExecutorStatistics:
    return ExecutorStatistics(
        executor=seat.slice.executor,
        state=seat.state,
        pid=seat.pid,
        restarts=seat.restarts,
        in_flight=seat.in_flight,
        last_end=seat.last_end,
    )


def measured(pids: Mapping[str, int | None]) -> dict[str, int]:
    """What each of these processes takes of memory, by name; those that are gone are left out."""
    found = {name: _pss_bytes(pid) for name, pid in pids.items() if pid is not None}
    return {name: nbytes for name, nbytes in found.items() if nbytes is not None}


def _pss_bytes(pid: int) -> int | None:
    """A process's proportional share of memory; None if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)
