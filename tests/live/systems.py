"""Whole live systems for tests: a repository of small models, a server over it in this process, and clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import tritonclient.http.aio as triton
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from slotwise.app import LiveSystem
from slotwise.config import read
from slotwise.engine.ports import Recorder

WAIT_S_MAX = 60.0
POLL_S = 0.01


def put_network(root: Path, name: str, *, settings: str = "", version: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """A real model: 64 -> 128 -> 10 with a free batch. Returns its last bias, which tells versions apart."""
    rng = np.random.default_rng(seed)
    sizes = (64, 128, 10)
    nodes, weights, source = [], [], "x"
    for layer, (inner, outer) in enumerate(pairwise(sizes)):
        weight = (rng.standard_normal((inner, outer)) / np.sqrt(inner)).astype(np.float32)
        bias = rng.standard_normal(outer).astype(np.float32)
        weights += [numpy_helper.from_array(weight, f"w{layer}"), numpy_helper.from_array(bias, f"b{layer}")]
        target = "y" if layer == len(sizes) - 2 else f"h{layer}"
        nodes.append(helper.make_node("Gemm", [source, f"w{layer}", f"b{layer}"], [target]))
        source = target
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        name,
        [tensor("x", TensorProto.FLOAT, ["batch", 64])],
        [tensor("y", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    _put(root, name, version, "model.onnx", model.SerializeToString(), settings)
    return bias


def put_emulated(root: Path, name: str, *, run_ms: float, settings: str = "", memory_mib: int = 1) -> None:
    """An emulated model: a profile that is waited out, and zeros."""
    document = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
        "batchable": True,
        "profile": {
            "rows": [1, 2],
            "run_ns": [int(run_ms * 1e6), int(2 * run_ms * 1e6)],
            "load_ns": 1_000_000,
            "memory_bytes": memory_mib << 20,
        },
    }
    _put(root, name, 1, "model.emulated.json", json.dumps(document).encode(), settings)


def _put(root: Path, name: str, version: int, file: str, content: bytes, settings: str) -> None:
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{file}.draft"
    draft.write_bytes(content)
    draft.replace(folder / file)
    if settings:
        (root / name / "slotwise.toml").write_text(settings)


@asynccontextmanager
async def serving(
    root: Path, *, recorders: Sequence[Recorder] = (), journal: Path | None = None, **changes: object
) -> AsyncIterator[LiveSystem]:
    """A server over a folder, on a free port, with two executors on whatever cores there are."""
    async with starting(root, recorders=recorders, journal=journal, **changes) as (system, started):
        await started
        yield system


@asynccontextmanager
async def starting(
    root: Path, *, recorders: Sequence[Recorder] = (), journal: Path | None = None, **changes: object
) -> AsyncIterator[tuple[LiveSystem, asyncio.Task[None]]]:
    """The same while it starts."""
    settings: dict[str, object] = {
        "repository": str(root),
        "http_port": 0,
        "grpc": False,
        "cache": str(root.parent / "profiles"),
        "memory_mib": 512,
        "arena_mib": 64,
        "journal": str(journal or ""),
    }
    config = read(None, settings | changes)
    system = LiveSystem(config, recorders=recorders)
    started = asyncio.create_task(system.start())
    try:
        yield system, started
    finally:
        started.cancel()
        await asyncio.wait([started])
        await system.close()
    assert system.failure is None, "the engine has stopped"


@asynccontextmanager
async def client_of(system: LiveSystem) -> AsyncIterator[triton.InferenceServerClient]:
    """A standard client, not ours."""
    client = triton.InferenceServerClient(f"127.0.0.1:{system.http_port}", conn_limit=64)
    try:
        yield client
    finally:
        await client.close()


def tensor(name: str, array: NDArray[np.float32]) -> triton.InferInput:
    """An input in the client's form."""
    made = triton.InferInput(name, list(array.shape), "FP32")
    made.set_data_from_numpy(array)
    return made


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition of the outside world; fails after a minute."""
    end_s = asyncio.get_running_loop().time() + WAIT_S_MAX
    while not condition():
        assert asyncio.get_running_loop().time() < end_s, f"waited {WAIT_S_MAX:.0f} s in vain"
        await asyncio.sleep(POLL_S)
