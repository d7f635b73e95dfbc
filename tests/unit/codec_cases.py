"""What tests of the codec share: models, requests, and a region of memory to put tensors into."""

from __future__ import annotations

import json

from slotwise.edges.oip.codec import Bounds, Contract, Filler, Infer, Place, decode, refs
from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, TensorRef, TensorSpec

BOUNDS = Bounds(rows_max=64, tensor_bytes_max=1 << 20)
RANGES = {
    **{f"INT{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64)},
}
CODES = {"INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d", "BOOL": "?"}
CODES |= {"UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q"}


def spec(*tensors: TensorSpec, batchable: bool = False, batch_max: int = 8) -> ModelSpec:
    profile = Profile(rows=(1,), run_ns=(1,), load_ns=0, memory_bytes=0)
    return ModelSpec(
        id="m/1",
        name="m",
        version="1",
        profile=profile,
        slo_ns=1,
        batch_max=batch_max,
        batchable=batchable,
        inputs=tensors,
        outputs=tensors,
    )


def contract(*tensors: TensorSpec, batchable: bool = False, bounds: Bounds = BOUNDS) -> Contract:
    return Contract(spec(*tensors, batchable=batchable), bounds)


def tensor(datatype: str = "FP32", shape: tuple[int, ...] = (-1, 2), name: str = "x") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def message(datatype: str = "FP32", shape: object = (1, 2), data: object = (1, 2), **more: object) -> bytes:
    given_input = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    return json.dumps({"inputs": [given_input], **more}).encode()


def binary(datatype: str, shape: tuple[int, ...], data: bytes, **more: object) -> tuple[bytes, bytes]:
    given_input = {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
    return json.dumps({"inputs": [given_input], **more}).encode(), data


class Memory:
    """One region at offset 0."""

    segment = 3

    def __init__(self, nbytes: int) -> None:
        self.bytes = memoryview(bytearray(nbytes))

    def allocate(self, nbytes: int) -> int | None:
        return 0

    def keep(self, region: int) -> None: ...

    def release(self, region: int) -> None: ...

    def view(self, offset: int, nbytes: int) -> memoryview:
        return self.bytes[offset : offset + nbytes]

    def read(self, ref: TensorRef) -> memoryview:
        return self.view(ref.offset, ref.nbytes)

    def write(self, place: Place, data: memoryview) -> None:
        raise AssertionError("no client has memory of its own here")


def filled(infer: Infer, data: bytes = b"", step: int = 0) -> tuple[Memory, tuple[TensorRef, ...]]:
    memory = Memory(infer.nbytes + 64)
    filler = Filler(infer, memory.bytes)
    for start in range(0, len(data), step or max(1, len(data))):
        filler.write(data[start : start + (step or len(data))])
    filler.finish()
    return memory, refs(infer, memory, 0)


def decode_json(body: bytes, model: Contract) -> tuple[Infer, bytes]:
    infer = decode(body, 0, model)
    memory, (ref,) = filled(infer)
    return infer, bytes(memory.read(ref))
