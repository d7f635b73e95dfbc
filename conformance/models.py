"""The same models for both servers: each gives back what it takes, or the sum of two inputs.

Slotwise gets them as ONNX, Triton as its backend in Python, since the Triton that PyPI has carries no other.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import onnx
from onnx import TensorProto, helper

TRITON_MODEL = Path(__file__).resolve().parent / "triton_model.py"
ROWS_MAX = 8
TYPES = {
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "FP16": TensorProto.FLOAT16,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "BOOL": TensorProto.BOOL,
    "BYTES": TensorProto.STRING,
}
BROKEN = "broken"
"""A model that neither server can load."""


class Tensor(msgspec.Struct, frozen=True):
    """An input or output; `dims` are those of one row where rows can be put together."""

    name: str
    datatype: str
    dims: tuple[int, ...]


class Model(msgspec.Struct, frozen=True):
    """A model: with one output for each input, or with the sum of all as its only one."""

    name: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    is_batched: bool = False


def _kept(name: str, *tensors: tuple[str, str, str]) -> Model:
    """A model of free lengths, each of whose outputs is an input."""
    return Model(
        name,
        inputs=[Tensor(given, datatype, (-1,)) for given, _, datatype in tensors],
        outputs=[Tensor(kept, datatype, (-1,)) for _, kept, datatype in tensors],
    )


MODELS = (
    Model("echo", [Tensor("x", "FP32", (4,))], [Tensor("y", "FP32", (4,))], is_batched=True),
    Model(
        "add", [Tensor("a", "FP32", (4,)), Tensor("b", "FP32", (4,))], [Tensor("sum", "FP32", (4,))], is_batched=True
    ),
    _kept("text", ("t", "u", "BYTES")),
    _kept("half", ("h", "g", "FP16")),
    _kept("kinds", ("b", "c", "BOOL"), ("i", "j", "INT64"), ("o", "p", "UINT8"), ("d", "e", "FP64")),
)


def put_ours(repository: Path) -> None:
    """As folders of ONNX files."""
    for model in MODELS:
        folder = repository / model.name
        (folder / "1").mkdir(parents=True)
        onnx.save(_network(model), folder / "1" / "model.onnx")
        more = f"batch_max = {ROWS_MAX}" if model.is_batched else "batchable = false"
        (folder / "slotwise.toml").write_text(f"slo_ms = 10000\n{more}\n")
    (repository / BROKEN / "1").mkdir(parents=True)
    (repository / BROKEN / "1" / "model.onnx").write_bytes(b"this is no model")


def put_triton(repository: Path) -> None:
    """As folders of Python files."""
    for model in MODELS:
        folder = repository / model.name
        (folder / "1").mkdir(parents=True)
        shutil.copy(TRITON_MODEL, folder / "1" / "model.py")
        (folder / "config.pbtxt").write_text(_configuration(model))
    (repository / BROKEN / "1").mkdir(parents=True)
    (repository / BROKEN / "1" / "model.py").write_text("this is no model\n")
    (repository / BROKEN / "config.pbtxt").write_text(_configuration(msgspec.structs.replace(MODELS[0], name=BROKEN)))


def _network(model: Model) -> onnx.ModelProto:
    if len(model.outputs) == len(model.inputs):
        pairs = zip(model.inputs, model.outputs, strict=True)
        nodes = [helper.make_node("Identity", [given.name], [kept.name]) for given, kept in pairs]
    else:
        nodes = [helper.make_node("Add", [tensor.name for tensor in model.inputs], [model.outputs[0].name])]
    described = [[_described(model, tensor) for tensor in tensors] for tensors in (model.inputs, model.outputs)]
    graph = helper.make_graph(nodes, model.name, *described)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _described(model: Model, tensor: Tensor) -> onnx.ValueInfoProto:
    dims = ("n", *tensor.dims) if model.is_batched else tuple(f"{tensor.name}_length" for _ in tensor.dims)
    return helper.make_tensor_value_info(tensor.name, TYPES[tensor.datatype], dims)


def _configuration(model: Model) -> str:
    lines = [f'name: "{model.name}" backend: "python" max_batch_size: {ROWS_MAX if model.is_batched else 0}']
    for kind, tensors in (("input", model.inputs), ("output", model.outputs)):
        for tensor in tensors:
            datatype = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
            dims = ", ".join(map(str, tensor.dims))
            lines.append(f'{kind} [{{ name: "{tensor.name}" data_type: TYPE_{datatype} dims: [ {dims} ] }}]')
    lines.append("instance_group [{ kind: KIND_CPU count: 1 }]")
    if model.is_batched:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"
