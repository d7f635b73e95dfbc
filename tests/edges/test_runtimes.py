"""Runtimes: files become models that run, stop, and say what they are; those that cannot say why."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slotwise.edges import runtimes
from slotwise.edges.runtimes import RunError, Stopped
from slotwise.edges.runtimes.inspection import inspect
from slotwise.edges.runtimes.tensors import NUMPY_TYPES, TensorError, read_tensor, texts_to_bytes
from slotwise.engine.ports import ModelError
from tests.contracts.live import build_chain, build_mlp

MS = 1_000_000
BUDGET_NS = 50 * MS


def save(path: Path, node: onnx.NodeProto, inputs: list, outputs: list, weights: list | None = None) -> str:
    """Write a model of one node."""
    graph = helper.make_graph([node], "one", inputs, outputs, weights or [])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return str(path)


def info(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.fixture
def mlp(tmp_path: Path) -> str:
    build_mlp(tmp_path / "mlp.onnx", (64, 32, 10))
    return str(tmp_path / "mlp.onnx")


def write_emulated(path: Path, **changes: object) -> str:
    tensor = {"datatype": "FP32", "shape": [-1, 4]}
    content = {
        "inputs": [{"name": "x", **tensor}],
        "outputs": [{"name": "y", **tensor}, {"name": "label", "datatype": "BYTES", "shape": [-1, -1]}],
        "profile": {"rows": [1, 2], "run_ns": [MS, 2 * MS], "load_ns": MS, "memory_bytes": 1000},
        **changes,
    }
    path.write_text(json.dumps(content))
    return str(path)


def test_a_file_with_an_unknown_ending_or_none_at_all_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"must end in one of \.onnx, \.emulated\.json"):
        runtimes.load(str(tmp_path / "model.pt"), 1)
    with pytest.raises(ModelError, match="there is no file"):
        runtimes.load(str(tmp_path / "model.onnx"), 1)


def test_an_unreadable_onnx_file_is_refused_with_the_runtime_s_text(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_text("not a model")
    with pytest.raises(ModelError, match="Protobuf parsing failed"):
        runtimes.load(str(path), 1)


def test_a_model_says_its_tensors_with_what_varies_as_minus_one(mlp: str) -> None:
    described = runtimes.load(mlp, 1).describe()
    assert [(spec.name, spec.datatype, spec.shape) for spec in described.inputs] == [("x", "FP32", (-1, 64))]
    assert [(spec.name, spec.datatype, spec.shape) for spec in described.outputs] == [("y", "FP32", (-1, 10))]


def test_an_output_is_written_into_the_array_given_for_it(mlp: str) -> None:
    model = runtimes.load(mlp, 1)
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)}
    expected = model.run(feeds, 3, ["y"], {})[0]
    room = np.full((3, 10), np.nan, np.float32)
    (given,) = model.run(feeds, 3, ["y"], {"y": room})
    assert given is room
    assert np.array_equal(room, expected)


def test_a_wrong_shape_is_a_run_error_with_the_runtime_s_text(mlp: str) -> None:
    model = runtimes.load(mlp, 1)
    with pytest.raises(RunError, match="invalid dimensions"):
        model.run({"x": np.zeros((1, 63), np.float32)}, 1, ["y"], {})
    with pytest.raises(RunError):
        model.run({}, 1, ["y"], {})
    assert model.run({"x": np.zeros((1, 64), np.float32)}, 1, ["y"], {})[0].shape == (1, 10)


@pytest.mark.parametrize("kind", ["onnx", "emulated"])
def test_a_stop_between_arm_and_the_end_of_a_run_ends_it_and_arm_forgets_it(tmp_path: Path, kind: str) -> None:
    if kind == "onnx":
        build_chain(tmp_path / "chain.onnx", 256, 40)
        path, feeds = str(tmp_path / "chain.onnx"), {"x": np.zeros((256, 256), np.float32)}
    else:
        path, feeds = write_emulated(tmp_path / "m.emulated.json"), {"x": np.zeros((1, 4), np.float32)}
    model = runtimes.load(path, 1)
    model.arm()
    stopper = threading.Thread(target=model.stop)
    stopper.start()
    stopper.join()
    with pytest.raises(Stopped):
        model.run(feeds, 1, ["y"], {})
    model.arm()
    assert len(model.run(feeds, 1, ["y"], {})) == 1


@pytest.mark.parametrize("datatype", [name for name in NUMPY_TYPES if name != "BYTES"])
def test_numbers_are_viewed_where_they_lie(datatype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(NUMPY_TYPES[datatype])
    memory = memoryview(bytes(64) + array.tobytes())
    read = read_tensor(memory, datatype, (2, 3), 64, array.nbytes)
    assert np.array_equal(read, array)
    assert not read.flags.owndata


def test_texts_survive_the_way_there_and_back() -> None:
    texts = np.array([["a", ""], ["größer", "x" * 300]], np.object_)
    data = texts_to_bytes(texts)
    assert data[:5] == b"\x01\x00\x00\x00a"
    assert np.array_equal(read_tensor(memoryview(data), "BYTES", (2, 2), 0, len(data)), texts)


@pytest.mark.parametrize(
    ("datatype", "shape", "nbytes", "complaint"),
    [
        ("FP32", (4,), 12, "is 16 bytes long, not 12"),
        ("FP32", (400,), 1600, "does not lie at 0"),
        ("FP31", (1,), 4, "datatype 'FP31' is none of"),
        ("BYTES", (1,), 7, "element 0 .* is cut off"),
        ("BYTES", (1,), 16, "is not UTF-8"),
        ("BYTES", (3,), 0, "0 elements, which do not fill"),
    ],
)
def test_bytes_that_are_no_such_tensor_are_refused(
    datatype: str, shape: tuple[int, ...], nbytes: int, complaint: str
) -> None:
    memory = memoryview(b"\x08\x00\x00\x00" + b"\xff" * 12)
    with pytest.raises(TensorError, match=complaint):
        read_tensor(memory, datatype, shape, 0, nbytes)


def test_an_emulated_model_gives_zeros_of_the_right_shapes(tmp_path: Path) -> None:
    model = runtimes.load(write_emulated(tmp_path / "m.emulated.json"), 1)
    y, label = model.run({}, 2, ["y", "label"], {})
    assert (y.shape, y.dtype, label.shape, label.dtype) == ((2, 4), np.float32, (2, 1), np.object_)
    with pytest.raises(RunError, match="there is no output 'z'"):
        model.run({}, 1, ["z"], {})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"profile": {"rows": [2], "run_ns": [5], "load_ns": 0, "memory_bytes": 0}}, "rows must ascend from 1"),
        ({"profile": 5}, r"\$\.profile"),
        ({"inputs": [{"name": "x", "datatype": "FLOAT", "shape": []}]}, "unknown datatype 'FLOAT'"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_an_emulated_file_that_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ModelError, match=complaint):
        runtimes.load(write_emulated(tmp_path / "m.emulated.json", **changes), 1)


def test_an_inspection_measures_ascending_batches_of_a_batchable_model(mlp: str) -> None:
    found = inspect(mlp, 6, 1, BUDGET_NS, {})
    assert found.batchable
    assert found.profile.rows == (1, 2, 4)
    assert len(found.profile.run_ns) == len(found.profile.wall_ns) == 3
    assert all(time > 0 for time in found.profile.run_ns + found.profile.wall_ns)
    assert found.profile.load_ns > 0
    assert found.profile.memory_bytes > 0


def test_an_inspection_of_an_emulated_model_takes_the_file_at_its_word(tmp_path: Path) -> None:
    found = inspect(write_emulated(tmp_path / "m.emulated.json"), 8, 1, BUDGET_NS, {})
    assert (found.profile.rows, found.profile.run_ns, found.batchable) == ((1, 2), (MS, 2 * MS), True)


def test_a_model_with_a_fixed_first_dimension_is_not_batchable(tmp_path: Path) -> None:
    x, y = info("x", TensorProto.FLOAT, [1, 4]), info("y", TensorProto.FLOAT, [1, 4])
    path = save(tmp_path / "fixed.onnx", helper.make_node("Relu", ["x"], ["y"]), [x], [y])
    found = inspect(path, 8, 1, BUDGET_NS, {})
    assert not found.batchable
    assert found.profile.rows == (1,)


def test_a_model_whose_rows_know_of_each_other_is_not_batchable(tmp_path: Path) -> None:
    x, y = info("x", TensorProto.FLOAT, ["n", 4]), info("y", TensorProto.FLOAT, ["n", 4])
    path = save(tmp_path / "mixing.onnx", helper.make_node("Softmax", ["x"], ["y"], axis=0), [x], [y])
    assert not inspect(path, 8, 1, BUDGET_NS, {}).batchable


def test_a_dimension_that_varies_takes_its_size_from_the_example_shapes(tmp_path: Path) -> None:
    kernel = numpy_helper.from_array(np.ones((1, 1, 5, 5), np.float32), "w")
    x, y = info("x", TensorProto.FLOAT, ["n", 1, "h", "w_"]), info("y", TensorProto.FLOAT, ["n", 1, "i", "j"])
    path = save(tmp_path / "conv.onnx", helper.make_node("Conv", ["x", "w"], ["y"]), [x], [y], [kernel])
    with pytest.raises(ModelError, match="give example shapes"):
        inspect(path, 2, 1, BUDGET_NS, {})
    assert inspect(path, 2, 1, BUDGET_NS, {"x": (1, 1, 8, 8)}).batchable
    with pytest.raises(ModelError, match=r"\[1, 2, 8, 8\] is no example of"):
        inspect(path, 2, 1, BUDGET_NS, {"x": (1, 2, 8, 8)})
    with pytest.raises(ModelError, match="has no input z"):
        inspect(path, 2, 1, BUDGET_NS, {"z": (1,)})


def test_a_model_of_texts_is_inspected_like_any_other(tmp_path: Path) -> None:
    s, t = info("s", TensorProto.STRING, ["n", 1]), info("t", TensorProto.STRING, ["n", 1])
    found = inspect(
        save(tmp_path / "texts.onnx", helper.make_node("Identity", ["s"], ["t"]), [s], [t]), 2, 1, BUDGET_NS, {}
    )
    assert found.batchable
    assert found.inputs[0].datatype == "BYTES"
