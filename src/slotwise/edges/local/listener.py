"""The socket in the file system: it appears for its owner alone, takes the place of a dead one, and goes at the end."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

BACKLOG = 64
MODE = 0o600
ACCEPTS_PER_TURN = 16
PAUSE_S = 1.0
"""How long nobody is let in when the system has no descriptor or memory left for it."""
_SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class ListenError(OSError):
    """The path cannot be listened at; the text says why and what to do."""


class Listener:
    """Accepts connections at a path, from `start` until `close`."""

    def __init__(self, path: str, accept: Callable[[socket.socket], None]) -> None:
        self._path = Path(path)
        self._accept = accept
        self._socket: socket.socket | None = None
        self._identity = (0, 0)
        self._pause: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Listen. Raises ListenError."""
        made = _bound(self._path)
        made.listen(BACKLOG)
        found = self._path.stat()
        self._socket, self._identity = made, (found.st_dev, found.st_ino)
        self._listen()

    def close(self) -> None:
        """Stop, and remove the socket unless another has taken its place."""
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        if self._pause is not None:
            self._pause.cancel()
        self._socket.close()
        self._socket = None
        try:
            found = self._path.stat()
        except OSError:
            return  # somebody has removed it already
        if (found.st_dev, found.st_ino) == self._identity:
            self._path.unlink()

    def _listen(self) -> None:
        assert self._socket is not None, "a pause ends with the socket"
        asyncio.get_running_loop().add_reader(self._socket, self._take)

    def _take(self) -> None:
        assert self._socket is not None, "reading ends with the socket"
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, _ = self._socket.accept()
            except OSError as error:
                if error.errno in _SHORTAGES:
                    loop = asyncio.get_running_loop()
                    loop.remove_reader(self._socket)
                    self._pause = loop.call_later(PAUSE_S, self._listen)
                return  # else none is waiting, or the one that was has gone
            connection.setblocking(False)  # noqa: FBT003  # the method has no keyword
            self._accept(connection)


def check_path(path: str) -> None:
    """Raise ListenError for a path that cannot be listened at; nothing is left there."""
    _bound(Path(path)).close()
    Path(path).unlink()


def _bound(path: Path) -> socket.socket:
    """A socket at a path, to which nobody can connect until it listens, and then only its owner."""
    _clear(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        made.bind(str(path))
        path.chmod(MODE)
    except OSError as error:
        made.close()
        raise ListenError(f"cannot listen at {path}: {error.strerror or error}") from error
    return made


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens at any more. Raises ListenError for anything else that is there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"cannot listen at {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"cannot listen at {path}: there is something else of that name; choose another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            pass  # of another kind, or too busy to answer: in use in any case
    raise ListenError(f"cannot listen at {path}: another program does already; stop it, or choose another path")
