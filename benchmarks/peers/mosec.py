"""mosec: a front in Rust, workers in Python; one queue with a bound and one timeout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peers import json_row
from peers.environment import Environment, prepare
from peers.launching import ONNXRUNTIME, environment
from peers.peer import APPS, Form, Knobs, Launch, Question, RawBody, Reply, Work

NAME_LEN = 32
"""As in `apps/mosec_app.py`."""


class Mosec:
    """The peer."""

    name = "mosec"
    knobs = Knobs(queue=True, timeout=True, wait=True)
    forms: Sequence[Form] = (Form.JSON, Form.BINARY)
    _environment: Environment

    def install(self, root: Path) -> str:
        """From PyPI."""
        self._environment = prepare(root, self.name, ("mosec==0.9.8", ONNXRUNTIME, "numpy"))
        return self._environment.installed.version

    def launch(self, folder: Path, work: Work, port: int) -> Launch:
        """Its settings are options of the program that it is part of."""
        settings = work.settings
        command = [self._environment.program("python"), str(APPS / "mosec_app.py")]
        command += ["--address", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
        if settings.queue_max is not None:
            command += ["--capacity", str(settings.queue_max)]
        if settings.timeout_ms is not None:
            command += ["--timeout", str(int(settings.timeout_ms))]
        return Launch(command, port, environment(folder, work))

    def question(self, model: str, row: NDArray[np.float32], form: Form, timeout_us: int | None) -> Question:
        """What the application chose; there is no timeout of a request."""
        if form is Form.BINARY:
            return Question("/inference", RawBody(model.encode().ljust(NAME_LEN) + row.tobytes(), None))
        return json_row.question("/inference", model, row)

    def answer(self, reply: Reply, form: Form) -> NDArray[np.float32]:
        """The same, back."""
        if form is Form.BINARY:
            return np.frombuffer(reply.content, np.float32)
        return json_row.row(reply)
