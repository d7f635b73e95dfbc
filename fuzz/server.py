"""A server to attack: `slotwise serve` in a process of its own, over small models that give back what they are sent.

It has every door open and small limits, so that reaching them takes little. What it must still do after each attack,
and what it may hold at the end, is asked here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from fuzz.target import Fault
from slotwise.client import Client

HOST = "127.0.0.1"
START_S_MAX = 120.0
ASK_S_MAX = 20.0
WARM_ASKS = 50
GROWTH_BYTES_MAX = 96 << 20
VALUES = np.array([[1, -2, 3.5, 4]], np.float32)
CONFIG = """
http_port = 0
grpc_port = 0
local_socket = "{folder}/socket"
cores = [0]
memory_mib = 512
arena_mib = 16
journal = "{folder}/journal.jsonl"
cache = "{folder}/cache"
settle_s = 20.0
drain_s = 1.0
[door]
shared_memory = true
regions_max = 8
body_bytes_max = 1048576
stream_bytes_min = 256
head_bytes_max = 8192
read_s = 0.5
keep_alive_s = 2.0
linger_s = 0.05
[grpc_door]
message_bytes_max = 1048576
[local]
memory_bytes_max = 134217728
outputs_bytes = 1048576
frame_bytes_max = 8192
hello_s = 0.5
linger_s = 0.05
[fleet]
inspect_budget_ns = 10000000
inspect_s_max = 5.0
inspect_memory_bytes = 1073741824
[logs]
folder = "{folder}/logs"
bytes_max = 1048576
files_max = 2
"""
_DATATYPES = {"FP32": TensorProto.FLOAT, "BYTES": TensorProto.STRING, "BOOL": TensorProto.BOOL}


class Server:
    """The process, its folder, and where its doors are."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="slotwise-fuzz-")
        self.folder = Path(self._folder.name)
        self.models = self.folder / "models"
        put_model(self.models / "plain" / "1", model_bytes("FP32", ["batch", 4]))
        put_model(self.models / "text" / "1", model_bytes("BYTES", ["n"]))
        put_model(self.models / "flags" / "1", model_bytes("BOOL", ["n"]))
        config = self.folder / "server.toml"
        config.write_text(CONFIG.format(folder=self.folder))
        self._errors = (self.folder / "errors").open("w+")
        words = ["-m", "slotwise.cli", "serve", str(self.models), "--config", str(config)]
        self.process = subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "TMPDIR": str(self.folder)},
        )
        try:
            self._meet()
        except BaseException:
            self._end()
            raise

    def _meet(self) -> None:
        self.http_port = self._port(r"on http://[\d.]+:(\d+)")
        self.grpc_port = self._port(r"gRPC on [\d.]+:(\d+)")
        self.local = str(self.folder / "socket")
        self.gate = str(next(self.folder.glob("*/channel")))
        for _ in range(WARM_ASKS):
            self.check()
        self._descriptors = self.descriptors()
        self._bytes = self.bytes()

    def check(self) -> None:
        """A good request over HTTP is answered right, and the process is the one that was started."""
        if self.process.poll() is not None:
            raise Fault(f"the server has ended with {self.process.returncode}: {self.errors()[-2000:]}")
        data = VALUES.tolist()
        given = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": data}
        body = json.dumps({"inputs": [given], "parameters": {"timeout": int(ASK_S_MAX * 1e6)}}).encode()
        status, answer = self.post("/v2/models/plain/infer", body)
        found = answer["outputs"][0]["data"] if status == 200 else None
        if found != VALUES.ravel().tolist():
            raise Fault(f"a good request is answered with {status}: {answer}")
        if "Traceback" in self.errors():
            text = self.errors()
            self._errors.truncate(0)
            raise Fault(f"the server has printed a traceback: {text[text.index('Traceback') :][-3000:]}")

    def check_local(self) -> None:
        """The same over the local channel."""
        with Client(f"unix://{self.local}") as client:
            found = client.infer("plain", {"x": VALUES}, timeout_us=int(ASK_S_MAX * 1e6)).outputs["y"]
            if not np.array_equal(found, VALUES):
                raise Fault(f"a good request over the local channel is answered with {found}")

    def post(self, path: str, body: bytes = b"") -> tuple[int, dict[str, list[dict[str, object]]]]:
        """Ask by POST; the status and the JSON."""
        return self._ask(urllib.request.Request(f"http://{HOST}:{self.http_port}{path}", data=body, method="POST"))

    def get(self, path: str) -> tuple[int, dict[str, list[dict[str, object]]]]:
        """Ask by GET."""
        return self._ask(urllib.request.Request(f"http://{HOST}:{self.http_port}{path}"))

    def close(self) -> None:
        """Look for leaks, then end the server; it must end in peace."""
        try:
            self.check()
            self._check_leaks()
            self.process.terminate()
            if self.process.wait(60) != 0:
                raise Fault(f"the server ended with {self.process.returncode}: {self.errors()[-2000:]}")
        finally:
            self._end()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def descriptors(self) -> int:
        """How many the server has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def bytes(self) -> int:
        """Memory that only the server's process has."""
        return private_bytes(self.process.pid)

    def errors(self) -> str:
        """What the server has said on standard error."""
        return (self.folder / "errors").read_text(errors="replace")

    def _check_leaks(self) -> None:
        for _ in range(100):
            _, said = self.get("/v2/slotwise/status")
            metrics = urllib.request.urlopen(f"http://{HOST}:{self.http_port}/metrics").read().decode()
            in_flight = float(re.findall(r"^slotwise_requests_in_flight ([\d.]+)", metrics, re.MULTILINE)[0])
            if not in_flight and self.descriptors() <= self._descriptors + 2:
                break
        else:
            raise Fault(f"{in_flight} requests and {self.descriptors()} descriptors are left of {self._descriptors}")
        grown = self.bytes() - self._bytes
        if grown > GROWTH_BYTES_MAX:
            raise Fault(f"the server has grown by {grown >> 20} MiB: {said}")

    def _ask(self, request: urllib.request.Request) -> tuple[int, dict[str, list[dict[str, object]]]]:
        try:
            with urllib.request.urlopen(request, timeout=ASK_S_MAX) as reply:
                return reply.status, json.loads(reply.read() or b"{}")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def _port(self, pattern: str) -> int:
        assert self.process.stdout is not None, "asked for"
        line = self.process.stdout.readline()
        found = re.search(pattern, line)
        if found is None:
            raise Fault(f"the server said {line!r}: {self.errors()[-2000:]}")
        return int(found[1])


def private_bytes(pid: int) -> int:
    """Memory that only this process has, and has written to."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(r"^Private_Dirty:\s+(\d+)", text, re.MULTILINE)[0]) << 10


def model_bytes(datatype: str, shape: list[object]) -> bytes:
    """An ONNX model y = x."""
    kind = _DATATYPES[datatype]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "same", [info("x", kind, shape)], [info("y", kind, shape)]
    )
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return made


def put_model(folder: Path, content: bytes, name: str = "model.onnx") -> None:
    """Put a file of a version into the repository."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
