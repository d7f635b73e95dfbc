"""Shared memory of clients, over HTTP. An input is a short program: what is registered, asked, and taken away."""

from __future__ import annotations

import json
import os
import random
from contextlib import suppress
from urllib.parse import quote

from fuzz.reader import Reader
from fuzz.server import Server
from fuzz.target import Fault
from slotwise.edges.oip.regions import FOLDER

STEPS_MAX = 20
NAMES = ("r", "s", "a b", "\r\n", "\u00e4", "x" * 300, "..", "r/../s")
KINDS = ("mine", "other", "link", "fifo", "folder")
ODD_KEYS = ("../etc/passwd", "/etc/passwd", ".", "", "none", "a\0b", "/" * 9)
ALLOWED = frozenset((200, 400, 404, 503, 501, 504))


class Regions:
    """One program for each input."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stem = f"slotwise-fuzz-{os.getpid()}"
        self._keys = [*[f"{self._stem}-{kind}" for kind in KINDS], *ODD_KEYS]

    def seeds(self) -> list[bytes]:
        """Programs that register, ask and unregister."""
        source = random.Random(9)
        honest = bytes([0, 0, 0, 0, 64, 2, 0, 0, 0, 16, 0, 1, 0])
        return [honest, honest * 2, *[source.randbytes(40) for _ in range(20)]]

    def run(self, data: bytes) -> None:
        """One program."""
        reader = Reader(data)
        self._lay_out()
        try:
            for _ in range(STEPS_MAX):
                if reader.is_done:
                    break
                self._step(reader)
        finally:
            self._clear_away()

    def check(self) -> None:
        """All is forgotten when it is told to be, and others are served."""
        self._server.post("/v2/systemsharedmemory/unregister")
        status, left = self._server.get("/v2/systemsharedmemory/status")
        if status != 200 or left:
            raise Fault(f"regions are left: {left}")
        self._server.check()

    def close(self) -> None:
        """The end."""
        self._server.close()

    def _clear_away(self) -> None:
        for path in FOLDER.glob(f"{self._stem}-*"):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()

    def _lay_out(self) -> None:
        mine, other, link, fifo, folder = (FOLDER / f"{self._stem}-{kind}" for kind in KINDS)
        for path in (mine, other):
            path.write_bytes(bytes(4096))
        link.symlink_to("/etc/passwd")
        os.mkfifo(fifo)
        folder.mkdir()

    def _step(self, reader: Reader) -> None:
        name = quote(reader.choice(NAMES), safe="")
        match reader.byte() % 6:
            case 0:
                told = {"key": reader.choice(self._keys), "offset": reader.count(), "byte_size": reader.count()}
                self._expect(f"/v2/systemsharedmemory/region/{name}/register", json.dumps(told).encode())
            case 1:
                self._expect(f"/v2/systemsharedmemory/region/{name}/unregister", b"")
            case 2 | 3:
                self._infer(reader)
            case 4:
                with suppress(OSError):
                    os.truncate(FOLDER / f"{self._stem}-mine", reader.count() % (1 << 20))
            case _:
                with suppress(OSError):
                    (FOLDER / f"{self._stem}-mine").unlink()

    def _infer(self, reader: Reader) -> None:
        places = [
            {
                "shared_memory_region": reader.choice(NAMES[:4]),
                "shared_memory_offset": reader.count(),
                "shared_memory_byte_size": reader.choice((16, 16, reader.count())),
            }
            for _ in range(2)
        ]
        given = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": places[0]}
        asked = {"name": "y", "parameters": places[1]}
        body = {"inputs": [given], "outputs": [asked], "parameters": {"timeout": 10_000_000}}
        self._expect("/v2/models/plain/infer", json.dumps(body).encode())

    def _expect(self, path: str, body: bytes) -> None:
        status, said = self._server.post(path, body)
        if status not in ALLOWED:
            raise Fault(f"{path} is answered with {status}: {said}")
