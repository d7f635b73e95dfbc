"""Ports for servers to listen on, in runs of three, out of a range that the system gives to nobody by itself."""

from __future__ import annotations

import contextlib
import os
import socket

PORTS = range(21_000, 29_000, 8)
PORTS_EACH = 3


def free_port() -> int:
    """The first of three free ports in a row."""
    start = os.getpid() % len(PORTS)
    for turn in range(len(PORTS)):
        port = PORTS[(start + turn) % len(PORTS)]
        if all(_is_free(port + offset) for offset in range(PORTS_EACH)):
            return port
    raise SystemExit(f"there are no free ports from {PORTS[0]} to {PORTS[-1]}")


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
