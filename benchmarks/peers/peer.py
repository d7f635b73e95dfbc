"""What a peer is to the programs that compare: what it is told, how it is started, asked, read and stopped.

A peer is a module with a class that meets `Peer`. Its own side of the work is a program in `apps/`, run by the peer's
interpreter, which reads the same description of the work as every other (`apps/work.py`). A running server is known
by a mark in the environment of its processes: servers that detach children, or move them into groups of their own,
are counted whole and stopped whole, and nothing else is ever touched.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from harness import processes
from harness.models import Body
from numpy.typing import NDArray

from peers.environment import NotHere

APPS = Path(__file__).resolve().parent / "apps"
MARK = "SLOTWISE_PEER_MARK"
START_S_MAX = 60.0
STOP_S_MAX = 3.0
POLL_S = 0.005
ASK_S_MAX = 10.0
BATCH_WAIT_MS = 1.0
"""The least that every server can be told."""
HTTP_OK = 200
HEAD_LENGTH = "Inference-Header-Content-Length"
LOG_TAIL = 1000
WORDS_LEN = 300


class Form(Enum):
    """How tensors travel."""

    JSON = "JSON"
    BINARY = "binary"


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One model. It is either a file of ONNX, or a device's time: `sleep_ms` for one row, `row_ms` for each further."""

    width: int
    outputs: int
    onnx: str | None = None
    sleep_ms: float = 0.0
    row_ms: float = 0.0
    slo_ms: float = 10_000.0

    def run_ms(self, rows: int) -> float:
        """What an emulated run takes."""
        return self.sleep_ms + self.row_ms * (rows - 1)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What peers are told, in words that all of them have. None leaves it to the peer's own default."""

    workers: int = 1
    form: Form = Form.JSON
    batch_max: int = 1
    batch_wait_ms: float = BATCH_WAIT_MS
    queue_max: int | None = None
    timeout_ms: float | None = None

    def described(self) -> str:
        """In a few words, for a table."""
        words = [
            f"queue {self.queue_max}" if self.queue_max is not None else "",
            f"timeout {self.timeout_ms:g} ms" if self.timeout_ms is not None else "",
            f"batch {self.batch_max}" if self.batch_max > 1 else "",
            f"wait {self.batch_wait_ms:g} ms" if self.batch_max > 1 and self.batch_wait_ms > BATCH_WAIT_MS else "",
        ]
        return ", ".join(filter(None, words)) or "defaults, no batches"


class Knobs(msgspec.Struct, frozen=True):
    """Which settings a peer has at all."""

    queue: bool = False
    timeout: bool = False
    batch: bool = True
    wait: bool = False
    """Whether rows wait for others even where a worker is free, for as long as the setting says."""


class Launch(msgspec.Struct, frozen=True):
    """A program to start, and where it will listen."""

    command: list[str]
    port: int
    environment: dict[str, str] = {}


class Question(msgspec.Struct, frozen=True):
    """A request: where it goes, and what it carries."""

    path: str
    body: Body

    def encoded(self, port: int) -> bytes:
        """The whole of it, as it goes over the wire."""
        headers = {"Host": f"127.0.0.1:{port}", **self.body.headers(), "Content-Length": str(len(self.body.content))}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items()), "\r\n"]
        return "\r\n".join(lines).encode() + self.body.content


class Reply(msgspec.Struct, frozen=True):
    """An answer as it came. `head_length` is None where all of it is one thing."""

    content: bytes
    head_length: int | None


class RawBody(Body, frozen=True):
    """The bytes of one tensor and nothing else."""

    def headers(self) -> dict[str, str]:
        """What has to be said of it."""
        return {"Content-Type": "application/octet-stream"}


class Work(msgspec.Struct, frozen=True):
    """What a server is to serve, under which settings; `apps/work.py` reads it in the peer's own process."""

    models: Mapping[str, Served]
    settings: Settings
    device: str
    """The file whose lock stands for the one device that emulated models share."""


class Peer(Protocol):
    """A server of another kind."""

    name: str
    knobs: Knobs
    forms: Sequence[Form]

    def install(self, root: Path) -> str:
        """Make its environment under `root`, unless it is there; what was installed, in words. Raises NotHere."""

    def launch(self, folder: Path, work: Work, port: int) -> Launch:
        """Write what it needs into `folder` and say how it is started; `port` and the two after it are free."""

    def question(self, model: str, row: NDArray[np.float32], form: Form, timeout_us: int | None) -> Question:
        """A request for one row. The timeout is passed on where a client can tell one."""

    def answer(self, reply: Reply, form: Form) -> NDArray[np.float32]:
        """The row in an answer. Raises ValueError or LookupError for anything else."""


class Running:
    """A server that was started."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, mark: str, log: Path, started_s: float) -> None:
        self.process = process
        self.port = port
        self.mark = mark
        self.log = log
        self.started_s = started_s
        self._last_words = "it never answered"

    def pids(self) -> list[int]:
        """Its processes, however they were started."""
        wanted = f"{MARK}={self.mark}".encode()
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and wanted in _environment(entry).split(b"\0")
        ]

    def cpu_s(self) -> float:
        """Processor time of all its processes so far."""
        return sum(processes.own_cpu_s(pid) for pid in self.pids())

    def pss_bytes(self) -> int:
        """Proportional share of memory of all its processes."""
        return sum(processes.own_pss_bytes(pid) or 0 for pid in self.pids())

    def ask(self, question: Question) -> Reply | None:
        """An answer, or None where it does not answer, or not with 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ASK_S_MAX)
        with contextlib.closing(connection):
            try:
                connection.request("POST", question.path, question.body.content, question.body.headers())
                reply = connection.getresponse()
                content = reply.read()
            except (OSError, http.client.HTTPException) as error:
                self._last_words = repr(error)
                return None
        if reply.status != HTTP_OK:
            self._last_words = f"{reply.status} {content[:WORDS_LEN]!r}"
            return None
        length = reply.headers.get(HEAD_LENGTH)
        return Reply(content, None if length is None else int(length))

    def told(self) -> str:
        """What it said last instead of an answer, and the end of its log."""
        return f"{self._last_words}; its log ends: {self.log.read_text(errors='replace')[-LOG_TAIL:]}"


@contextlib.contextmanager
def started(launch: Launch, folder: Path) -> Iterator[Running]:
    """Start a server and stop every process of it at the end. It may not answer yet; see `wait_for`."""
    mark = uuid.uuid4().hex
    environment = {**os.environ, **launch.environment, MARK: mark}
    started_s = time.monotonic()
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            launch.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, cwd=folder
        )
    running = Running(process, launch.port, mark, folder / "server.log", started_s)
    try:
        yield running
    finally:
        _stop(running)


def wait_for(running: Running, question: Question) -> Reply:
    """The first answer of a server. Raises NotHere when it ends before one, or takes too long."""
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        reply = running.ask(question)
        if reply is not None:
            return reply
        if running.process.poll() is not None:
            raise NotHere(f"it ended with {running.process.returncode} before it answered: {running.told()}")
        time.sleep(POLL_S)
    raise NotHere(f"no answer within {START_S_MAX:g} s: {running.told()}")


def _stop(running: Running) -> None:
    """Ask politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal([running.process.pid] if number is signal.SIGTERM else running.pids(), number)
        deadline = time.monotonic() + STOP_S_MAX
        while time.monotonic() < deadline:
            running.process.poll()
            if not running.pids():
                return
            time.sleep(POLL_S)
            if number is signal.SIGKILL:
                _signal(running.pids(), number)
    raise SystemExit(f"processes of a server do not end: {running.pids()}")


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _environment(entry: Path) -> bytes:
    try:
        return (entry / "environ").read_bytes()
    except OSError:
        return b""
