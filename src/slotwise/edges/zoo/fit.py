"""Fits a model file for serving: the only user of the onnx package. Loaded when a model is built, not before.

The edits are few and keep what the model computes: dimensions are opened or fixed, the batch is put in front, an
input that never changes becomes a constant. The edited model is then run, its outputs are declared with the shapes
that came out, and those answers are what it is tested against for ever after.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import, which starts a thread that reports otherwise

import onnxruntime
from onnx import helper, numpy_helper

from slotwise.edges.zoo import examples
from slotwise.edges.zoo.catalogue import BATCH, Constant, Source
from slotwise.edges.zoo.examples import Array
from slotwise.facts.value import value

INNER = "__inner"
"""Ends the name that a tensor has inside the model when its outer self is reshaped."""


@value
class Fitted:
    """An edited model, an example of its inputs, and the plain runtime's answers to it."""

    model: bytes
    example: dict[str, Array]
    expected: dict[str, Array]


def fit(content: bytes, source: Source) -> Fitted:
    """Edit a model as its source says, try it, and declare its outputs as they came out."""
    model = onnx.load_model_from_string(content)
    del model.graph.value_info[:]  # inner shapes, recorded for other dimensions
    for constant in source.constants:
        _make_constant(model.graph, constant)
    for name in source.batch_first:
        _put_batch_first(model.graph, name)
    for name in source.columns:
        _make_column(model.graph, name)
    for given in source.inputs:
        _declare(_tensor(model.graph.input, given.name), given.dims)
    example = _example(model.graph, source)
    expected = answers(model.SerializeToString(), example)
    _declare_outputs(model, source, example, expected)
    return Fitted(model=model.SerializeToString(), example=example, expected=expected)


def answers(model: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What the runtime answers with default options and one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # old files draw warnings about initializers that nobody uses
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _example(graph: onnx.GraphProto, source: Source) -> dict[str, Array]:
    found = {}
    for given in source.inputs:
        shape = tuple(1 if isinstance(dim, str) else dim for dim in given.dims)
        element = _tensor(graph.input, given.name).type.tensor_type.elem_type
        found[given.name] = examples.make(given.sample, shape, helper.tensor_dtype_to_np_dtype(element))
    return found


def _declare_outputs(
    model: onnx.ModelProto, source: Source, example: Mapping[str, Array], expected: Mapping[str, Array]
) -> None:
    """Dimensions that grow with the batch are the batch; all others are as they are."""
    doubled = {name: np.concatenate([rows, rows]) for name, rows in example.items()} if source.is_batchable else example
    twice = answers(model.SerializeToString(), doubled)
    for output in model.graph.output:
        shapes = zip(expected[output.name].shape, twice[output.name].shape, strict=True)
        _declare(output, [once if once == more else BATCH for once, more in shapes])


def _declare(tensor: onnx.ValueInfoProto, dims: Sequence[int | str]) -> None:
    shape = tensor.type.tensor_type.shape
    del shape.dim[:]
    for dim in dims:
        if isinstance(dim, str):
            shape.dim.add(dim_param=dim)
        else:
            shape.dim.add(dim_value=dim)


def _make_constant(graph: onnx.GraphProto, constant: Constant) -> None:
    tensor = _tensor(graph.input, constant.name)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type)
    graph.initializer.append(
        numpy_helper.from_array(np.full(constant.dims, constant.number, dtype=dtype), name=constant.name)
    )
    graph.input.remove(tensor)


def _put_batch_first(graph: onnx.GraphProto, name: str) -> None:
    """Exchange the first two of three dimensions on the way in, or on the way out."""
    if any(tensor.name == name for tensor in graph.input):
        _rename_inside(graph, name)
        graph.node.insert(0, helper.make_node("Transpose", [name], [name + INNER], perm=[1, 0, 2]))
    else:
        _rename_inside(graph, name)
        graph.node.append(helper.make_node("Transpose", [name + INNER], [name], perm=[1, 0, 2]))


def _make_column(graph: onnx.GraphProto, name: str) -> None:
    _rename_inside(graph, name)
    shape = f"{name}__shape"
    graph.initializer.append(numpy_helper.from_array(np.array([-1, 1], dtype=np.int64), name=shape))
    graph.node.append(helper.make_node("Reshape", [name + INNER, shape], [name]))


def _rename_inside(graph: onnx.GraphProto, name: str) -> None:
    """Rename a tensor wherever a node names it, in the branches of conditions too."""
    for node in graph.node:
        for attribute in node.attribute:
            for branch in (attribute.g, *attribute.graphs):
                _rename_inside(branch, name)
        for names in (node.input, node.output):
            for at, other in enumerate(names):
                if other == name:
                    names[at] = name + INNER


def _tensor(tensors: Sequence[onnx.ValueInfoProto], name: str) -> onnx.ValueInfoProto:
    return next(tensor for tensor in tensors if tensor.name == name)
