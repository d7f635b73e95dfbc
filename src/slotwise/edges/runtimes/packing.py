"""Bringing a model into the form whose weights all executors share, and trying whether it is still the same model.

Done in a process of its own: what packing takes of memory is gone when it ends, and a model that crashes when it is
packed is served as it came. The form itself is the runtime's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from slotwise.edges.runtimes import Packer, RunError, Stopped, load, packer
from slotwise.edges.runtimes.examples import run, working_example
from slotwise.edges.runtimes.tensors import Array
from slotwise.engine.ports import ModelError


def packed(path: str, folder: str, threads: int, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The packed model's file in `folder`; None where the model cannot be packed, or would answer otherwise then.

    To be called before this process has threads.
    """
    means = packer(path)
    if means is None:
        return None
    file = str(Path(folder) / means.PACKED_FILE)
    for way in range(means.WAYS):
        if _succeeds(partial(_is_packed, means, path, file, way, threads, shapes)):
            return file
    return None


def _succeeds(attempt: Callable[[], bool]) -> bool:
    """Whether it returns true, tried in a process of its own."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if attempt() else 1
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return status == 0


def _is_packed(
    means: Packer, path: str, file: str, way: int, threads: int, shapes: Mapping[str, tuple[int, ...]]
) -> bool:
    try:
        means.pack(path, file, way)
        plain, dense = load(path, threads), load(file, threads)
        feeds = working_example(path, plain, shapes).feeds(1)
        pairs = zip(run(plain, plain.describe(), feeds), run(dense, plain.describe(), feeds), strict=True)
        return plain.describe() == dense.describe() and all(_is_equal(a, b) for a, b in pairs)
    except (ModelError, RunError, Stopped):
        return False


def _is_equal(plain: Array, dense: Array) -> bool:
    if plain.dtype.kind == "f":
        return bool(np.array_equal(plain, dense, equal_nan=True))
    return bool(np.array_equal(plain, dense))
