"""Triton Inference Server: the real binary as a package on PyPI carries it, with its backend in Python.

That package has no backend for ONNX, so a model in Python holds the same session as everywhere else. Its stub needs an
interpreter whose standard library fits the one that it was built with; Debian's own does.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peers import oip
from peers.environment import Environment, prepare
from peers.launching import ONNXRUNTIME, environment
from peers.peer import APPS, Form, Knobs, Launch, Question, Reply, Served, Settings, Work

INTERPRETER = "/usr/bin/python3"
EXIT_S_MAX = 2


class Triton:
    """The peer."""

    name = "triton"
    knobs = Knobs(queue=True, timeout=True)
    forms: Sequence[Form] = (Form.JSON, Form.BINARY)
    _environment: Environment

    def install(self, root: Path) -> str:
        """From PyPI, and its backend laid out as the binary wants it."""
        self._environment = prepare(root, self.name, ("nvidia-pytriton==0.7.0", ONNXRUNTIME, "numpy"), INTERPRETER)
        backend = self._backends / "python"
        if not backend.exists():
            shutil.copytree(self._server / "backends" / "python", backend)
            version = self._environment.packages.parent.name.removeprefix("python")
            stub = self._server / "python_backend_stubs" / version / "triton_python_backend_stub"
            shutil.copy(stub, backend)
            (backend / stub.name).chmod(0o755)
        return f"2.51 of nvidia-pytriton {self._environment.installed.version}"

    def launch(self, folder: Path, work: Work, port: int) -> Launch:
        """A folder of models with their configurations."""
        repository = folder / "models"
        longest_ms = max(served.slo_ms for served in work.models.values())
        for name, served in work.models.items():
            (repository / name / "1").mkdir(parents=True)
            shutil.copy(APPS / "triton_model.py", repository / name / "1" / "model.py")
            shutil.copy(APPS / "work.py", repository / name / "1")
            text = _configuration(name, served, work.settings, served.slo_ms / longest_ms)
            (repository / name / "config.pbtxt").write_text(text)
        return self.launch_over(repository, port, environment(folder, work))

    def launch_over(
        self, repository: Path, port: int, variables: Mapping[str, str], options: Sequence[str] = ()
    ) -> Launch:
        """The server over a folder of models; HTTP is at `port`, gRPC and metrics at the two after it."""
        ports = {"http": port, "grpc": port + 1, "metrics": port + 2}
        command = [str(self._server / "bin" / "tritonserver"), "--model-repository", str(repository)]
        command += ["--backend-directory", str(self._backends), "--exit-timeout-secs", str(EXIT_S_MAX)]
        command += ["--allow-gpu-metrics", "false", *options]
        for kind, number in ports.items():
            command += [f"--{kind}-address", "127.0.0.1", f"--{kind}-port", str(number)]
        return Launch(command, port, self._paths(variables))

    def question(self, model: str, row: NDArray[np.float32], form: Form, timeout_us: int | None) -> Question:
        """The open protocol. The timeout bounds the time in the queue, where the model's policy lets it."""
        return oip.question(model, row, form, timeout_us)

    def answer(self, reply: Reply, form: Form) -> NDArray[np.float32]:
        """The one output."""
        return oip.row(reply)

    @property
    def _server(self) -> Path:
        return self._environment.packages / "pytriton" / "tritonserver"

    @property
    def _backends(self) -> Path:
        return self._environment.folder / "backends"

    def _paths(self, variables: Mapping[str, str]) -> dict[str, str]:
        packages = self._environment.packages
        return {
            **variables,
            "PATH": f"{self._environment.folder / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(packages),
            "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
        }


def _configuration(name: str, served: Served, settings: Settings, share: float) -> str:
    """A model's configuration. Its timeout is its share of the longest SLO's."""
    policy = []
    if settings.timeout_ms is not None:
        timeout_us = int(settings.timeout_ms * share * 1000)
        policy += [f"timeout_action: REJECT default_timeout_microseconds: {timeout_us} allow_timeout_override: true"]
    if settings.queue_max is not None:
        policy += [f"max_queue_size: {settings.queue_max}"]
    batching = []
    if policy:
        batching = [f"dynamic_batching {{ default_queue_policy {{ {' '.join(policy)} }} }}"]
    elif settings.batch_max > 1:
        batching = ["dynamic_batching { }"]
    lines = [
        f'name: "{name}" backend: "python" max_batch_size: {settings.batch_max}',
        f'input [{{ name: "x" data_type: TYPE_FP32 dims: [ {served.width} ] }}]',
        f'output [{{ name: "y" data_type: TYPE_FP32 dims: [ {served.outputs} ] }}]',
        f"instance_group [{{ kind: KIND_CPU count: {settings.workers} }}]",
        *batching,
    ]
    return "\n".join(lines) + "\n"
