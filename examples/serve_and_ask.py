"""A live server, asked by a client that knows nothing but HTTP: answers, a refusal, and some mistakes.

The repository is a folder with one emulated model, which waits out a profile instead of computing. So the example
needs no model file, and every number in it follows from the profile.
"""

import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

RUN_MS = 200
MODEL = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    "profile": {"rows": [1], "run_ns": [RUN_MS * 1_000_000], "load_ns": 1_000_000, "memory_bytes": 1_000_000},
}
SETTINGS = "slo_ms = 30000\nbatch_max = 1\n"
CONFIG = 'repository = "{folder}/models"\ncache = "{folder}/profiles"\nhttp_port = 0\ngrpc = false\nmemory_mib = 256\n'
WAIT_S_MAX = 60.0


def write_repository(folder: Path) -> Path:
    """A repository of one model, `models/slow/1`, and the server's configuration beside it."""
    version = folder / "models" / "slow" / "1"
    version.mkdir(parents=True)
    (version / "model.emulated.json").write_text(json.dumps(MODEL), encoding="utf-8")
    (folder / "models" / "slow" / "slotwise.toml").write_text(SETTINGS, encoding="utf-8")
    config = folder / "server.toml"
    config.write_text(CONFIG.format(folder=folder), encoding="utf-8")
    return config


def call(url: str, body: object | None = None) -> tuple[int, dict[str, object]]:
    """The status and the JSON of a reply."""
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S_MAX) as reply:
            return reply.status, json.loads(reply.read() or b"{}")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def question(columns: int = 4, **parameters: object) -> dict[str, object]:
    data = list(range(columns))
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, columns], "data": data}
    return {"inputs": [tensor], "parameters": parameters}


def ask(server: str) -> None:
    infer = f"{server}/v2/models/slow/infer"

    status, said = call(infer, question())
    print(f"its own allowance of 30 s: {status}, y = {said['outputs'][0]['data']}")

    status, said = call(infer, question(timeout=50_000))
    is_told = said["predicted_ms"] > RUN_MS - 50 and said["retry_after_ms"] > 0
    print(f"50 ms for a model of 200 ms: {status}, {said['reason']}; told when to come again: {is_told}")

    status, said = call(infer, question(columns=3))
    print(f"three columns where it takes four: {status}, {said['error']}")

    status, said = call(infer.replace("slow", "fast"), question())
    print(f"a model that there is not: {status}, {said['reason']}")

    call(f"{server}/v2/repository/models/slow/unload", {})
    status, said = call(infer, question())
    print(f"a model taken off offer: {status}, {said['reason']}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        config = write_repository(Path(name))
        command = [sys.executable, "-m", "slotwise.cli", "serve", "--config", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            announcement = process.stdout.readline()  # serving 1 models on http://127.0.0.1:PORT
            try:
                print(announcement.rpartition(":")[0].strip())
                ask(announcement.split()[-1])
            finally:
                process.terminate()
                process.communicate(timeout=WAIT_S_MAX)
    print(f"the server ended with {process.returncode}")


if __name__ == "__main__":
    main()
