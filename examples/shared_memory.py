"""A client on the server's own machine: arrays in shared memory, a stream of questions, and a refusal.

The model is emulated: it waits out a profile of 20 ms and answers zeros, so the example needs no model file.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from slotwise.client import Client, Question, Refused

MODEL = {
    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 224, 224]}],
    "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
    "batchable": True,
    "profile": {"rows": [1], "run_ns": [20_000_000], "load_ns": 1_000_000, "memory_bytes": 1_000_000},
}
CONFIG = """repository = "{0}/models"
cache = "{0}/profiles"
local_socket = "{0}/socket"
http_port = 0
grpc = false
memory_mib = 256
"""
WAIT_S_MAX = 60.0


def write_repository(folder: Path) -> Path:
    """A repository of one model, `models/camera/1`, and the server's configuration beside it."""
    version = folder / "models" / "camera" / "1"
    version.mkdir(parents=True)
    (version / "model.emulated.json").write_text(json.dumps(MODEL), encoding="utf-8")
    config = folder / "server.toml"
    config.write_text(CONFIG.format(folder), encoding="utf-8")
    return config


def ask(client: Client) -> None:
    image = client.empty((1, 3, 224, 224), np.float32)  # in shared memory: what is written there is not copied
    image[:] = 0.5
    answer = client.infer("camera", {"image": image}, timeout_us=30_000_000)
    print(f"one answer: scores of shape {answer.outputs['scores'].shape}, read-only in shared memory")

    frames = client.empty((8, 3, 224, 224), np.float32)
    frames[:] = np.arange(8).reshape(8, 1, 1, 1)
    questions = (
        Question(model="camera", inputs={"image": frames[index : index + 1]}, timeout_us=30_000_000)
        for index in range(8)
    )
    answered = [streamed.index for streamed in client.stream(questions, window=4) if streamed.result()]
    print(f"a stream of 8 frames, 4 at once: answered {sorted(answered)}")

    try:
        client.infer("camera", {"image": image}, timeout_us=1_000)
    except Refused as refused:
        is_told = refused.retry_after_ms > 0
        print(f"1 ms for a model of 20 ms: {refused.status}, {refused.reason}; told when to come again: {is_told}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        config = write_repository(Path(name))
        command = [sys.executable, "-m", "slotwise.cli", "serve", "--config", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()  # serving 1 models on http://127.0.0.1:PORT
            address = process.stdout.readline().split()[-1]  # local clients at unix:///PATH
            try:
                with Client(address) as client:
                    ask(client)
            finally:
                process.terminate()
                process.communicate(timeout=WAIT_S_MAX)
    print(f"the server ended with {process.returncode}")


if __name__ == "__main__":
    main()
