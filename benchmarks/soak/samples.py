"""What a server's processes hold at one instant, as the kernel tells: memory, descriptors, mappings, threads."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import msgspec
from harness.processes import own_pss_bytes, roles

MIB = 1 << 20
SHARED = "/memfd:"
"""How the kernel names shared memory that has no name in a file system."""


class Process(msgspec.Struct, frozen=True):
    """One process. `anon_mib` is its own memory, `pss_mib` has its part of what is shared as well."""

    role: str
    pid: int
    pss_mib: float
    anon_mib: float
    descriptors: int
    sockets: int
    segments: int
    """Descriptors of shared memory."""
    mappings: int
    """Mappings of shared memory."""
    threads: int


class Sample(msgspec.Struct, frozen=True, tag="sample"):
    """The server, and what has become of all requests so far."""

    at_s: float
    load: float
    goodput_per_s: float
    """Right answers since the sample before."""
    under_way: int
    processes: list[Process]
    counts: dict[str, int]
    """Requests by way and end, as `http ok`."""
    faults: dict[str, int]
    named_segments: int
    """Shared memory with a name, in /dev/shm, of all programs of the machine but for semaphores."""
    client_mib: float
    """Memory of the program that asks."""

    def of(self, role: str) -> list[Process]:
        """The processes of a role."""
        return [process for process in self.processes if process.role == role]


def processes_of(pid: int) -> list[Process]:
    """The processes of a server; those that end while they are looked at are left out."""
    seen = [_process(process, role) for process, role in roles(pid).items()]
    return [process for process in seen if process is not None]


def named_segments() -> int:
    """Shared memory with a name."""
    return sum(not entry.name.startswith("sem.") for entry in Path("/dev/shm").iterdir())


def own_segments() -> int:
    """Descriptors of shared memory in this process."""
    return _descriptors(os.getpid())[SHARED]


def _process(pid: int, role: str) -> Process | None:
    try:
        descriptors = _descriptors(pid)
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return None
    pss, anon = own_pss_bytes(pid), own_pss_bytes(pid, "Pss_Anon")
    if pss is None or anon is None:
        return None
    return Process(
        role=role,
        pid=pid,
        pss_mib=round(pss / MIB, 2),
        anon_mib=round(anon / MIB, 2),
        descriptors=descriptors.total(),
        sockets=descriptors["socket:"],
        segments=descriptors[SHARED],
        mappings=maps.count(SHARED),
        threads=threads,
    )


def _descriptors(pid: int) -> Counter[str]:
    """A process's open descriptors, counted by kind."""
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
        kinds[next((kind for kind in ("socket:", SHARED) if target.startswith(kind)), "other")] += 1
    return kinds
