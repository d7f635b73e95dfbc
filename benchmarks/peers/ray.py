"""Ray Serve: a proxy, a controller and replicas on Ray; bounded queues at the proxy, one timeout for all, batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peers import json_row
from peers.environment import Environment, prepare
from peers.launching import ONNXRUNTIME, environment
from peers.peer import APPS, Form, Knobs, Launch, Question, Reply, Work


class RayServe:
    """The peer."""

    name = "ray"
    knobs = Knobs(queue=True, timeout=True)
    forms: Sequence[Form] = (Form.JSON,)
    _environment: Environment

    def install(self, root: Path) -> str:
        """From PyPI."""
        self._environment = prepare(root, self.name, ("ray[serve]==2.60.0", ONNXRUNTIME, "numpy"))
        return self._environment.installed.version

    def launch(self, folder: Path, work: Work, port: int) -> Launch:
        """A program that starts a cluster of one node and serves from it."""
        command = [self._environment.program("python"), str(APPS / "ray_app.py"), str(port)]
        return Launch(command, port, {**environment(folder, work), "RAY_USAGE_STATS_ENABLED": "0"})

    def question(self, model: str, row: NDArray[np.float32], form: Form, timeout_us: int | None) -> Question:
        """What the application chose; there is no timeout of a request."""
        return json_row.question("/", model, row)

    def answer(self, reply: Reply, form: Form) -> NDArray[np.float32]:
        """The same, back."""
        return json_row.row(reply)
