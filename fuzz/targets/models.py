"""Models in the repository: files that are changed, put there, loaded and asked. The first line is the file's name.

A file may crash the process that inspects it. That must come back as a clear error, and the server goes on.
"""

from __future__ import annotations

import json
import shutil

from fuzz.server import Server, model_bytes, put_model
from fuzz.target import Fault

NAMES = ("model.onnx", "model.emulated.json", "slotwise.toml", "config.pbtxt")
ALLOWED = frozenset((200, 400))
ANSWERS = frozenset((200, 400, 404, 413, 500, 503, 504))


class Models:
    """One model for each input."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._count = 0

    def seeds(self) -> list[bytes]:
        """A file of each kind."""
        tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
        profile = {"rows": [1, 2], "run_ns": [1000, 2000], "load_ns": 1000, "memory_bytes": 1 << 20}
        emulated = json.dumps(
            {"inputs": [tensor], "outputs": [{**tensor, "name": "y"}], "batchable": True, "profile": profile}
        )
        own = "slo_ms = 5.5\nbatch_max = 4\npriority = 3\nversions = {latest = 2}\nexamples = {x = [1, 4]}\n"
        triton = 'backend: "onnxruntime"\nmax_batch_size: 8\ninput [{ name: "x" data_type: TYPE_FP32 dims: [4] }]\n'
        contents = (model_bytes("FP32", ["batch", 4]), emulated.encode(), own.encode(), triton.encode())
        return [name.encode() + b"\n" + content for name, content in zip(NAMES, contents, strict=True)]

    def run(self, data: bytes) -> None:
        """One model, from its files to an answer, and away again."""
        line, _, content = data.partition(b"\n")
        name = line.decode("latin-1")
        if name not in NAMES:
            name = NAMES[len(line) % len(NAMES)]
        self._count += 1
        model = f"m{self._count}"
        folder = self._server.models / model
        if name in NAMES[:2]:
            put_model(folder / "1", content, name)
        else:
            put_model(folder / "1", model_bytes("FP32", ["batch", 4]))
            put_model(folder, content, name)
        try:
            self._try(model)
        finally:
            shutil.rmtree(folder)
            self._server.post(f"/v2/repository/models/{model}/unload")

    def check(self) -> None:
        """Others are served."""
        self._server.check()
        status, _ = self._server.post("/v2/repository/index")
        if status != 200:
            raise Fault(f"the index is answered with {status}")

    def close(self) -> None:
        """The end."""
        self._server.close()

    def _try(self, model: str) -> None:
        status, said = self._server.post(f"/v2/repository/models/{model}/load")
        if status not in ALLOWED or (status == 400 and not said.get("error")):
            raise Fault(f"the load is answered with {status}: {said}")
        if status != 200:
            return
        for path in ("", "/config", "/stats"):
            found, said = self._server.get(f"/v2/models/{model}{path}")
            if found != 200:
                raise Fault(f"{path or 'metadata'} is answered with {found}: {said}")
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
        found, said = self._server.post(f"/v2/models/{model}/infer", json.dumps(body).encode())
        if found not in ANSWERS:
            raise Fault(f"an inference is answered with {found}: {said}")
