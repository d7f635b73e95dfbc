"""Anonymous shared memory (memfd) that processes map: the arena for tensors that clients send.

The memory has no name in any file system, so nothing is left behind whoever dies; it is passed on by its
descriptor. Its size is sealed, so no holder can shrink it under another's feet.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from slotwise.edges.store.layout import Layout

ARENA_SEGMENT = 0
"""The segment number of the arena; executors' output segments count from 1."""

_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def make_memory(name: str, nbytes: int) -> int:
    """A descriptor of fresh shared memory of a sealed size. Pages are taken when first touched."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, nbytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE_SEALS)
    return fd


def map_memory(fd: int, nbytes: int, *, writable: bool) -> memoryview:
    """Map shared memory. It stays mapped while any view of it lives, also after `fd` is closed."""
    protection = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
    return memoryview(mmap.mmap(fd, nbytes, prot=protection))


class SharedArena:
    """Counted regions of one shared memory; an `engine.ports.Arena`.

    Whoever closes it must have no view of it left that is still used.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.fd = make_memory("slotwise-arena", nbytes)
        self._memory = map_memory(self.fd, nbytes, writable=True)
        self._layout = Layout(nbytes)
        self.keep = self._layout.keep
        self.release = self._layout.release
        self.allocate = self._layout.allocate

    @property
    def segment(self) -> int:
        """The name under which tensor references speak of this memory."""
        return ARENA_SEGMENT

    @property
    def held_bytes(self) -> int:
        """Bytes that are held now."""
        return self._layout.held_bytes

    @property
    def regions(self) -> int:
        """How many regions are held now."""
        return self._layout.regions

    def view(self, offset: int, nbytes: int) -> memoryview:
        """The bytes themselves, writable."""
        return self._memory[offset : offset + nbytes]

    def check(self) -> None:
        """Assert that the books balance."""
        self._layout.check()

    def close(self) -> None:
        """Give the memory up. Executors that still map it keep it until they end."""
        os.close(self.fd)
        self._memory = memoryview(b"")
