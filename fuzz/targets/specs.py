"""The models that targets in process ask: one of each kind that the codec treats in a way of its own."""

from __future__ import annotations

from slotwise.edges.oip.codec import Bounds, Contract
from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, TensorSpec

BOUNDS = Bounds(rows_max=64, tensor_bytes_max=1 << 20, json_bytes_max=1 << 20, generated_inputs=True)
_PROFILE = Profile(rows=(1,), run_ns=(1,), load_ns=0, memory_bytes=0)


def contracts() -> dict[str, Contract]:
    """Fresh ones, by the models' names."""
    fixed = TensorSpec(name="x", datatype="FP32", shape=(-1, 4))
    text, flags = (TensorSpec(name=name, datatype=kind, shape=(-1,)) for name, kind in (("t", "BYTES"), ("b", "BOOL")))
    half = TensorSpec(name="h", datatype="FP16", shape=(-1, 2))
    open_ = TensorSpec(name="o", datatype="INT64", shape=(-1, -1, 3))
    scalar = TensorSpec(name="s", datatype="UINT8", shape=())
    models = {"plain": (fixed,), "text": (text,), "mixed": (fixed, text, flags, half), "open": (open_, scalar)}
    return {name: Contract(_spec(name, tensors), BOUNDS) for name, tensors in models.items()}


def _spec(name: str, tensors: tuple[TensorSpec, ...]) -> ModelSpec:
    return ModelSpec(
        id=f"{name}/1",
        name=name,
        version="1",
        profile=_PROFILE,
        slo_ns=1,
        batch_max=8,
        batchable=name == "plain",
        inputs=tensors,
        outputs=tensors,
    )
