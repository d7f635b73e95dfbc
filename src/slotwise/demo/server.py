"""A server as a process of its own: started, waited for, asked how it stands, and always stopped.

It runs in a session of its own, so that Ctrl-C reaches the demo alone and what a server leaves behind can be found.
The demo holds its standard input open: should the demo be killed, that ends, and the server with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from slotwise.client import HttpClient
from slotwise.facts.value import value

START_S_MAX = 300.0
"""How long a server may take to look at every model and open its door."""
STOP_S_MAX = 20.0
"""How long a server may take to answer what is under way and end."""
LOG_LINES_SHOWN = 5
ANNOUNCEMENT, CONFIGURATION = "serving ", "configuration: "
HOST = "127.0.0.1"


class DemoError(Exception):
    """The demo cannot go on; the text says why and what to do."""


class ExecutorStatus(msgspec.Struct, frozen=True):
    """An executor as the server tells of it."""

    executor: str
    state: str
    pid: int | None
    restarts: int


class Status(msgspec.Struct, frozen=True):
    """What the demo reads of `GET /v2/slotwise/status`."""

    executors: tuple[ExecutorStatus, ...]
    clock_offset_ns: int


@value
class Command:
    """How the server is to be started. `options` go to `slotwise serve` as they are."""

    repository: Path
    journal: Path
    log: Path
    """What the server says goes here."""
    options: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """The command line."""
        fixed = ("serve", str(self.repository), "--stop-at-eof", "--http-port", "0", "--no-grpc")
        return [sys.executable, "-m", "slotwise.cli", *fixed, "--journal", str(self.journal), *self.options]


@value
class Server:
    """A running server."""

    host: str
    port: int
    pid: int
    models: int
    """How many it offers."""

    def memory_bytes(self) -> int:
        """What all its processes take of the machine's memory, shared pages in proportion (PSS)."""
        return sum(_pss_bytes(pid) for pid in session_pids(self.pid))


@contextlib.asynccontextmanager
async def running(command: Command) -> AsyncIterator[Server]:
    """A server from its announcement on; stopped at the end, however it comes. Raises DemoError."""
    with command.log.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command.words(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield await _announced(process, command.log)
    finally:
        await _stop(process)


async def status(client: HttpClient) -> Status:
    """How the server stands."""
    return msgspec.json.decode(await client.get("/v2/slotwise/status"), type=Status)


def session_pids(session: int) -> list[int]:
    """The processes of a session that live: a server, its zygote and its executors."""
    pids = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal())
    return sorted(pid for pid in pids if _session_of(pid) == session)


async def _announced(process: asyncio.subprocess.Process, log: Path) -> Server:
    assert process.stdout is not None, "the output is piped"
    try:
        line = await asyncio.wait_for(_announcement(process.stdout), START_S_MAX)
    except TimeoutError as error:
        raise DemoError(f"the server did not open its door within {START_S_MAX:.0f} s; {_last_words(log)}") from error
    if not line:
        raise DemoError(f"the server ended before it opened its door; {_last_words(log)}")
    try:
        _, models, *_, url = line.split()
        return Server(host=HOST, port=int(url.rpartition(":")[2]), pid=process.pid, models=int(models))
    except ValueError as error:
        raise DemoError(f"the server announced itself as {line!r}, which names no port") from error


async def _announcement(lines: asyncio.StreamReader) -> str:
    """The line that names the port; empty when the output ends without."""
    async for line in lines:
        if line.decode().startswith(ANNOUNCEMENT):
            return line.decode().strip()
    return ""


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ask it to end, wait, and end by force what is left of its session."""
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S_MAX)
    except TimeoutError:
        process.kill()
        await process.wait()
    for pid in session_pids(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if not line.startswith(CONFIGURATION)]
    return f"its last words, from {log}: " + (" / ".join(lines[-LOG_LINES_SHOWN:]) or "none")


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _pss_bytes(pid: int) -> int:
    """A process's share of memory; 0 for one that is just ending."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
