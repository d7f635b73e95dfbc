"""Requests and answers of those servers whose application chooses the JSON: `{"model", "x"}` and `{"y"}`."""

from __future__ import annotations

import msgspec
import numpy as np
from harness.models import Body
from numpy.typing import NDArray

from peers.peer import Question, Reply


class _Answer(msgspec.Struct, frozen=True):
    y: list[float]


def question(path: str, model: str, row: NDArray[np.float32]) -> Question:
    """One row for a model."""
    return Question(path, Body(msgspec.json.encode({"model": model, "x": row[0].tolist()}), None))


def row(reply: Reply) -> NDArray[np.float32]:
    """The row that came back."""
    return np.array(msgspec.json.decode(reply.content, type=_Answer).y, np.float32)
