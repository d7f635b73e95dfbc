"""Inference requests of the Open Inference Protocol: from bytes to values. Pure: no socket, no clock.

A body is a JSON head and, after it, the binary data of those tensors that announce some. `split` parts the two,
`decode` checks the head against the model and lays its tensors out one after the other, and `fill` writes the
binary data to where it belongs; a `Filler` does so with data that comes in pieces. So the data is copied once,
from the socket's bytes into shared memory, and what does not fit is known by the head alone. Whatever is
wrong is a `WireError` with the status to answer with.

For trials of load a request may leave its inputs to be made of zeros, by the server, so that they go the way of all
others, or by the executor, so that nothing but their shapes goes anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import prod

import msgspec

from slotwise.edges.oip import datatypes
from slotwise.edges.oip.datatypes import BYTES, NEEDS_CHECK, SIZES, TensorFault
from slotwise.edges.oip.errors import WireError, bad, too_large
from slotwise.edges.oip.head import NO_DATA, Head, Input, MadeBy, Output, TensorParameters, decode_head
from slotwise.engine.ports import Arena
from slotwise.facts.shapes import VARIABLE, fits, form_of
from slotwise.facts.types import ZEROS_SEGMENT, ModelSpec, TensorRef, TensorSpec
from slotwise.facts.units import US
from slotwise.facts.value import value

ALIGNMENT = 64
HEADS_MAX = 256
HEAD_NBYTES_MAX = 2048


@value
class Bounds:
    """What one request may ask for at most."""

    rows_max: int = 1024
    """Beside the model's own limit; the smaller one holds."""
    tensor_bytes_max: int = 64 << 20
    """Of all its inputs together."""
    json_bytes_max: int = 16 << 20
    """Of its JSON, whose values take many times their size while they are read."""
    generated_inputs: bool = False
    """Whether a request may leave its inputs to be made here."""


# The values below are made for every request, so they are structs: these are made in a third of the time.


class Place(msgspec.Struct, frozen=True, gc=False):
    """Bytes of a shared memory region that a client has registered."""

    region: str
    offset: int
    nbytes: int


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """An output to be sent back, and in which form; with a place, it goes there."""

    name: str
    is_binary: bool
    place: Place | None = None


class Wish(msgspec.Struct, frozen=True, gc=False):
    """What the answer is to hold: all that must be remembered of a request until then."""

    id: str
    wanted: tuple[Wanted, ...]
    has_timing: bool


class Part(msgspec.Struct, frozen=True, gc=False):
    """One input's stretch of the request's memory. Its bytes are `data`, lie at `source`, or follow the head."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    data: bytes | None
    source: Place | None = None
    is_zeros: bool = False
    """No memory holds it: an executor makes it."""

    @property
    def is_behind(self) -> bool:
        """Whether its bytes follow the head."""
        return self.data is None and self.source is None and not self.is_zeros


class Infer(msgspec.Struct, frozen=True, gc=False):
    """A request as understood and checked."""

    wish: Wish
    parts: tuple[Part, ...]
    nbytes: int
    """Size of the region that holds all inputs."""
    binary_nbytes: int
    """How much of their data follows the head."""
    rows: int
    form: int
    timeout_ns: int = 0
    """0 where the model's own allowance holds, as for `priority`."""
    priority: int = 0
    names: tuple[str, ...] = ()
    """The outputs asked for; empty when all are."""
    borrows: bool = False
    """Whether inputs lie in the client's own memory."""


class Contract:
    """What a model takes and gives, made ready once so that each request is checked cheaply.

    `heads` remembers heads that have been understood: a client that sends binary data mostly sends the same
    head again and again, and nothing else decides what it means. They are few and short. So does `known`, by whatever
    a door has in a head's place.
    """

    def __init__(self, spec: ModelSpec, bounds: Bounds) -> None:
        self.spec = spec
        self.inputs = {tensor.name: tensor for tensor in spec.inputs}
        self.outputs = {tensor.name: tensor for tensor in spec.outputs}
        self.rows_max = min(spec.batch_max, bounds.rows_max)
        self.tensor_bytes_max = bounds.tensor_bytes_max
        self.json_bytes_max = bounds.json_bytes_max
        self.may_generate = bounds.generated_inputs
        self.first = 1 if spec.batchable else 0
        """Index of the first dimension that belongs to a row."""
        self.has_forms = any(VARIABLE in tensor.shape[self.first :] for tensor in spec.inputs)
        self.all_as_json = tuple(Wanted(name, is_binary=False) for name in self.outputs)
        self.all_as_binary = tuple(Wanted(name, is_binary=True) for name in self.outputs)
        self.heads: dict[bytes, Infer] = {}
        self.known: dict[Hashable, Infer] = {}
        self.binary_only = frozenset(t.name for t in spec.outputs if not datatypes.has_json_form(t.datatype))


def split(body: bytes | bytearray, head_length: int | None) -> tuple[bytes | bytearray, memoryview]:
    """A body's JSON head and what follows it. Without a length all of it is head."""
    if head_length is None:
        return body, memoryview(b"")
    if head_length > len(body):
        raise bad(f"Inference-Header-Content-Length is {head_length}, the body has only {len(body)} bytes")
    return body[:head_length], memoryview(body)[head_length:]


def decode(head: bytes | bytearray, binary_nbytes: int, contract: Contract) -> Infer:
    """Understand a head that is followed by so many bytes of binary data, and check it against the model."""
    if not binary_nbytes or len(head) > HEAD_NBYTES_MAX:
        return _understand(head, binary_nbytes, contract)
    known = contract.heads.get(bytes(head))
    if known is None:
        known = _understand(head, binary_nbytes, contract)
        if len(contract.heads) >= HEADS_MAX:
            contract.heads.clear()
        contract.heads[bytes(head)] = known
    elif known.binary_nbytes != binary_nbytes:
        raise _does_not_add_up(known.binary_nbytes, binary_nbytes)
    return known


def decode_raw(body: bytes | bytearray | memoryview | None, nbytes: int, contract: Contract) -> Infer:
    """Understand the raw form: the body is the one input's data, one row of it, and all outputs come back binary.

    Without a body, it is still to come. A BYTES element is sent bare and must be known in full.
    """
    spec = contract.spec
    if len(spec.inputs) != 1:
        raise bad(f"model {spec.name} has {len(spec.inputs)} inputs; the raw form (a head of length 0) serves one only")
    tensor = spec.inputs[0]
    shape, size = _raw_shape(tensor, nbytes, contract.first), nbytes
    data: bytes | None = None
    if tensor.datatype == BYTES:
        size = nbytes + 4
        data = b"" if body is None else len(body).to_bytes(4, "little") + body
    if size > contract.tensor_bytes_max:
        raise _too_many_bytes(size, contract)
    parts = [Part(tensor.name, tensor.datatype, shape, 0, size, data)]
    if data:
        _check_data(parts[0], memoryview(data))
    form = _form(parts, contract) if contract.has_forms else 0
    return Infer(Wish("", contract.all_as_binary, has_timing=False), tuple(parts), size, nbytes, 1, form)


def fill(infer: Infer, view: memoryview, binary: memoryview) -> None:
    """Write a request's tensors into its region, all binary data being here. Raises WireError when it is unsound."""
    taken = 0
    for part in infer.parts:
        end = part.offset + part.nbytes
        if part.data is not None:
            view[part.offset : end] = part.data
            continue
        if part.source is not None or part.is_zeros:
            continue  # see `borrow` and `refs`
        view[part.offset : end] = binary[taken : taken + part.nbytes]
        taken += part.nbytes
        if part.datatype in NEEDS_CHECK:
            _check_data(part, view[part.offset : end])


def borrow(infer: Infer, view: memoryview, read: Callable[[Place, memoryview], None]) -> None:
    """Have `read` copy those inputs that lie in the client's own memory. Raises WireError when one is unsound."""
    for part in infer.parts:
        if part.source is not None:
            piece = view[part.offset : part.offset + part.nbytes]
            read(part.source, piece)
            if part.datatype in NEEDS_CHECK:
                _check_data(part, piece)


class Filler:
    """Does as `fill` does, with binary data that comes in pieces."""

    def __init__(self, infer: Infer, view: memoryview) -> None:
        self._parts = infer.parts
        self._view = view
        self._ahead = [part for part in reversed(infer.parts) if part.is_behind and part.nbytes]
        self._filled = 0
        for part in infer.parts:
            if part.data is not None:
                view[part.offset : part.offset + part.nbytes] = part.data

    def write(self, piece: bytes | memoryview) -> None:
        """Take the next bytes that follow the head. Raises WireError when there are more than were announced."""
        taken, size = 0, len(piece)
        while taken < size:
            if not self._ahead:
                raise bad("more binary data follows the head than it announces")
            part = self._ahead[-1]
            count = min(part.nbytes - self._filled, size - taken)
            start = part.offset + self._filled
            self._view[start : start + count] = piece if count == size else memoryview(piece)[taken : taken + count]
            taken += count
            self._filled += count
            if self._filled == part.nbytes:
                self._ahead.pop()
                self._filled = 0

    def finish(self) -> None:
        """All has been written. Raises WireError when it is too little, or is not what it says it is."""
        if self._ahead:
            raise bad(f"the body ends before the data of input {self._ahead[-1].name!r}")
        for part in self._parts:
            if part.is_behind and part.datatype in NEEDS_CHECK:
                _check_data(part, self._view[part.offset : part.offset + part.nbytes])


def refs(infer: Infer, arena: Arena, region: int) -> tuple[TensorRef, ...]:
    """A filled request's inputs, as those who run it find them."""
    segment = arena.segment
    return tuple(
        [
            TensorRef(
                name=part.name,
                datatype=part.datatype,
                shape=part.shape,
                segment=ZEROS_SEGMENT if part.is_zeros else segment,
                offset=0 if part.is_zeros else region + part.offset,
                nbytes=part.nbytes,
            )
            for part in infer.parts
        ]
    )


def _understand(head: bytes | bytearray, binary_nbytes: int, contract: Contract) -> Infer:
    if len(head) > contract.json_bytes_max:
        raise too_large(f"the JSON has {len(head)} bytes, {contract.json_bytes_max} are the limit; send binary data")
    try:
        message = decode_head(head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad(f"not an inference request: {error}") from error
    return understand(message, binary_nbytes, contract)


def understand(message: Head, binary_nbytes: int, contract: Contract) -> Infer:
    """Check a request against its model, and lay its inputs out one after the other. Raises WireError."""
    parameters, parts, nbytes, unclaimed = message.parameters, [], 0, binary_nbytes
    made_by = parameters.slotwise_inputs
    if made_by is not MadeBy.CLIENT and not contract.may_generate:
        raise bad("inputs are not made here (`generated_inputs` of the server's [door] allows it); send their data")
    for given in message.inputs:
        is_sent = made_by is MadeBy.CLIENT
        part = _place(given, contract, nbytes) if is_sent else _made(given, contract, nbytes, made_by)
        parts.append(part)
        nbytes += -(-part.nbytes // ALIGNMENT) * ALIGNMENT
        if part.is_behind:
            unclaimed -= part.nbytes
    if unclaimed:
        raise _does_not_add_up(binary_nbytes - unclaimed, binary_nbytes)
    if len(parts) != 1 or len(contract.inputs) != 1:
        _check_names(parts, contract)
    if nbytes > contract.tensor_bytes_max:
        raise _too_many_bytes(nbytes, contract)
    wish = Wish(message.id, _wanted(message, contract), parameters.slotwise_timing)
    return Infer(
        wish,
        tuple(parts),
        0 if made_by is MadeBy.EXECUTOR else nbytes,
        binary_nbytes,
        _rows(parts, contract),
        _form(parts, contract) if contract.has_forms else 0,
        parameters.timeout * US,
        parameters.priority,
        tuple([asked.name for asked in message.outputs]),
        any(part.source is not None for part in parts),
    )


def _place(given: Input, contract: Contract, offset: int) -> Part:
    name, shape = given.name, tuple(given.shape)
    tensor = _declared(given, shape, contract)
    announced = given.parameters.binary_data_size
    source = _claimed(f"input {name!r}", given.parameters)
    data: bytes | None = None
    if (given.data is not NO_DATA) + (announced is not None) + (source is not None) > 1:
        raise bad(f"input {name!r} has more than one of JSON data, binary data and a shared memory region; send one")
    if source is not None:
        announced = source.nbytes
    if announced is not None:
        _check_size(name, announced, tensor, shape)
    else:
        announced = len(data := _packed(given, shape))
    return Part(name, tensor.datatype, shape, offset, announced, data, source)


def _made(given: Input, contract: Contract, offset: int, made_by: MadeBy) -> Part:
    """An input of zeros, sound for every datatype: made here as if they had been sent, or left to the executor."""
    name, shape, told = given.name, tuple(given.shape), given.parameters
    datatype = _declared(given, shape, contract).datatype
    if given.data is not NO_DATA or told.binary_data_size is not None or _claimed(f"input {name!r}", told) is not None:
        raise bad(
            f"input {name!r} brings data, but `slotwise_inputs` has the {made_by.value} make it; send one of them"
        )
    nbytes = datatypes.zeros_nbytes(datatype, prod(shape))
    if offset + nbytes > contract.tensor_bytes_max:
        raise _too_many_bytes(offset + nbytes, contract)
    is_here = made_by is MadeBy.SERVER
    return Part(name, datatype, shape, offset, nbytes, bytes(nbytes) if is_here else None, is_zeros=not is_here)


def _declared(given: Input, shape: tuple[int, ...], contract: Contract) -> TensorSpec:
    """The model's input that is given. Raises WireError when there is none, or it is another."""
    tensor = contract.inputs.get(given.name)
    if tensor is None:
        raise bad(f"model {contract.spec.name} has no input {given.name!r}; it has {', '.join(contract.inputs)}")
    if given.datatype != tensor.datatype:
        raise bad(f"input {given.name!r} is {given.datatype}, the model takes {tensor.datatype}")
    if not fits(shape, tensor.shape):
        raise bad(f"input {given.name!r} has shape {list(shape)}, the model takes {list(tensor.shape)}")
    return tensor


def _claimed(what: str, parameters: TensorParameters) -> Place | None:
    """The place in a client's region that a tensor names, if any."""
    region, nbytes = parameters.shared_memory_region, parameters.shared_memory_byte_size
    if region is None and nbytes is None:
        return None
    if region is None or nbytes is None:
        raise bad(f"{what} has only one of shared_memory_region and shared_memory_byte_size; give both or none")
    return Place(region, parameters.shared_memory_offset, nbytes)


def _packed(given: Input, shape: tuple[int, ...]) -> bytes:
    if given.data is NO_DATA:
        raise bad(f"input {given.name!r} has no data: give `data`, or the parameter binary_data_size and binary data")
    try:
        return datatypes.pack(given.data, given.datatype, shape, prod(shape))
    except TensorFault as fault:
        raise bad(f"input {given.name!r} {fault}") from fault


def _check_size(name: str, announced: int, tensor: TensorSpec, shape: tuple[int, ...]) -> None:
    size = SIZES.get(tensor.datatype)
    if size is not None and announced != size * prod(shape):
        raise bad(f"input {name!r} announces {announced} bytes, its shape needs {size * prod(shape)}")


def _check_data(part: Part, view: memoryview) -> None:
    try:
        datatypes.check(view, part.datatype, prod(part.shape))
    except TensorFault as fault:
        raise bad(f"input {part.name!r} {fault}") from fault


def _check_names(parts: list[Part], contract: Contract) -> None:
    given = {part.name for part in parts}
    if len(given) != len(parts):
        raise bad("an input is given twice")
    if missing := [name for name in contract.inputs if name not in given]:
        raise bad(f"input {missing[0]!r} is missing")


def _rows(parts: list[Part], contract: Contract) -> int:
    if not contract.spec.batchable:
        return 1
    rows = parts[0].shape[0] if parts else 0
    for part in parts:
        if part.shape[0] != rows:
            raise bad(f"inputs differ in their first dimension, the batch: {rows} and {part.shape[0]}")
    if not 1 <= rows <= contract.rows_max:
        raise bad(f"has {rows} rows; a request to model {contract.spec.name} has 1 to {contract.rows_max}")
    return rows


def _form(parts: list[Part], contract: Contract) -> int:
    return form_of((part.name, part.shape[contract.first :]) for part in parts)


def _wanted(message: Head, contract: Contract) -> tuple[Wanted, ...]:
    default = message.parameters.binary_data_output
    wanted = contract.all_as_binary if default else contract.all_as_json
    if message.outputs:
        wanted = tuple([_one_wanted(asked, default, contract) for asked in message.outputs])
        if len(wanted) > 1 and len({one.name for one in wanted}) != len(wanted):
            raise bad("an output is asked for twice")
    if contract.binary_only:
        for one in wanted:
            if one.name in contract.binary_only and not one.is_binary and one.place is None:
                datatype = contract.outputs[one.name].datatype
                raise bad(f"output {one.name!r} is {datatype}, which has no JSON form; ask for it with binary_data")
    return wanted


def _one_wanted(asked: Output, default: bool, contract: Contract) -> Wanted:
    if asked.name not in contract.outputs:
        raise bad(f"model {contract.spec.name} has no output {asked.name!r}; it has {', '.join(contract.outputs)}")
    parameters = asked.parameters
    if parameters.classification:
        raise bad(f"output {asked.name!r} asks for a classification; take the tensor and choose on your side")
    is_binary = default if parameters.binary_data is None else parameters.binary_data
    return Wanted(asked.name, is_binary, _claimed(f"output {asked.name!r}", parameters))


def _raw_shape(tensor: TensorSpec, nbytes: int, first: int) -> tuple[int, ...]:
    row = tensor.shape[first:]
    variable = row.count(VARIABLE)
    known = prod(dimension for dimension in row if dimension != VARIABLE)
    elements = 1 if tensor.datatype == BYTES else nbytes // SIZES[tensor.datatype]
    if variable > 1:
        raise bad(f"input {tensor.name!r} has {variable} variable dimensions; the raw form needs at most one")
    last = elements // known if variable and known else 0
    total = known * last if variable else known
    if total != elements or (tensor.datatype != BYTES and nbytes != total * SIZES[tensor.datatype]):
        raise bad(f"the body has {nbytes} bytes, which is not one row of input {tensor.name!r}: {list(tensor.shape)}")
    return (1,) * first + tuple(last if dimension == VARIABLE else dimension for dimension in row)


def _does_not_add_up(announced: int, found: int) -> WireError:
    return bad(f"inputs announce {announced} bytes of binary data, {found} follow the head")


def _too_many_bytes(nbytes: int, contract: Contract) -> WireError:
    return too_large(f"inputs take {nbytes} bytes, {contract.tensor_bytes_max} are the limit")
