"""Pipelines on disk for live tests: models that multiply and add, emulated ones that take their time, their chains."""

from __future__ import annotations

import json
from pathlib import Path

from onnx import TensorProto, helper

from tests.edges.repositories import multiplier

CHAIN = """
inputs: [x]
outputs: [y]
steps:
  - {{model: {0}, inputs: {{x: x}}, outputs: {{y: middle}}}}
  - {{model: {1}, inputs: {{x: middle}}, outputs: {{y: y}}}}
"""
DIAMOND = """
slo_ms: 20000
inputs: [x]
outputs: [sum, left]          # one of the last step, one of an earlier
steps:
  - {model: add, inputs: {a: left, b: right}, outputs: {c: sum}}
  - {model: double, inputs: {x: first}, outputs: {y: left}}
  - {model: triple, inputs: {x: first}, outputs: {y: right}}
  - {model: double, inputs: {x: x}, outputs: {y: first}}
"""
RESIDUAL = """
slo_ms: 20000
inputs: [x]
outputs: [y]
steps:
  - {model: double, inputs: {x: x}, outputs: {y: twice}}
  - {model: add, inputs: {a: x, b: twice}, outputs: {c: y}}
"""


def put_file(root: Path, name: str, file: str, content: bytes, settings: str = "") -> None:
    """A file in a model's folder, and its settings."""
    path = root / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if settings:
        (root / name / "slotwise.toml").write_text(settings)


def put_pipeline(root: Path, name: str, text: str) -> None:
    """A pipeline."""
    put_file(root, name, "pipeline.yaml", text.encode())


def put_arithmetic(root: Path) -> None:
    """Models that double, triple and add, a diamond of them, and one with a way around."""
    put_file(root, "double", "1/model.onnx", multiplier(2, "batch"))
    put_file(root, "triple", "1/model.onnx", multiplier(3, "batch"))
    put_file(root, "add", "1/model.onnx", adder())
    put_pipeline(root, "diamond", DIAMOND)
    put_pipeline(root, "residual", RESIDUAL)


def put_patient(root: Path, name: str, run_ms: float) -> None:
    """An emulated model that gives what it takes in shape, and zeros."""
    tensor = {"datatype": "FP32", "shape": [-1, 3]}
    profile = {"rows": [1], "run_ns": [int(run_ms * 1e6)], "load_ns": 1_000_000, "memory_bytes": 1 << 20}
    document = {
        "inputs": [{"name": "x", **tensor}],
        "outputs": [{"name": "y", **tensor}],
        "batchable": True,
        "profile": profile,
    }
    put_file(root, name, "1/model.emulated.json", json.dumps(document).encode())


def adder() -> bytes:
    """A model whose output is the sum of its inputs."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "adder", tensors[:2], tensors[2:])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    return model.SerializeToString()
