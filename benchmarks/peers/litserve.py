"""LitServe: a front of FastAPI, workers in Python; a timeout and batches, no bound on the queue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peers import json_row
from peers.environment import Environment, prepare
from peers.launching import ONNXRUNTIME, environment
from peers.peer import APPS, Form, Knobs, Launch, Question, Reply, Work


class LitServe:
    """The peer."""

    name = "litserve"
    knobs = Knobs(timeout=True, wait=True)
    forms: Sequence[Form] = (Form.JSON,)
    _environment: Environment

    def install(self, root: Path) -> str:
        """From PyPI."""
        self._environment = prepare(root, self.name, ("litserve==0.2.19", ONNXRUNTIME, "numpy"))
        return self._environment.installed.version

    def launch(self, folder: Path, work: Work, port: int) -> Launch:
        """A program; its settings stand in the work."""
        command = [self._environment.program("python"), str(APPS / "litserve_app.py"), str(port)]
        return Launch(command, port, environment(folder, work))

    def question(self, model: str, row: NDArray[np.float32], form: Form, timeout_us: int | None) -> Question:
        """What the application chose; there is no timeout of a request."""
        return json_row.question("/predict", model, row)

    def answer(self, reply: Reply, form: Form) -> NDArray[np.float32]:
        """The same, back."""
        return json_row.row(reply)
