"""What all peers that are Python programs share: the work in a file, and an environment that calms thread pools."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import msgspec

from peers.peer import APPS, Work

ONNXRUNTIME = f"onnxruntime=={version('onnxruntime')}"
"""The same runtime in every server."""


def environment(folder: Path, work: Work) -> dict[str, str]:
    """Write the work down, and say where it and its reader are."""
    path = folder / "work.json"
    path.write_bytes(msgspec.json.encode(work))
    return {"SLOTWISE_PEER_WORK": str(path), "PYTHONPATH": str(APPS), "OMP_NUM_THREADS": "1"}
