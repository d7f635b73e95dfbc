"""The models that an executor holds: the memory books and the thread that makes models ready.

Loads and unloads are carried out in the order sent, one at a time, so that the books here and the
controller's mirror of them agree at every step. A load that does not fit changes nothing.
"""

from __future__ import annotations

import contextlib
import gc
import math
import queue
import time
from collections.abc import Callable
from pathlib import PurePath

from slotwise.edges import runtimes
from slotwise.edges.fleets.messages import (
    TEXT_LENGTH_MAX,
    ExecutorSettings,
    LoadCommand,
    LoadDone,
    LoadFailure,
    Message,
    UnloadCommand,
    UnloadDone,
)
from slotwise.edges.runtimes import Model
from slotwise.edges.runtimes.tensors import NUMPY_TYPES, Array
from slotwise.engine.ports import ModelError
from slotwise.facts.residency import OutOfMemory, Residency
from slotwise.facts.types import Failure, TensorSpec


class ExpectedOutput:
    """The size of an output that varies with the number of rows at most."""

    def __init__(self, spec: TensorSpec, batchable: bool) -> None:
        self.dtype = NUMPY_TYPES[spec.datatype]
        self._shape = spec.shape
        self._batchable = batchable

    def shape(self, rows: int) -> tuple[int, ...]:
        """The shape for so many rows."""
        return (rows, *self._shape[1:]) if self._batchable else self._shape

    def nbytes(self, rows: int) -> int:
        """The size for so many rows."""
        return math.prod(self.shape(rows)) * self.dtype.itemsize


class Instance:
    """A model that is ready, and what running it needs: buffers, and how large its outputs will be."""

    def __init__(self, model: Model, batchable: bool) -> None:
        described = model.describe()
        self.model = model
        self.output_names = tuple(spec.name for spec in described.outputs)
        self.input_buffers: dict[str, Array] = {}
        self.outputs = {
            spec.name: ExpectedOutput(spec, batchable) for spec in described.outputs if _is_fixed(spec, batchable)
        }
        """The outputs whose size is known before a run."""
        self.row_bytes_max = max((expected.nbytes(1) for expected in self.outputs.values()), default=0)
        """Of one row of the largest of them: times the rows, none is larger than that."""

    def distrust_shapes(self) -> None:
        """Predict no output's size any more: the file does not tell the truth."""
        self.outputs = {}


class Shelf:
    """What is resident. `find` may be called from any thread, `put` from the control thread, `run` is the loader's."""

    def __init__(self, settings: ExecutorSettings, report: Callable[[Message], None]) -> None:
        self._books = Residency(settings.memory_bytes, settings.page_bytes)
        self._threads = settings.threads
        self._clock_offset_ns = settings.clock_offset_ns
        self._report = report
        self._instances: dict[str, Instance] = {}
        self._commands: queue.SimpleQueue[LoadCommand | UnloadCommand] = queue.SimpleQueue()
        self.find = self._instances.get

    def put(self, command: LoadCommand | UnloadCommand) -> None:
        """Have a load or an unload carried out after all those before it."""
        self._commands.put(command)

    def run(self) -> None:
        """Carry out loads and unloads for ever."""
        while True:
            command = self._commands.get()
            if type(command) is UnloadCommand:
                self._report(self._unload(command))
            elif type(command) is LoadCommand:
                self._report(self._load(command))
            gc.collect()

    def _unload(self, command: UnloadCommand) -> UnloadDone:
        if self._books.unload(command.model, command.load_id):
            del self._instances[command.model]  # a run that still uses it is the last to let go
        return UnloadDone(model=command.model, load_id=command.load_id)

    def _load(self, command: LoadCommand) -> LoadDone | LoadFailure:
        started_ns = self._wait(command.earliest_ns)
        if started_ns > command.latest_ns:
            return _failure(command, Failure.TOO_LATE, "the load's window has passed")
        if self._books.is_here(command.model):
            return _failure(command, Failure.CHANGED, "the model is here from another load; unload that first")
        try:
            self._books.begin_load(command.model, command.memory_bytes, command.load_id)
        except OutOfMemory as error:
            return _failure(command, Failure.NO_MEMORY, str(error))
        try:
            instance = Instance(self._read(command), command.batchable)
        except ModelError as error:
            self._books.unload(command.model, command.load_id)
            # Clients get to see it: they need not know where on this machine the file lies.
            text = str(error).replace(f"{PurePath(command.path).parent}/", "")
            return _failure(command, Failure.BAD_MODEL, text)
        self._books.end_load(command.model, command.load_id)
        self._instances[command.model] = instance
        return LoadDone(model=command.model, load_id=command.load_id, started_ns=started_ns, ended_ns=self._now_ns())

    def _read(self, command: LoadCommand) -> Model:
        if command.pack:
            with contextlib.suppress(ModelError):  # the file that it was made of may still be sound
                return runtimes.load(command.pack, self._threads)
        return runtimes.load(command.path, self._threads)

    def _wait(self, earliest_ns: int) -> int:
        while (now_ns := self._now_ns()) < earliest_ns:
            time.sleep((earliest_ns - now_ns) / 1e9)
        return now_ns

    def _now_ns(self) -> int:
        return time.monotonic_ns() + self._clock_offset_ns


def _failure(command: LoadCommand, failure: Failure, message: str) -> LoadFailure:
    return LoadFailure(model=command.model, load_id=command.load_id, failure=failure, message=message[:TEXT_LENGTH_MAX])


def _is_fixed(spec: TensorSpec, batchable: bool) -> bool:
    """Whether an output's size follows from the number of rows."""
    if spec.datatype == "BYTES" or (batchable and not spec.shape):
        return False
    return all(size >= 0 for size in (spec.shape[1:] if batchable else spec.shape))
