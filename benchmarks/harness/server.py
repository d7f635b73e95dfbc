"""A real server in a process of its own, on a free port, with its settings in a file and its profiles in a folder."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

START_S_MAX = 300.0
STOP_S_MAX = 30.0
T = TypeVar("T")


class Count(msgspec.Struct, frozen=True):
    """How often, and how long in all."""

    count: int
    ns: int


class BatchStatistics(msgspec.Struct, frozen=True):
    """Runs of one batch size."""

    batch_size: int
    compute_infer: Count


class ModelStatistics(msgspec.Struct, frozen=True):
    """What is read of a model's statistics."""

    name: str
    batch_stats: list[BatchStatistics]


class _Statistics(msgspec.Struct, frozen=True):
    model_stats: list[ModelStatistics]


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.pid = process.pid
        self.port = port
        self._process = process

    def line(self, start: str) -> str:
        """The next line on its standard output that begins so; it must be one that is still to come."""
        assert self._process.stdout is not None, "a server's output is read"
        for line in self._process.stdout:
            if line.startswith(start):
                return line.strip()
        raise SystemExit(f"the server ended without a line that begins with {start!r}")

    def end(self, s_max: float = STOP_S_MAX) -> int | None:
        """Tell it to end, and wait: its exit status, or None where it had to be killed."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(s_max)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None

    def get(self, path: str, kind: type[T]) -> T:
        """The document at a path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return msgspec.json.decode(connection.getresponse().read(), type=kind)

    def statistics(self) -> list[ModelStatistics]:
        """How often each model ran in which batch size so far, and for how long."""
        return self.get("/v2/models/stats", _Statistics).model_stats


@contextlib.contextmanager
def serve(
    repository: Path, folder: Path, settings: Mapping[str, object], environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Serve a repository with these settings of `slotwise.config.Config`; `folder` keeps what is written.

    It has a session of its own, in which what it leaves behind can be found, and ends with this process.
    """
    config = folder / "server.toml"
    config.write_text(
        _toml(
            {"repository": str(repository), "http_port": 0, "grpc": False, "cache": str(folder / "cache"), **settings}
        )
    )
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "slotwise.cli", "serve", "--config", str(config), "--stop-at-eof"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        server = Server(process, 0)
        try:
            server.port = _port(process, folder / "server.log")
            yield server
        finally:
            server.end()


def _port(process: subprocess.Popen[str], log: Path) -> int:
    """The port from the line that says what is served."""
    assert process.stdout is not None, "asked for above"
    for line in process.stdout:
        if line.startswith("serving "):
            return int(line.rpartition(":")[2])
    raise SystemExit(f"the server ended before it served: {log.read_text()[-2000:]}")


def _toml(settings: Mapping[str, object]) -> str:
    """Plain values and tables of them; JSON's strings, numbers and lists are TOML's too."""
    plain = [(name, given) for name, given in settings.items() if not isinstance(given, Mapping)]
    lines = [f"{name} = {msgspec.json.encode(given).decode()}" for name, given in plain]
    for name, given in settings.items():
        if isinstance(given, Mapping):
            lines += [f"[{name}]", _toml(given)]
    return "\n".join(lines) + "\n"
