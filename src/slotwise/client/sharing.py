"""A client's two stretches of shared memory: its own, for inputs, and the one that the server lends it, for outputs.

Arrays in either are ordinary numpy arrays. Room is taken back when the last array over it has been forgotten, which
numpy sees to: every view of an array keeps the array that was laid over the room. That may happen in any
thread, so it is only noted then, and the books are kept by whoever asks next.
"""

from __future__ import annotations

import math
import os
import weakref
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from slotwise.client.errors import BadRequest, NoRoom, ServerFault
from slotwise.client.wire import DATATYPES, DTYPES, STRINGS, Array, elements_as_array, packed
from slotwise.edges.local.frames import ALIGNMENT, Answer, Tensor
from slotwise.edges.local.memory import MemoryFault, map_to_read
from slotwise.edges.oip.datatypes import BYTES, TensorFault
from slotwise.edges.store.files import make_memory, map_memory
from slotwise.edges.store.layout import Layout

MEMORY_BYTES = 64 << 20
Bytes = NDArray[np.uint8]


class _Hold(weakref.ref[Bytes]):
    """That somebody has an array over a region, or a view of it."""

    __slots__ = ("region", "room_id")

    region: int
    room_id: int


class Holds:
    """Regions that somebody has an array over."""

    def __init__(self) -> None:
        self._holds: dict[int, _Hold] = {}
        self._regions: dict[int, int] = {}
        self.forgotten: deque[int] = deque()
        """Regions that nobody has any more, to be taken out by whoever keeps the books."""

    def add(self, room: Bytes, region: int) -> None:
        """Watch an array, whose views keep it.

        It must be an array over a memoryview: were it a view of an array, numpy would keep that one in its place.
        """
        hold = _Hold(room, self._gone)
        hold.region, hold.room_id = region, id(room)
        self._holds[region] = hold
        self._regions[hold.room_id] = region

    def region_of(self, room: object) -> int | None:
        """The region that an array is laid over, if it is one of those watched."""
        return self._regions.get(id(room))

    def _gone(self, hold: weakref.ref[Bytes]) -> None:
        assert isinstance(hold, _Hold), "made so above"
        del self._holds[hold.region]
        del self._regions[hold.room_id]
        self.forgotten.append(hold.region)


class Inputs:
    """The client's own memory: all inputs under way and all arrays that it holds. Pages are taken as they are used."""

    def __init__(self, nbytes: int = MEMORY_BYTES) -> None:
        self.fd = make_memory("slotwise-inputs", nbytes)
        self._is_open = True
        self._nbytes = nbytes
        self._memory = map_memory(self.fd, nbytes, writable=True)
        self._start = np.frombuffer(self._memory, np.uint8).ctypes.data
        self._layout = Layout(nbytes)
        self._holds = Holds()

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike) -> Array:
        """A fresh array in the memory, with anything in it. Raises NoRoom, or BadRequest for a type without size."""
        kind = np.dtype(dtype)
        if kind not in DATATYPES:
            raise BadRequest(f"an array in shared memory cannot be of the type {kind}; take one of {', '.join(DTYPES)}")
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        nbytes = kind.itemsize * math.prod(shape)
        region = self.take(nbytes)
        room = np.frombuffer(self._memory[region : region + max(nbytes, 1)], np.uint8)
        self._holds.add(room, region)
        return np.ndarray(shape, kind, room)

    def place(self, name: str, array: Array) -> tuple[Tensor, int | None]:
        """Where an input lies, copied into the memory if it does not lie there yet.

        With it comes the region that was taken for it, to be given back by `release` after the reply.
        """
        if array.dtype.kind in STRINGS:
            datatype, content = packed(name, array)
            region = self.take(len(content))
            self._memory[region : region + len(content)] = content
            return Tensor(name, datatype, array.shape, region, len(content)), region
        datatype = DATATYPES.get(array.dtype, "")
        if not datatype:
            raise BadRequest(f"input {name!r} has the type {array.dtype}, which the protocol does not know; convert it")
        nbytes = array.nbytes
        at = self._find(array, nbytes)
        if at is not None:
            return Tensor(name, datatype, array.shape, at, nbytes), None
        region = self.take(nbytes)
        np.ndarray(array.shape, array.dtype, self._memory, region)[...] = array
        return Tensor(name, datatype, array.shape, region, nbytes), region

    def _find(self, array: Array, nbytes: int) -> int | None:
        """Where an array lies in the memory, if it lies there as the server wants it."""
        room = array.base
        if room is None or not array.flags.c_contiguous:
            return None
        region = self._holds.region_of(room)
        if region is not None and room.nbytes == nbytes:
            return region  # a whole array, which is quicker to find than its address
        at: int = array.__array_interface__["data"][0] - self._start
        return at if 0 <= at < self._nbytes and not at % ALIGNMENT else None

    def take(self, nbytes: int) -> int:
        """Room for so many bytes. Raises NoRoom."""
        forgotten = self._holds.forgotten
        while forgotten:
            self._layout.release(forgotten.popleft())
        region = self._layout.allocate(nbytes)
        if region is None:
            raise NoRoom(
                f"no room for {nbytes} bytes of inputs: {self._layout.held_bytes} of this client's {self._nbytes} are"
                " in use; let go of arrays, or make the client with a larger `memory_bytes`"
            )
        return region

    def release(self, region: int) -> None:
        """Give room back."""
        self._layout.release(region)

    def close(self) -> None:
        """Close the descriptor; again is harmless. The memory stays as long as arrays over it do."""
        if self._is_open:
            self._is_open = False
            os.close(self.fd)


class Outputs:
    """The memory that the server lends, which can only be read."""

    def __init__(self, fd: int, nbytes: int) -> None:
        try:
            self._memory = map_to_read(fd, nbytes)
        except MemoryFault as fault:
            raise ServerFault(f"the server's memory for outputs cannot be used: {fault}") from fault
        finally:
            os.close(fd)
        self._holds = Holds()

    def arrays(self, answer: Answer) -> Mapping[str, Array]:
        """The outputs of an answer, where they lie. Raises ServerFault for what is not the protocol's."""
        if answer.region is None:
            room = np.empty(0, np.uint8)
        else:
            room = np.frombuffer(self._memory[answer.region : self._end(answer)], np.uint8)
            self._holds.add(room, answer.region)
        try:
            return {tensor.name: _array(tensor, room, answer.region or 0) for tensor in answer.outputs}
        except (ValueError, TypeError, KeyError, TensorFault) as error:
            raise ServerFault(f"the answer is not the protocol's: {error}") from error

    @property
    def forgotten(self) -> int:
        """How many regions can be given back."""
        return len(self._holds.forgotten)

    def take_forgotten(self, count_max: int) -> tuple[int, ...]:
        """Regions that nobody has any more, which are the caller's to give back."""
        forgotten = self._holds.forgotten
        if not forgotten:
            return ()
        return tuple([forgotten.popleft() for _ in range(min(len(forgotten), count_max))])

    def put_back(self, regions: tuple[int, ...]) -> None:
        """They have not been given back after all."""
        self._holds.forgotten.extend(regions)

    def _end(self, answer: Answer) -> int:
        return max([tensor.offset + tensor.nbytes for tensor in answer.outputs])


def _array(tensor: Tensor, room: Bytes, region: int) -> Array:
    at = tensor.offset - region
    if tensor.datatype == BYTES:
        return elements_as_array(room.data[at : at + tensor.nbytes], tensor.shape)
    return np.ndarray(tensor.shape, DTYPES[tensor.datatype], room, at)
