"""What a server's processes take of the machine, as the kernel counts it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ROLES = ("front", "zygote", "executors")
"""A server's process, its child, and that one's children."""
GRPC_DOOR = "grpc_door"
"""The other child, where gRPC is served."""


def cpu_s(pid: int) -> Counter[str]:
    """Processor time of a server so far, user and system, by the role of its processes."""
    used: Counter[str] = Counter()
    for process, role in roles(pid).items():
        used[role] += own_cpu_s(process)
    return used


def roles(pid: int) -> dict[int, str]:
    """The processes of a server, each with its role."""
    return {process: _role(process, depth) for process, depth in _tree(pid).items()}


def own_cpu_s(pid: int) -> float:
    """Processor time of one process so far, user and system; 0 if it is gone."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S if fields else 0.0


def pss_bytes(pid: int) -> dict[int, tuple[str, int]]:
    """Proportional share of memory of each of a server's processes, with its role."""
    found = {process: (role, own_pss_bytes(process)) for process, role in roles(pid).items()}
    return {process: (role, nbytes) for process, (role, nbytes) in found.items() if nbytes is not None}


def own_pss_bytes(pid: int, kind: str = "Pss") -> int | None:
    """Proportional share of memory of one process, or of one kind of it, as `Pss_Anon`; None if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:")), None)


def _role(pid: int, depth: int) -> str:
    if depth == 1 and b"slotwise.grpc_door" in _command(pid):
        return GRPC_DOOR
    return ROLES[min(depth, len(ROLES) - 1)]


def _tree(root: int) -> dict[int, int]:
    """A process and its descendants, each with its distance from the root."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else None
        if fields:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    depths = {root: 0}
    queue = [root]
    while queue:
        parent = queue.pop()
        for child in children.get(parent, ()):
            depths[child] = depths[parent] + 1
            queue.append(child)
    return depths


def _stat(pid: int) -> list[str] | None:
    """The fields behind a process's name, which may hold anything; None if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _command(pid: int) -> bytes:
    """How a process was started; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
