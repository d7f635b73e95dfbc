"""Part c: memory with several workers of one model of 100 MB.

The sum of proportional shares (PSS) over all processes of the server, once it has answered and no longer grows: pages
that processes share are counted once, so a second copy of the weights shows and a shared one does not.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from peers.comparison import Comparison, input_row
from peers.environment import NotHere
from peers.peer import Peer, Running, Served, Settings

MB = 1_000_000
WIDTH = 5_000
WORKERS = (1, 2, 4, 16)
WORKERS_QUICK = (1, 2)
ASKS_PER_WORKER = 4
READ_EVERY_S = 0.5
READINGS = 4
GROWTH_MAX = 0.005
SETTLE_S_MAX = 30.0


def compare(comparison: Comparison) -> None:
    """Measure, and add a row for each peer and number of workers."""
    workers = WORKERS_QUICK if comparison.is_quick else WORKERS
    model = Served(width=WIDTH, outputs=WIDTH, onnx=str(build_matrix(comparison.folder / "large.onnx", WIDTH)))
    first = len(comparison.report)
    for peer in comparison.peers:
        for count in workers:
            settings = Settings(workers=count)
            try:
                with comparison.serving(peer, {"large": model}, settings) as running:
                    _add(comparison, peer, count, running)
            except NotHere as reason:
                comparison.leave_out(peer, f"c ({count} workers)", reason)
    comparison.report.print_table("c: memory in MB (PSS of all processes), one model of 100 MB", first)


def build_matrix(path: Path, width: int, seed: int = 0) -> Path:
    """A model that multiplies a row with a square matrix of random weights."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((width, width), dtype=np.float32) / np.sqrt(width, dtype=np.float32)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "matrix", [x], [y], [numpy_helper.from_array(matrix, "w")]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def _add(comparison: Comparison, peer: Peer, count: int, running: Running) -> None:
    question = peer.question("large", input_row(WIDTH), Settings().form, None)
    for _ in range(count * ASKS_PER_WORKER):
        running.ask(question)
    settled_mb = _settled_mb(running)
    comparison.report.add(
        part="c", server=peer.name, workers=count, pss_mb=round(settled_mb), processes=len(running.pids())
    )


def _settled_mb(running: Running) -> float:
    """Memory once it has grown no more for some readings, or after the longest wait."""
    readings: list[float] = []
    deadline = time.monotonic() + SETTLE_S_MAX
    while time.monotonic() < deadline:
        readings.append(running.pss_bytes() / MB)
        last = readings[-READINGS:]
        if len(last) == READINGS and max(last) <= min(last) * (1 + GROWTH_MAX):
            break
        time.sleep(READ_EVERY_S)
    return readings[-1]
