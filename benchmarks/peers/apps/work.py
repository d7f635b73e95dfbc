"""The work that every peer serves, in its own process: the same session of the runtime, or the same emulated device.

Read from the file that the environment names. Emulated models share one device: a run holds its lock and waits, so a
server that starts several runs at once gains nothing by it, however many threads or processes it starts them from.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import numpy as np

WORK = json.loads(Path(os.environ["SLOTWISE_PEER_WORK"]).read_text(encoding="utf-8"))
SETTINGS = WORK["settings"]
IS_BINARY = SETTINGS["form"] == "binary"


class Model:
    """One model, loaded."""

    def __init__(self, name: str) -> None:
        self._served = served = WORK["models"][name]
        self._session = None
        if served["onnx"] is not None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self._session = onnxruntime.InferenceSession(served["onnx"], options, providers=["CPUExecutionProvider"])

    def run(self, rows: np.ndarray) -> np.ndarray:
        """What the model says of these rows."""
        if self._session is not None:
            return self._session.run(None, {"x": rows})[0]
        with Path(WORK["device"]).open("rb") as device:
            fcntl.flock(device, fcntl.LOCK_EX)
            time.sleep((self._served["sleep_ms"] + self._served["row_ms"] * (len(rows) - 1)) / 1000)
        return np.zeros((len(rows), self._served["outputs"]), np.float32)


def load_all() -> dict[str, Model]:
    """Every model."""
    return {name: Model(name) for name in WORK["models"]}


def run_mixed(models: dict[str, Model], asked: list[tuple[str, np.ndarray]]) -> list[np.ndarray]:
    """The outputs for single rows, each for the model it names; rows of one model run as one batch."""
    outputs: list[np.ndarray | None] = [None] * len(asked)
    for name in dict.fromkeys(name for name, _ in asked):
        places = [place for place, (wanted, _) in enumerate(asked) if wanted == name]
        batch = models[name].run(np.stack([asked[place][1] for place in places]))
        for place, output in zip(places, batch, strict=True):
            outputs[place] = output
    return outputs
