"""Makes the model that a pipeline of the zoo begins with, and what the whole answers to an example.

It turns a picture as cameras give it, bytes with the colours last, into what the models of lines take: numbers from -1
to 1 with the colours first, once at its size and once narrower. Loaded when it is needed, as it needs the onnx package.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from slotwise.edges.zoo import examples
from slotwise.edges.zoo.catalogue import BATCH, Sample
from slotwise.edges.zoo.chain import ANGLE, ANGLES, CHARACTERS, PICTURE, READ
from slotwise.edges.zoo.fit import Fitted, answers

HEIGHT, WIDTH, NARROW_WIDTH = 48, 320, 192
OPSET, FORMAT = 17, 9


def prepare() -> Fitted:
    """The model, an example of a picture, and its answers."""
    nodes = [
        helper.make_node("Cast", [PICTURE], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "middle"], ["centred"]),
        helper.make_node("Transpose", ["centred"], ["line"], perm=[0, 3, 1, 2]),
        helper.make_node("Resize", ["line", "", "factors"], ["narrow"], mode="linear"),
    ]
    numbers = {"scale": [1 / 127.5], "middle": [1.0], "factors": [1.0, 1.0, 1.0, NARROW_WIDTH / WIDTH]}
    graph = helper.make_graph(
        nodes,
        "prepare",
        [helper.make_tensor_value_info(PICTURE, TensorProto.UINT8, [BATCH, HEIGHT, WIDTH, 3])],
        [
            helper.make_tensor_value_info("line", TensorProto.FLOAT, [BATCH, 3, HEIGHT, WIDTH]),
            helper.make_tensor_value_info("narrow", TensorProto.FLOAT, [BATCH, 3, HEIGHT, NARROW_WIDTH]),
        ],
        [numpy_helper.from_array(np.array(given, np.float32), name) for name, given in numbers.items()],
    )
    model = helper.make_model(graph, ir_version=FORMAT, opset_imports=[helper.make_opsetid("", OPSET)])
    checker.check_model(model)
    drawn = examples.make(Sample.LINE, (1, 3, HEIGHT, WIDTH), np.float64).astype(np.float64)
    picture = ((drawn + 1) * 127.5).round().astype(np.uint8).transpose(0, 2, 3, 1)
    example: dict[str, examples.Array] = {PICTURE: np.ascontiguousarray(picture)}
    content = model.SerializeToString()
    return Fitted(model=content, example=example, expected=answers(content, example))


def expected(prepared: Fitted, models: Mapping[str, bytes]) -> dict[str, examples.Array]:
    """What the steps after it answer to what it gives, each run by the plain runtime."""
    (characters,) = answers(models[READ], {"x": prepared.expected["line"]}).values()
    (angles,) = answers(models[ANGLE], {"x": prepared.expected["narrow"]}).values()
    return {CHARACTERS: characters, ANGLES: angles}
