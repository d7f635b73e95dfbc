"""Where and when something was measured."""

from __future__ import annotations

import datetime as dt
import os
import platform
from importlib.metadata import version
from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True):
    """What a run's figures depend on beside the code. `load` is the load average of the last minute."""

    cpu: str
    cores: int
    kernel: str
    python: str
    onnxruntime: str
    load: float
    date: str


def machine() -> Machine:
    """What this runs on, now."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
        python=platform.python_version(),
        onnxruntime=version("onnxruntime"),
        load=round(os.getloadavg()[0], 2),
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )


def describe(facts: Machine) -> str:
    """A machine in one line."""
    return (
        f"{facts.cpu}, {facts.cores} cores, Linux {facts.kernel}, Python {facts.python}, "
        f"onnxruntime {facts.onnxruntime}, load average {facts.load}, {facts.date}"
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
