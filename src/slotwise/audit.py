"""What of a machine matters to Slotwise, checked item by item: can it run here, and how predictably.

Each check says what it found and, where that is wanting, what to do. Nothing is changed.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from slotwise.edges.slices.cores import available
from slotwise.facts.value import value

DESCRIPTORS_MIN = 4096
MEMORY_BYTES_MIN = 2 << 30


@value
class Finding:
    """One check: whether it passed, what was found, and what to do if it did not."""

    name: str
    passed: bool
    found: str
    remedy: str = ""


def audit() -> list[Finding]:
    """Run every check."""
    checks: tuple[Callable[[], Finding], ...] = (_cores, _memory, _descriptors, _governor, _load, _calls, _runtime)
    return [check() for check in checks]


def _cores() -> Finding:
    cores = available()
    return Finding(
        name="cores",
        passed=len(cores) >= 2,
        found=", ".join(map(str, cores)),
        remedy="with one core, the server and its executor take turns: expect late answers under load",
    )


def _memory() -> Finding:
    nbytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return Finding(
        name="free memory",
        passed=nbytes >= MEMORY_BYTES_MIN,
        found=f"{nbytes >> 20} MiB",
        remedy="set memory_mib so that models fit what is free",
    )


def _descriptors() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Finding(
        name="open files",
        passed=soft >= DESCRIPTORS_MIN,
        found=str(soft),
        remedy=f"raise the limit: ulimit -n {DESCRIPTORS_MIN}",
    )


def _governor() -> Finding:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    found = path.read_text(encoding="ascii").strip() if path.exists() else "not shown by this machine"
    return Finding(
        name="frequency governor",
        passed=found != "powersave",
        found=found,
        remedy="run times vary with the clock: set the governor to performance",
    )


def _load() -> Finding:
    load, _, _ = os.getloadavg()
    return Finding(
        name="load by others",
        passed=load < len(available()) / 2,
        found=f"{load:.2f} processes on average over the last minute",
        remedy="give executors cores of their own, or measure when the machine is quiet",
    )


def _calls() -> Finding:
    wanted = ("memfd_create", "eventfd", "pidfd_open", "sched_setaffinity")
    missing = [name for name in wanted if not hasattr(os, name)]
    return Finding(
        name="system calls",
        passed=not missing,
        found=f"without {', '.join(missing)}" if missing else ", ".join(wanted),
        remedy="Linux 5.4 or newer is needed, with a Python built for it",
    )


def _runtime() -> Finding:
    try:
        found = f"onnxruntime {version('onnxruntime')}"
    except PackageNotFoundError:
        return Finding(name="runtime", passed=False, found="no onnxruntime", remedy="pip install onnxruntime")
    return Finding(name="runtime", passed=True, found=found)
