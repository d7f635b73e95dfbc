"""Shared memory that clients own and have registered: the protocol's extension for system shared memory.

A region is a stretch of a POSIX shared memory object, known by a name of the client's choice. Requests may say that an
input lies in one, or that an output is to go to one. The memory belongs to the client, who may shrink or remove
it at any instant, so it is never mapped here: bytes are read and written through the descriptor, which at worst says
that they are not there. An input is copied once, into the arena, as one that comes through a socket is.

Any client that may use this can name any object that the server may open, so it is off unless it is asked for.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

import msgspec

from slotwise.edges.oip.codec import Place
from slotwise.edges.oip.errors import WireError, bad
from slotwise.edges.oip.limits import Limits

FOLDER = Path("/dev/shm")  # noqa: S108  # where the system keeps such objects, not a temporary file of ours
_KEY = re.compile(r"/?[A-Za-z0-9_.-]{1,250}")
NAME_LENGTH_MAX = 250
T = TypeVar("T")


class RegionDocument(msgspec.Struct):
    """A region, in the words of the protocol."""

    name: str
    key: str
    offset: int
    byte_size: int


class Region:
    """A registered region, open."""

    def __init__(self, document: RegionDocument, fd: int) -> None:
        self.document = document
        self.fd = fd

    def at(self, place: Place) -> int:
        """Where a place of the region begins in its object. Raises WireError when it does not lie in the region."""
        if place.offset + place.nbytes > self.document.byte_size:
            raise bad(
                f"bytes {place.offset} to {place.offset + place.nbytes} are not in region {place.region!r},"
                f" which has {self.document.byte_size}"
            )
        return self.document.offset + place.offset


class Regions:
    """The regions of all clients. They share one space of names."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, nbytes: int) -> None:
        """Open a region. Raises WireError."""
        self._check_allowed()
        if not 0 < len(name) <= NAME_LENGTH_MAX:
            raise bad(f"a region's name has 1 to {NAME_LENGTH_MAX} characters")
        if name in self._regions:
            raise bad(f"region {name!r} is registered already; unregister it first")
        if len(self._regions) >= self._limits.regions_max:
            raise WireError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self._limits.regions_max} regions are registered, the limit",
                retry_after_ns=self._limits.retry_after_ns,
            )
        if not nbytes:
            raise bad("byte_size is 0; a region has one byte at least")
        fd = _open(key)
        size = os.fstat(fd).st_size
        if offset + nbytes > size:
            os.close(fd)
            raise bad(f"shared memory object {key!r} has {size} bytes; offset and byte_size make {offset + nbytes}")
        self._regions[name] = Region(RegionDocument(name, key, offset, nbytes), fd)

    def status(self, name: str | None = None) -> list[RegionDocument]:
        """One region, or all of them. Raises WireError for one that is not there."""
        if name is None:
            return [region.document for region in self._regions.values()]
        return [self._find(name).document]

    def unregister(self, name: str | None = None) -> None:
        """Forget one region, or all of them; one that is not there is forgotten already."""
        for gone in list(self._regions) if name is None else [name]:
            region = self._regions.pop(gone, None)
            if region is not None:
                os.close(region.fd)

    def read(self, place: Place, view: memoryview) -> None:
        """Copy an input out of its region. Raises WireError."""
        region = self._find(place.region)
        at, filled = region.at(place), 0
        while filled < place.nbytes:
            count = _done(os.preadv, region, [view[filled:]], at + filled)
            if not count:
                raise bad(f"region {place.region!r} has become shorter than it was when it was registered")
            filled += count

    def write(self, place: Place, data: memoryview) -> None:
        """Copy an output into its region. Raises WireError."""
        if len(data) > place.nbytes:
            raise bad(f"the output has {len(data)} bytes, its place in region {place.region!r} has {place.nbytes}")
        region = self._find(place.region)
        at, written = region.at(place), 0
        if os.fstat(region.fd).st_size < at + len(data):
            raise bad(f"region {place.region!r} has become shorter than it was when it was registered")
        while written < len(data):
            written += _done(os.pwrite, region, data[written:], at + written)

    def _check_allowed(self) -> None:
        if not self._limits.shared_memory:
            raise bad(
                "shared memory of clients is off at this server; its operator turns it on with `shared_memory = true`"
                " under [door]"
            )

    def _find(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            self._check_allowed()
            raise unknown_region(name)
        return region


def unknown_region(name: str) -> WireError:
    """What is said of a region that there is not."""
    return WireError(HTTPStatus.NOT_FOUND, f"there is no shared memory region {name!r}; register it first")


def _done(move: Callable[[int, T, int], int], region: Region, data: T, at: int) -> int:
    """How many bytes were moved. Raises WireError where the system has no room for them, or cannot."""
    try:
        return move(region.fd, data, at)
    except OSError as error:
        raise bad(f"region {region.document.name!r} cannot be read or written there: {error.strerror}") from error


def _open(key: str) -> int:
    """The object's descriptor. Its name is that of a file, so it must not lead anywhere else."""
    if not _KEY.fullmatch(key) or key.strip("/") in (".", ".."):
        raise bad(f"{key[:NAME_LENGTH_MAX]!r} is no name of a shared memory object: letters, digits, '_', '-' and '.'")
    try:
        fd = os.open(FOLDER / key.removeprefix("/"), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        words = "there is no" if error.errno == errno.ENOENT else "the server may not open"
        raise bad(f"{words} shared memory object {key!r}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise bad(f"{key!r} is no shared memory object")
    return fd
