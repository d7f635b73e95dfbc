"""The rules of execution, and the process's threads.

Batches run in the order sent, never two at once, never before `earliest_ns` and never when `latest_ns` has
passed; a batch whose model was unloaded or replaced while it ran is void. Nothing here chooses.

Three threads. The main thread alone carries a batch from the commands ring to the results ring. The
control thread reads what must not wait behind a running batch: it stops batches and hands loads on. The
loader keeps the memory books and makes models ready, so that loading one overlaps running another.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Sequence

from slotwise.edges.fleets.messages import (
    TEXT_LENGTH_MAX,
    ExecutorSettings,
    ForgetCommand,
    Message,
    Ready,
    RunCommand,
    RunDone,
    RunFailed,
    StopCommand,
    decode_control,
    decode_run,
    encode,
)
from slotwise.edges.fleets.ring import ChannelMemory, RecordTooLong, Ring
from slotwise.edges.runtimes import Model, RunError, Stopped
from slotwise.edges.runtimes.tensors import TensorError
from slotwise.edges.slices import cores
from slotwise.edges.store.files import map_memory
from slotwise.facts.types import Failure
from slotwise.worker.batches import Batches, InputSegments, OutputSegment
from slotwise.worker.shelf import Instance, Shelf

SPIN_NS = 150_000
"""The last part of waiting for `earliest_ns` is spun, because a sleep may end about this much late."""
FULL_PAUSE_S = 50e-6
"""How often a full results ring is tried again."""
EXIT_CRASHED = 70


def run_executor(settings: ExecutorSettings, fds: Sequence[int]) -> None:
    """Be an executor until killed. `fds`: channel, outputs, arena, then events of commands, control, results."""
    channel_fd, outputs_fd, arena_fd, commands_fd, control_fd, results_fd = fds
    cores.enter(settings.cores, settings.nice)
    channel_bytes = ChannelMemory.size_bytes(settings.ring_bytes)
    channel = ChannelMemory(map_memory(channel_fd, channel_bytes, writable=True), settings.ring_bytes)
    reports = Reports(channel.results, results_fd)
    stops = Stops()
    shelf = Shelf(settings, reports.put)
    outputs = OutputSegment(map_memory(outputs_fd, settings.outputs_bytes, writable=True), channel, settings)
    inputs = InputSegments(map_memory(arena_fd, settings.arena_bytes, writable=False))
    batches = Batches(inputs, outputs, settings.bind_bytes_min)
    threading.excepthook = _crash
    control = Control(channel.control, control_fd, shelf, stops, inputs)
    for name, target in (("loader", shelf.run), ("control", control.run)):
        threading.Thread(target=target, name=name, daemon=True).start()
    reports.put(Ready())
    Executor(channel.commands, commands_fd, shelf, stops, batches, reports, settings.clock_offset_ns).run()


def _crash(arguments: threading.ExceptHookArgs) -> None:
    """A thread that dies takes the process with it: the fleet then starts a whole executor again."""
    traceback.print_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    os._exit(EXIT_CRASHED)


class Reports:
    """The results ring. Any thread may put; a full ring is waited for, since the front empties it all the time."""

    def __init__(self, ring: Ring, fd: int) -> None:
        self._ring = ring
        self._fd = fd
        self._lock = threading.Lock()

    def put(self, message: Message) -> None:
        """Send a message. Raises RecordTooLong, and then nothing was sent."""
        record = encode(message)
        with self._lock:
            while not self._ring.put(record):
                time.sleep(FULL_PAUSE_S)
        os.eventfd_write(self._fd, 1)


class Stops:
    """Which batches are to be stopped, by serial. The control thread asks, the main thread heeds.

    The lock makes sure that a stop meets the batch it was meant for, whatever the main thread is about.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._wanted: set[int] = set()
        self._ended = 0
        self._running: Model | None = None

    def stop(self, serial: int) -> None:
        """Stop a batch that runs, or have it stopped when it is reached; nothing if it has ended."""
        with self._lock:
            if serial <= self._ended:
                return
            self._wanted.add(serial)
            if self._running is not None and serial == self._ended + 1:
                self._running.stop()
            self._woken.set()

    def is_wanted(self, serial: int) -> bool:
        """Whether a batch is to be stopped."""
        return serial in self._wanted

    def wait(self, timeout_s: float) -> None:
        """Sleep, at most until the next stop."""
        self._woken.wait(timeout_s)
        self._woken.clear()

    def begin(self, serial: int, model: Model) -> bool:
        """The batch is about to run; False if it is to be stopped instead."""
        with self._lock:
            if serial in self._wanted:
                return False
            model.arm()
            self._running = model
            return True

    def end(self, serial: int) -> None:
        """The batch is over; stops for it come too late."""
        with self._lock:
            self._running = None
            self._ended = serial
            self._wanted.discard(serial)


class Control:
    """The control thread."""

    def __init__(self, ring: Ring, fd: int, shelf: Shelf, stops: Stops, inputs: InputSegments) -> None:
        self._ring = ring
        self._fd = fd
        self._shelf = shelf
        self._stops = stops
        self._inputs = inputs

    def run(self) -> None:
        """Serve the control ring for ever."""
        while True:
            record = self._ring.get()
            if record is None:
                os.eventfd_read(self._fd)
                continue
            command = decode_control(record)
            if type(command) is StopCommand:
                self._stops.stop(command.serial)
            elif type(command) is ForgetCommand:
                self._inputs.forget(command.segment)
            else:
                self._shelf.put(command)  # type: ignore[arg-type]  # the union less the two above


class Executor:
    """The main thread."""

    def __init__(
        self,
        commands: Ring,
        commands_fd: int,
        shelf: Shelf,
        stops: Stops,
        batches: Batches,
        reports: Reports,
        clock_offset_ns: int,
    ) -> None:
        self._commands = commands
        self._commands_fd = commands_fd
        self._shelf = shelf
        self._stops = stops
        self._batches = batches
        self._reports = reports
        self._clock_offset_ns = clock_offset_ns
        self._serial = 0

    def run(self) -> None:
        """Carry out batches for ever, one after the other."""
        while True:
            record = self._commands.get()
            if record is None:
                os.eventfd_read(self._commands_fd)
                continue
            self._serial += 1
            self._batches.begin()
            command = decode_run(record)
            if command.memories:
                self._batches.inputs.map(command.memories)
            self._batches.begin()
            self._report(command, self._carry_out(command))
            self._stops.end(self._serial)

    def _carry_out(self, command: RunCommand) -> RunDone | RunFailed:
        started_ns = time.monotonic_ns() + self._clock_offset_ns
        if started_ns < command.earliest_ns:
            started_ns = self._wait(command.earliest_ns)
        instance = self._shelf.find(command.model)
        if started_ns > command.latest_ns:
            return _failed(command, Failure.TOO_LATE, "", started_ns, started_ns)
        if instance is None:
            return _failed(command, Failure.NOT_LOADED, "", started_ns, started_ns)
        if not self._stops.begin(self._serial, instance.model):
            return _failed(command, Failure.STOPPED, "", started_ns, started_ns)
        return self._run(command, instance, started_ns)

    def _run(self, command: RunCommand, instance: Instance, started_ns: int) -> RunDone | RunFailed:
        cpu_ns = time.thread_time_ns()
        try:
            answers = self._batches.run(command.questions, instance)
        except Stopped:
            return _failed(command, Failure.STOPPED, "", started_ns, self._now_ns())
        except (RunError, TensorError) as error:
            return _failed(command, Failure.RUN_ERROR, str(error), started_ns, self._now_ns())
        cpu_ns = time.thread_time_ns() - cpu_ns
        ended_ns = time.monotonic_ns() + self._clock_offset_ns
        if self._shelf.find(command.model) is not instance:
            return _failed(command, Failure.CHANGED, "", started_ns, ended_ns)
        return RunDone(
            batch_id=command.batch_id,
            started_ns=started_ns,
            ended_ns=ended_ns,
            cpu_ns=cpu_ns,
            outputs_end=self._batches.outputs_end,
            answers=answers,
        )

    def _now_ns(self) -> int:
        return time.monotonic_ns() + self._clock_offset_ns

    def _wait(self, earliest_ns: int) -> int:
        """Sleep and then spin until `earliest_ns`, or until this batch is to be stopped; the present instant."""
        while True:
            now_ns = time.monotonic_ns() + self._clock_offset_ns
            if now_ns >= earliest_ns or self._stops.is_wanted(self._serial):
                return now_ns
            if earliest_ns - now_ns > SPIN_NS:
                self._stops.wait((earliest_ns - now_ns - SPIN_NS) / 1e9)

    def _report(self, command: RunCommand, result: RunDone | RunFailed) -> None:
        """Send what came of a batch. The outputs of one that failed are taken back."""
        if type(result) is RunFailed:
            self._batches.undo()
        try:
            self._reports.put(result)
        except RecordTooLong as error:
            self._batches.undo()
            message = f"the description of the batch's outputs is too long: {error}"
            self._reports.put(_failed(command, Failure.RUN_ERROR, message, result.started_ns, result.ended_ns))


def _failed(command: RunCommand, failure: Failure, message: str, started_ns: int, ended_ns: int) -> RunFailed:
    return RunFailed(
        batch_id=command.batch_id,
        failure=failure,
        message=message[:TEXT_LENGTH_MAX],
        started_ns=started_ns,
        ended_ns=ended_ns,
    )
