"""BentoML: a service behind uvicorn; a bound on requests under way, a timeout, batches that tune themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from harness.models import Body
from numpy.typing import NDArray

from peers.environment import Environment, prepare
from peers.launching import ONNXRUNTIME, environment
from peers.peer import Form, Knobs, Launch, Question, Reply, Work


class BentoML:
    """The peer."""

    name = "bentoml"
    knobs = Knobs(queue=True, timeout=True)
    forms: Sequence[Form] = (Form.JSON,)
    _environment: Environment
    _numbers: dict[str, int]

    def install(self, root: Path) -> str:
        """From PyPI."""
        self._environment = prepare(root, self.name, ("bentoml==1.4.39", ONNXRUNTIME, "numpy"))
        return self._environment.installed.version

    def launch(self, folder: Path, work: Work, port: int) -> Launch:
        """Its own program, told of the application."""
        self._numbers = {name: number for number, name in enumerate(work.models)}
        command = [self._environment.program("python"), "-m", "bentoml", "serve", "bentoml_app:Served"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        calm = {"BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
        return Launch(command, port, {**environment(folder, work), **calm})

    def question(self, model: str, row: NDArray[np.float32], form: Form, timeout_us: int | None) -> Question:
        """An array of one row with the model's number in front; there is no timeout of a request."""
        numbered = [[self._numbers[model], *row[0].tolist()]]
        return Question("/predict", Body(msgspec.json.encode({"x": numbered}), None))

    def answer(self, reply: Reply, form: Form) -> NDArray[np.float32]:
        """An array of one row."""
        return np.array(msgspec.json.decode(reply.content, type=list[list[float]])[0], np.float32)
