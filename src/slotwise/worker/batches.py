"""The way of a batch's tensors: from the arena, or a client's own memory, through a model into the output segment.

A batch of one request feeds the runtime views of where its inputs lie, so nothing is copied; a larger one is
gathered into buffers that are kept. Large outputs whose shape is known beforehand are written by the
runtime straight into the output segment; the others are copied there once. Each request's part of an
output is then a stretch of rows of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from slotwise.edges.fleets.messages import ExecutorSettings, Memory, Question, Tensor
from slotwise.edges.fleets.ring import ChannelMemory
from slotwise.edges.runtimes import RunError
from slotwise.edges.runtimes.tensors import DATATYPES, Array, read_tensor, texts_to_bytes
from slotwise.edges.store.files import ARENA_SEGMENT, map_memory
from slotwise.edges.store.layout import RingLayout
from slotwise.facts.types import ZEROS_SEGMENT
from slotwise.worker.shelf import Instance

FULL_PAUSE_S = 50e-6
"""How often a full output segment is looked at again."""

_NO_ROOMS: dict[str, Array] = {}
Answers = tuple[tuple[Tensor, ...], ...]


class OutputSegment:
    """Shared memory that the executor writes outputs to and the front gives back, in order."""

    def __init__(self, memory: memoryview, channel: ChannelMemory, settings: ExecutorSettings) -> None:
        self._memory = memory
        self._address = np.frombuffer(memory, np.uint8).ctypes.data
        self._channel = channel
        self._layout = RingLayout(settings.outputs_bytes)
        self._wait_ns = settings.outputs_wait_ns
        self.roll_back = self._layout.roll_back

    @property
    def head(self) -> int:
        """The position up to which room has been taken."""
        return self._layout.head

    def take(self, nbytes: int) -> int:
        """Offset of so many bytes; waits for the front where it must. Raises RunError."""
        at = self._layout.allocate(nbytes, self._channel.outputs_released)
        return at if at is not None else self._wait(nbytes)

    def array(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array that lies in the segment."""
        return np.ndarray(shape, dtype, self._memory, offset)

    def offset_of(self, array: Array) -> int:
        """Where an array that lies in the segment begins."""
        return int(array.ctypes.data) - self._address

    def write(self, offset: int, data: bytes) -> None:
        """Copy bytes in."""
        self._memory[offset : offset + len(data)] = data

    def _wait(self, nbytes: int) -> int:
        limit = self._layout.nbytes
        end_ns = time.monotonic_ns() + self._wait_ns
        while nbytes <= limit and time.monotonic_ns() < end_ns:
            time.sleep(FULL_PAUSE_S)
            at = self._layout.allocate(nbytes, self._channel.outputs_released)
            if at is not None:
                return at
        if nbytes > limit:
            raise RunError(f"an output of {nbytes} bytes is over the executor's limit of {limit} bytes for outputs")
        raise RunError(
            f"an output of {nbytes} bytes found no room: the executor's {limit} bytes for outputs hold earlier ones"
        )


class InputSegments:
    """Where inputs lie, by segment: the arena, the memory of clients, and zeros made here, for reading only.

    The main thread maps and reads, the control thread forgets; what is being read stays mapped until it has been.
    """

    def __init__(self, arena: memoryview) -> None:
        self._memories = {ARENA_SEGMENT: arena}
        self._zeros = memoryview(b"")

    def map(self, memories: Sequence[Memory]) -> None:
        """Make memories of clients readable. One whose client and server have gone is not there any more."""
        for memory in memories:
            try:
                fd = os.open(memory.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # whoever reads from it is told so
            try:
                self._memories[memory.segment] = map_memory(fd, memory.nbytes, writable=False)
            finally:
                os.close(fd)

    def forget(self, segment: int) -> None:
        """Nothing more is read from it."""
        self._memories.pop(segment, None)

    def read(self, tensor: Tensor) -> Array:
        """A tensor where it lies. Raises RunError or TensorError."""
        memory = self._memories.get(tensor.segment)
        if memory is None:
            if tensor.segment != ZEROS_SEGMENT:
                raise RunError(f"the memory that input {tensor.name!r} lies in is not there")
            memory = self._make_zeros(tensor.nbytes)
        return read_tensor(memory, tensor.datatype, tensor.shape, tensor.offset, tensor.nbytes)

    def _make_zeros(self, nbytes: int) -> memoryview:
        """At least so many; the kernel maps one page of zeros for all of them as long as nobody writes."""
        if nbytes > len(self._zeros):
            self._zeros = memoryview(bytes(nbytes))
        return self._zeros


class Batches:
    """Runs batches, one at a time."""

    def __init__(self, inputs: InputSegments, outputs: OutputSegment, bind_bytes_min: int) -> None:
        self.inputs = inputs
        self._outputs = outputs
        self._bind_bytes_min = bind_bytes_min
        self._mark = 0

    @property
    def outputs_end(self) -> int:
        """What the front is to publish once it has read the outputs of the last run."""
        return self._outputs.head

    def begin(self) -> None:
        """A batch's turn has come, whether it will run or not: `undo` takes back what is taken from here on."""
        self._mark = self._outputs.head

    def undo(self) -> None:
        """Take back the output room of this batch, and of no batch before it, whose outputs may not be read yet."""
        self._outputs.roll_back(self._mark)

    def run(self, questions: Sequence[Question], instance: Instance) -> Answers:
        """Run a batch; the answers in the order of the questions. Raises Stopped, RunError or TensorError."""
        if len(questions) == 1:
            rows, names = questions[0].rows, questions[0].outputs or instance.output_names
            feeds = {tensor.name: self.inputs.read(tensor) for tensor in questions[0].inputs}
        else:
            rows, names = sum(question.rows for question in questions), _names(questions, instance)
            feeds = self._gather(questions, instance)
        rooms = _NO_ROOMS
        if rows * instance.row_bytes_max >= self._bind_bytes_min:
            rooms = self._rooms(names, rows, instance)
        try:
            arrays = instance.model.run(feeds, rows, names, rooms)
        except RunError:
            if not rooms:
                raise
            # The file may promise another shape than the model gives: once more, relying on no promise.
            instance.distrust_shapes()
            self.undo()
            rooms = _NO_ROOMS
            arrays = instance.model.run(feeds, rows, names, rooms)
        if len(questions) == 1:
            return (tuple([self._place(name, array, rooms) for name, array in zip(names, arrays, strict=True)]),)
        return self._scatter(questions, rows, dict(zip(names, arrays, strict=True)), rooms)

    def _gather(self, questions: Sequence[Question], instance: Instance) -> dict[str, Array]:
        """The rows of all requests, one below the other, in buffers that the next batch uses again."""
        parts: dict[str, list[Array]] = {}
        for question in questions:
            for tensor in question.inputs:
                parts.setdefault(tensor.name, []).append(self.inputs.read(tensor))
        try:
            return {name: _join(name, arrays, instance.input_buffers) for name, arrays in parts.items()}
        except ValueError as error:
            raise RunError(f"the requests of a batch do not fit together: {error}") from error

    def _rooms(self, names: Sequence[str], rows: int, instance: Instance) -> dict[str, Array]:
        """Arrays in the output segment for outputs that are large and of a known shape."""
        rooms = _NO_ROOMS
        for name in names:
            expected = instance.outputs.get(name)
            if expected is None or (nbytes := expected.nbytes(rows)) < self._bind_bytes_min:
                continue
            if rooms is _NO_ROOMS:
                rooms = {}
            rooms[name] = self._outputs.array(self._outputs.take(nbytes), expected.shape(rows), expected.dtype)
        return rooms

    def _scatter(
        self, questions: Sequence[Question], rows: int, arrays: dict[str, Array], rooms: dict[str, Array]
    ) -> Answers:
        """Each request's rows of each output that it asked for."""
        for name, array in arrays.items():
            if array.ndim == 0 or array.shape[0] != rows:
                raise RunError(
                    f"output {name!r} has shape {list(array.shape)} for a batch of {rows} rows: it cannot be divided"
                    " among the requests, so the model must not be batched"
                )
        wholes = {name: self._place(name, array, rooms) for name, array in arrays.items() if array.dtype != np.object_}
        answers = []
        first = 0
        for question in questions:
            end = first + question.rows
            answers.append(
                tuple(
                    [
                        _rows(wholes[name], first, end, rows)
                        if name in wholes
                        else self._place(name, arrays[name][first:end], rooms)
                        for name in question.outputs or arrays
                    ]
                )
            )
            first = end
        return tuple(answers)

    def _place(self, name: str, array: Array, rooms: dict[str, Array]) -> Tensor:
        """Have an output lie in the segment: copy it there unless it was written there."""
        datatype = DATATYPES.get(array.dtype)
        if datatype is None:
            raise RunError(f"output {name!r} is of type {array.dtype}, which the protocol has no datatype for")
        if name in rooms:
            return Tensor(name, datatype, array.shape, self._outputs.offset_of(array), array.nbytes)
        if datatype == "BYTES":
            data = texts_to_bytes(array)
            offset = self._outputs.take(len(data))
            self._outputs.write(offset, data)
            return Tensor(name, datatype, array.shape, offset, len(data))
        nbytes = array.nbytes
        offset = self._outputs.take(nbytes)
        self._outputs.array(offset, array.shape, array.dtype)[...] = array
        return Tensor(name, datatype, array.shape, offset, nbytes)


def _names(questions: Sequence[Question], instance: Instance) -> tuple[str, ...]:
    """Every output that some request asks for."""
    if not all(question.outputs for question in questions):
        return instance.output_names
    return tuple(dict.fromkeys(name for question in questions for name in question.outputs))


def _join(name: str, arrays: list[Array], buffers: dict[str, Array]) -> Array:
    """The arrays one below the other, in the buffer of that name if their kind allows one."""
    first = arrays[0]
    if first.dtype == np.object_:
        return np.concatenate(arrays)
    rows = sum(array.shape[0] for array in arrays)
    buffer = buffers.get(name)
    if buffer is None or buffer.dtype != first.dtype or buffer.shape[1:] != first.shape[1:] or len(buffer) < rows:
        buffer = buffers[name] = np.empty((rows, *first.shape[1:]), first.dtype)
    return np.concatenate(arrays, out=buffer[:rows])


def _rows(whole: Tensor, first: int, end: int, rows: int) -> Tensor:
    """Some rows of a tensor that lies in the segment."""
    row_bytes = whole.nbytes // rows
    return Tensor(
        whole.name,
        whole.datatype,
        (end - first, *whole.shape[1:]),
        whole.offset + first * row_bytes,
        (end - first) * row_bytes,
    )
