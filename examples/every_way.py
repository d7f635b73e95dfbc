"""One client for every way to a server: the same over HTTP, gRPC and shared memory, by future and by callback.

The model is emulated: it waits out a profile of 2 ms and answers zeros, so the example needs no model file. The server
wants tokens; a local socket does not ask for one, since it is open to the server's own user alone.
"""

import json
import queue
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from slotwise.client import BadRequest, Client, ClientError, InferResult, Question
from slotwise.edges.oip.access import Grant, new_token, written

MODEL = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    "batchable": True,
    "profile": {
        "rows": [1, 16],
        "run_ns": [2_000_000, 4_000_000],
        "load_ns": 1_000_000,
        "memory_bytes": 1_000_000,
    },
}
CONFIG = """repository = "{0}/models"
cache = "{0}/profiles"
tokens = "{0}/tokens.toml"
local_socket = "{0}/socket"
http_port = 0
grpc_port = 0
grpc = true
memory_mib = 256
"""
QUESTIONS = 100
ALLOWED_US = 60_000_000
WAIT_S_MAX = 60.0


def prepare(folder: Path) -> tuple[Path, str]:
    """A repository of one model and one token for it; the server's configuration, and the token."""
    version = folder / "models" / "tiny" / "1"
    version.mkdir(parents=True)
    (version / "model.emulated.json").write_text(json.dumps(MODEL), encoding="utf-8")
    token, digest = new_token()
    (folder / "tokens.toml").write_text(written(Grant(name="example", sha256=digest, models=("tiny",))))
    config = folder / "server.toml"
    config.write_text(CONFIG.format(folder), encoding="utf-8")
    return config, token


def ask(way: str, client: Client) -> None:
    row = client.empty((1, 4), np.float32)
    row[:] = 1
    answer = client.infer("tiny", {"x": row}, timeout_us=ALLOWED_US, has_timing=True)
    assert answer.timing is not None
    print(f"{way}: scores of shape {answer.outputs['y'].shape}, {answer.timing.outcome}")

    question = Question(model="tiny", inputs={"x": row}, timeout_us=ALLOWED_US)
    futures = [client.submit(question) for _ in range(QUESTIONS)]
    answered = sum(future.result(WAIT_S_MAX).outputs["y"].shape == (1, 2) for future in futures)
    print(f"{way}: {answered} of {QUESTIONS} futures resolved")

    ended: queue.Queue[InferResult | ClientError] = queue.Queue()
    client.call(question, ended.put)
    print(f"{way}: a callback was called with an {type(ended.get(timeout=WAIT_S_MAX)).__name__}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        config, token = prepare(Path(name))
        command = [sys.executable, "-m", "slotwise.cli", "serve", "--config", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            http, grpc, local = (process.stdout.readline().split()[-1] for _ in range(3))
            try:
                for way, url in (("HTTP", http), ("gRPC", f"grpc://{grpc}"), ("shared memory", local)):
                    with Client(url, token=token) as client:
                        ask(way, client)
                with Client(http) as stranger:
                    stranger.infer("tiny", {"x": np.ones((1, 4), np.float32)})
            except BadRequest as refused:
                print(f"without a token: {refused.status}, {refused}")
            finally:
                process.terminate()
                process.communicate(timeout=WAIT_S_MAX)
    print(f"the server ended with {process.returncode}")


if __name__ == "__main__":
    main()
