"""Makes the Python code of the gRPC protocol from its `.proto` file: `python -m tests.repo.protocol` (`make protocol`).

The messages get a pool of descriptors of their own. In the default one, which a process has once, they would
collide with those of any client library of the same protocol.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.repo.tree import ROOT

FOLDER = ROOT / "src" / "slotwise" / "edges" / "oip" / "grpc"
PROTOCOL = "inference.proto"
GENERATED = ("inference_pb2.py", "inference_pb2.pyi")
_SHARED_POOL, _OWN_POOL = "_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()"


def generate(folder: Path) -> None:
    """Write the generated files into a folder."""
    words = ["-m", "grpc_tools.protoc", f"--proto_path={FOLDER}", f"--python_out={folder}", f"--pyi_out={folder}"]
    subprocess.run([sys.executable, *words, PROTOCOL], check=True)
    module = folder / GENERATED[0]
    text = module.read_text(encoding="utf-8")
    assert text.count(_SHARED_POOL) == 1, "the generator's form has changed"
    module.write_text(text.replace(_SHARED_POOL, _OWN_POOL), encoding="utf-8")


if __name__ == "__main__":
    generate(FOLDER)
