"""Models to serve, and requests for them in both forms of the protocol."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from slotwise.facts.units import MS

MLP_LAYERS = (64, 128, 128, 10)
DATATYPES = {np.dtype(np.float32): "FP32", np.dtype(np.int32): "INT32", np.dtype(np.int64): "INT64"}


class Body(msgspec.Struct, frozen=True):
    """A request's body. `head_length` is None where all of it is JSON."""

    content: bytes
    head_length: int | None

    def headers(self) -> dict[str, str]:
        """What has to be said of it."""
        if self.head_length is None:
            return {"Content-Type": "application/json"}
        return {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(self.head_length)}


def build_mlp(repository: Path, name: str = "mlp", slo_ms: int = 10_000) -> Path:
    """A tiny network of 26 thousand weights, 8 us of work; the path of its file."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for number, (wide, narrow) in enumerate(pairwise(MLP_LAYERS)):
        matrix = rng.standard_normal((wide, narrow), dtype=np.float32) / np.sqrt(wide, dtype=np.float32)
        weights += [
            numpy_helper.from_array(matrix, f"w{number}"),
            numpy_helper.from_array(np.zeros(narrow, np.float32), f"b{number}"),
        ]
        is_last = number == len(MLP_LAYERS) - 2
        out = "y" if is_last else f"h{number}"
        nodes.append(helper.make_node("Gemm", [last, f"w{number}", f"b{number}"], [out if is_last else f"g{number}"]))
        if not is_last:
            nodes.append(helper.make_node("Relu", [f"g{number}"], [out]))
        last = out
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", MLP_LAYERS[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", MLP_LAYERS[-1]])
    graph = helper.make_graph(nodes, "mlp", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = repository / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    (repository / name / "slotwise.toml").write_text(f"slo_ms = {slo_ms}\nbatch_max = 32\n")
    return path


def mlp_row() -> NDArray[np.float32]:
    """One row of input."""
    return np.random.default_rng(1).standard_normal((1, MLP_LAYERS[0]), dtype=np.float32)


def binary_body(tensors: dict[str, NDArray[np.generic]], timeout_ns: int | None = None) -> Body:
    """A request with its tensors in binary, asking for binary outputs."""
    parameters: dict[str, object] = {"binary_data_output": True}
    if timeout_ns is not None:
        parameters["timeout"] = timeout_ns // 1000
    inputs = [
        {**_described(name, array), "parameters": {"binary_data_size": array.nbytes}} for name, array in tensors.items()
    ]
    head = msgspec.json.encode({"inputs": inputs, "parameters": parameters})
    return Body(content=head + b"".join(array.tobytes() for array in tensors.values()), head_length=len(head))


def json_body(tensors: dict[str, NDArray[np.generic]], timeout_ns: int | None = None) -> Body:
    """A request all in JSON."""
    inputs = [{**_described(name, array), "data": array.ravel().tolist()} for name, array in tensors.items()]
    told: dict[str, object] = {"inputs": inputs}
    if timeout_ns is not None:
        told["parameters"] = {"timeout": timeout_ns // 1000}
    return Body(content=msgspec.json.encode(told), head_length=None)


def zoo_example(zoo: Path, name: str) -> dict[str, NDArray[np.generic]]:
    """The example that a zoo model comes with: real data, one row."""
    with np.load(zoo / name / "example.npz") as arrays:
        return dict(arrays)


def zoo_slo_ns(zoo: Path, name: str) -> int:
    """The allowance that a zoo model asks for."""
    settings = tomllib.loads((zoo / name / "slotwise.toml").read_text(encoding="utf-8"))
    return int(settings["slo_ms"]) * MS


def _described(name: str, array: NDArray[np.generic]) -> dict[str, object]:
    return {"name": name, "datatype": DATATYPES[array.dtype], "shape": list(array.shape)}
