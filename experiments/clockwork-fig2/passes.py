"""One process that runs a model over and over on one core, and writes how long each pass took.

    python passes.py MODEL CORE THREADS SECONDS RUNS_MAX OUT

Each of THREADS threads has a session of its own. When all are warm the process says so on standard output, and reads
from standard input at which instant of the monotonic clock they begin, so that several such processes compete from
their first pass to their last. They stop after SECONDS, or RUNS_MAX passes each. OUT becomes a file of pairs of 64-bit
integers, one for each pass: when it began, and the nanoseconds it took.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slotwise.edges.runtimes import onnx
from slotwise.edges.slices import cores
from slotwise.facts.units import S

WARM_UP_RUNS = 200
SHAPE = (1, 3, 128, 128)


def main(path: str, core: str, threads: str, seconds: str, runs_max: str, out: str) -> None:
    cores.enter([int(core)], nice=0)
    parts: list[NDArray[np.int64]] = []
    start = Start(int(threads))
    workers = [
        threading.Thread(target=_repeat, args=(path, start, float(seconds), int(runs_max), parts))
        for _ in range(int(threads))
    ]
    gc.collect()
    gc.disable()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    np.concatenate(parts).tofile(Path(out))


class Start:
    """Where threads meet until they are told when to begin."""

    def __init__(self, threads: int) -> None:
        self._barrier = threading.Barrier(threads, action=self._ask)
        self._begin_ns = 0

    def wait(self) -> int:
        """Meet the others, and sleep until the beginning; when that is."""
        self._barrier.wait()
        time.sleep(max(0.0, (self._begin_ns - time.monotonic_ns()) / S))
        return self._begin_ns

    def _ask(self) -> None:
        print("warm", flush=True)
        self._begin_ns = int(sys.stdin.readline())


def _repeat(path: str, start: Start, seconds: float, runs_max: int, parts: list[NDArray[np.int64]]) -> None:
    model = onnx.load(path, threads=1)
    feeds = {"x": np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)}
    passes = np.zeros((runs_max, 2), np.int64)
    for _ in range(WARM_UP_RUNS):
        model.run(feeds, 1, ["y"], {})
    begin_ns = start.wait()
    end_ns = begin_ns + int(seconds * S)
    done = 0
    while done < runs_max:
        started_ns = time.monotonic_ns()
        if started_ns >= end_ns:
            break
        model.run(feeds, 1, ["y"], {})
        passes[done] = started_ns, time.monotonic_ns() - started_ns
        done += 1
    parts.append(passes[:done])


if __name__ == "__main__":
    main(*sys.argv[1:])
