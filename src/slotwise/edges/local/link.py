"""One connection of the local channel at the server's end: frames in and out, by callbacks, nothing awaits.

It knows neither models nor memory. What a client sends is read as long as it reads what it is sent: while a frame
waits to go out nothing is taken in, so what a client can make the server hold is bounded by what it may have under
way. Descriptors are taken with the first frame only; the kernel drops those that come later.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
from collections import deque
from typing import Protocol

from slotwise.edges.local.limits import LocalLimits
from slotwise.facts.value import value

_CREDENTIALS = struct.Struct("3i")
_DESCRIPTORS_MAX = 8


@value
class Peer:
    """Who is at the other end, as the kernel says."""

    pid: int
    uid: int
    gid: int


class Guest(Protocol):
    """What stands behind a link."""

    @property
    def is_busy(self) -> bool:
        """Whether it has more than one question under way, so that another frame may be there already."""

    def take(self, data: bytes, descriptors: list[int]) -> None:
        """One frame, and the descriptors that came with it, which are the guest's to close."""

    def take_too_long(self) -> None:
        """A frame was longer than the limit; what there was of it is lost."""

    def lost(self) -> None:
        """The connection is gone. Said once, also when it was closed at this end."""


class Link:
    """A connection. It reads from `start` on until it is closed by either end."""

    def __init__(self, connection: socket.socket, limits: LocalLimits) -> None:
        self.peer = peer_of(connection)
        self.is_open = True
        self._socket = connection
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._guest: Guest
        self._has_begun = False
        self._is_ending = False
        self._unsent: deque[tuple[bytes, int | None]] = deque()

    def start(self, guest: Guest) -> None:
        """Begin to read."""
        self._guest = guest
        self._loop.add_reader(self._socket, self._read)

    def send(self, data: bytes, descriptor: int | None = None) -> None:
        """Send a frame, at once where the client has room for it. A descriptor stays the caller's until the close."""
        if not self.is_open:
            return
        if self._unsent or not self._put(data, descriptor):
            if not self._unsent and self.is_open:
                self._loop.remove_reader(self._socket)
                self._loop.add_writer(self._socket, self._write)
            self._unsent.append((data, descriptor))

    def end(self) -> None:
        """Close when all has been sent, or in a while where the client does not take it; nothing more is read."""
        self._is_ending = True
        if not self.is_open:
            return
        self._loop.remove_reader(self._socket)
        if not self._unsent:
            self.close()
        else:
            self._loop.call_later(self._limits.linger_s, self.close)

    def close(self) -> None:
        """Close at once."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._unsent.clear()
        self._socket.close()
        self._guest.lost()

    def _read(self) -> None:
        for _ in range(self._limits.frames_per_turn):
            try:
                data, descriptors, flags = self._receive()
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            if not data:
                for fd in descriptors:
                    os.close(fd)
                self.close()
                return
            self._has_begun = True
            if flags & socket.MSG_TRUNC:
                for fd in descriptors:
                    os.close(fd)
                self._guest.take_too_long()
            else:
                self._guest.take(data, descriptors)
            if not self.is_open or self._is_ending or self._unsent or not self._guest.is_busy:
                return  # who asks one question after the other has none there now; what has come all the same waits

    def _receive(self) -> tuple[bytes, list[int], int]:
        nbytes = self._limits.frame_bytes_max
        if self._has_begun:
            # Longer frames are told from those that just fit by one byte more.
            data = self._socket.recv(nbytes + 1)
            return data, [], socket.MSG_TRUNC if len(data) > nbytes else 0
        room = socket.CMSG_SPACE(_DESCRIPTORS_MAX * array.array("i").itemsize)
        data, ancillary, flags, _ = self._socket.recvmsg(nbytes, room, socket.MSG_CMSG_CLOEXEC)
        return data, _descriptors(ancillary), flags

    def _put(self, data: bytes, descriptor: int | None) -> bool:
        """Hand a frame to the system; False when it has no room now. A connection that is broken is closed."""
        try:
            if descriptor is None:
                self._socket.send(data)
            else:
                socket.send_fds(self._socket, [data], [descriptor])
        except BlockingIOError:
            return False
        except OSError:
            self._loop.call_soon(self.close)  # not from within: whoever sends is not done with its guest
        return True

    def _write(self) -> None:
        while self._unsent:
            if not self._put(*self._unsent[0]):
                return
            self._unsent.popleft()
        self._loop.remove_writer(self._socket)
        if self._is_ending:
            self.close()
        else:
            self._loop.add_reader(self._socket, self._read)


def peer_of(connection: socket.socket) -> Peer:
    """Who connected, as the kernel noted it then."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(told)
    return Peer(pid=pid, uid=uid, gid=gid)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()
