"""Slotwise itself, started as a user would: `slotwise serve FOLDER`, everything at its defaults but cores and port."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from peers import oip
from peers.peer import Form, Knobs, Launch, Question, Reply, Served, Work
from slotwise import __version__
from slotwise.facts.units import MS

EMULATED_ROWS = 64
"""Up to which an emulated model's time is told; it is a straight line."""


class Slotwise:
    """The server of this repository."""

    name = "slotwise"
    knobs = Knobs(batch=False)
    forms: Sequence[Form] = (Form.JSON, Form.BINARY)

    def install(self, root: Path) -> str:
        """It is here."""
        return __version__

    def launch(self, folder: Path, work: Work, port: int) -> Launch:
        """A repository with a folder for each model. Executors sit on the last cores, in turn."""
        repository = folder / "models"
        for name, served in work.models.items():
            _write(repository / name, served, work.settings.batch_max)
        cores = sorted(os.sched_getaffinity(0))
        chosen = ",".join(str(cores[-1 - at % len(cores)]) for at in range(work.settings.workers))
        program = str(Path(sys.executable).with_name("slotwise"))
        command = [
            program,
            "serve",
            str(repository),
            "--cores",
            chosen,
            "--http-port",
            str(port),
            "--grpc-port",
            str(port + 1),
        ]
        # Profiles measured at the first start are kept for later ones, as a user's are, but for this run alone.
        return Launch(command, port, {"HOME": str(folder.parent)})

    def question(self, model: str, row: NDArray[np.float32], form: Form, timeout_us: int | None) -> Question:
        """The open protocol."""
        return oip.question(model, row, form, timeout_us)

    def answer(self, reply: Reply, form: Form) -> NDArray[np.float32]:
        """The one output."""
        return oip.row(reply)


def _write(folder: Path, served: Served, batch_max: int) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    settings = [f"slo_ms = {served.slo_ms:g}", f"batch_max = {batch_max}"]
    (folder / "slotwise.toml").write_text("\n".join(settings) + "\n")
    if served.onnx is not None:
        shutil.copy(served.onnx, version / "model.onnx")
        return
    rows = (1, EMULATED_ROWS)
    tensors = {"inputs": ("x", served.width), "outputs": ("y", served.outputs)}
    emulated = {
        **{kind: [{"name": name, "datatype": "FP32", "shape": [-1, wide]}] for kind, (name, wide) in tensors.items()},
        "batchable": served.row_ms < served.sleep_ms,
        "profile": {
            "rows": rows,
            "run_ns": [int(served.run_ms(n) * MS) for n in rows],
            "load_ns": 0,
            "memory_bytes": 1,
        },
    }
    (version / "model.emulated.json").write_bytes(msgspec.json.encode(emulated))
