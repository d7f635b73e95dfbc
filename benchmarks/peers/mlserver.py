"""MLServer: the open protocol in Python, workers in processes; batches, but neither a bound nor a timeout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from peers import oip
from peers.environment import Environment, prepare
from peers.launching import ONNXRUNTIME, environment
from peers.peer import Form, Knobs, Launch, Question, Reply, Work


class MLServer:
    """The peer."""

    name = "mlserver"
    knobs = Knobs(wait=True)
    forms: Sequence[Form] = (Form.JSON,)
    _environment: Environment

    def install(self, root: Path) -> str:
        """From PyPI. Its workers die at the start with a newer uvloop."""
        requirements = ("mlserver==1.7.1", "uvloop<0.22", ONNXRUNTIME, "numpy")
        self._environment = prepare(root, self.name, requirements)
        return self._environment.installed.version

    def launch(self, folder: Path, work: Work, port: int) -> Launch:
        """A folder of models, and a file of settings beside them."""
        settings = work.settings
        server = {"host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
        _write(folder / "settings.json", {**server, "parallel_workers": settings.workers})
        batching = {"max_batch_size": settings.batch_max, "max_batch_time": settings.batch_wait_ms / 1000}
        for name in work.models:
            described = {"name": name, "implementation": "mlserver_runtime.Runtime"}
            _write(folder / name / "model-settings.json", described | (batching if settings.batch_max > 1 else {}))
        command = [self._environment.program("python"), self._environment.program("mlserver"), "start", str(folder)]
        return Launch(command, port, environment(folder, work))

    def question(self, model: str, row: NDArray[np.float32], form: Form, timeout_us: int | None) -> Question:
        """The open protocol; there is no timeout of a request."""
        return oip.question(model, row, form, None)

    def answer(self, reply: Reply, form: Form) -> NDArray[np.float32]:
        """The one output."""
        return oip.row(reply)


def _write(path: Path, content: dict[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.encode(content))
