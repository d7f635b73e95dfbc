"""Requests and answers of the open protocol, which several of the servers speak."""

from __future__ import annotations

import msgspec
import numpy as np
from harness.models import binary_body, json_body
from numpy.typing import NDArray

from peers.peer import Form, Question, Reply


class _Output(msgspec.Struct, frozen=True):
    data: list[float] = []


class _Answer(msgspec.Struct, frozen=True):
    outputs: list[_Output]


def question(model: str, row: NDArray[np.float32], form: Form, timeout_us: int | None) -> Question:
    """One row for a model's only input `x`."""
    timeout_ns = None if timeout_us is None else timeout_us * 1000
    body_of = binary_body if form is Form.BINARY else json_body
    return Question(f"/v2/models/{model}/infer", body_of({"x": row}, timeout_ns))


def row(reply: Reply) -> NDArray[np.float32]:
    """The only output, in the form that it came in."""
    if reply.head_length is not None:
        return np.frombuffer(reply.content, np.float32, offset=reply.head_length)
    return np.array(msgspec.json.decode(reply.content, type=_Answer).outputs[0].data, np.float32)
