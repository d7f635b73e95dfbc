"""Shared memory that passes between processes that do not trust each other, and what is asked of it first.

Memory that a client brings is mapped by the server, so it must be of a kind that cannot vanish under its reader's
feet: a memfd whose size is sealed and whose pages are of the ordinary size. Memory that the server lends is sealed
against every writer but those that have it mapped already, whatever way its descriptor is opened again.
"""

from __future__ import annotations

import fcntl
import mmap
import os

SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
F_SEAL_FUTURE_WRITE = 0x10
"""Linux 5.1; Python has no name for it before 3.13."""


class MemoryFault(ValueError):
    """Memory that cannot be taken; the text says why."""


def check_memory(fd: int, nbytes_max: int) -> int:
    """The size of memory that another process has made. Raises MemoryFault for what is not safe to map."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise MemoryFault("the descriptor is not one of a memfd that allows sealing") from error
    if seals & SIZE_SEALS != SIZE_SEALS:
        raise MemoryFault("the memory is not sealed: add F_SEAL_SHRINK and F_SEAL_GROW before it is handed over")
    if os.fstatvfs(fd).f_bsize != mmap.PAGESIZE:
        raise MemoryFault("the memory is of huge pages, which may be missing when they are touched; use ordinary ones")
    nbytes = os.fstat(fd).st_size
    if not nbytes:
        raise MemoryFault("the memory is empty")
    if nbytes > nbytes_max:
        raise MemoryFault(f"the memory has {nbytes} bytes; {nbytes_max} are the limit")
    return nbytes


def map_to_read(fd: int, nbytes: int) -> memoryview:
    """Map memory for reading. It stays mapped while any view of it lives. Raises MemoryFault."""
    try:
        return memoryview(mmap.mmap(fd, nbytes, prot=mmap.PROT_READ))
    except OSError as error:
        raise MemoryFault(f"the memory cannot be mapped: {error.strerror}") from error


def seal_writers(fd: int) -> None:
    """Let nobody write to memory of ours who does not have it mapped for writing by now."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SIZE_SEALS | F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL)
