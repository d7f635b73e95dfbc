"""The server's end of the gRPC door's process: starts it, waits until it listens, replaces it, and ends it.

The ways between the two are Unix sockets, on which the server listens, in a folder that nobody else may enter: one for
the local channel, which inferences take, and one for HTTP. The port stays the same over the process's lives. A door
that dies takes its calls along, which their clients see as UNAVAILABLE; the server learns of their requests' end by the
connection's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from slotwise.edges.oip.grpc.limits import DoorSettings, Ready
from slotwise.engine.ports import Refusal, Refused
from slotwise.facts.value import value


class GrpcDoorError(RuntimeError):
    """The door could not be opened; the text says why."""


@value
class DoorStatus:
    """The gRPC door as it stands."""

    address: str
    pid: int | None
    restarts: int


class DoorKeeper:
    """Keeps one process alive from `start` to `stop`. The server listens on both paths before the start."""

    def __init__(self, settings: DoorSettings, refused: Refused) -> None:
        """`refused` is told of what the door turns away by itself."""
        self._refused = refused
        self._folder = tempfile.TemporaryDirectory(prefix="slotwise-")
        self.upstream = str(Path(self._folder.name) / "door")
        self.channel = str(Path(self._folder.name) / "channel")
        self._settings = msgspec.structs.replace(settings, upstream=self.upstream, channel=self.channel)
        self._limits = settings.limits
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self.port = 0
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The present process; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def status(self) -> DoorStatus:
        """A snapshot."""
        return DoorStatus(address=self.address(), pid=self.pid, restarts=self.restarts)

    def address(self) -> str:
        """Where it is served, once it is open."""
        host = self._settings.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    async def start(self) -> int:
        """Open the door, and return its port. Raises GrpcDoorError."""
        await self._open()
        self._keeping = asyncio.create_task(self._keep())
        return self.port

    async def stop(self) -> None:
        """Have the door answer what is under way and end; one that does not is killed. Also if it never started."""
        await self._end()
        self._folder.cleanup()

    async def _end(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self._settings.patience_s + self._limits.close_s_max)
        except TimeoutError:
            await _kill(process)

    async def _keep(self) -> None:
        loop, limits = asyncio.get_running_loop(), self._limits
        pause_s = limits.restart_s_min
        since_s = loop.time()
        while True:
            assert self._process is not None, "opened before it is kept"
            await self._listen(self._process)
            await self._process.wait()
            if loop.time() - since_s >= limits.settled_s:
                pause_s = limits.restart_s_min
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, limits.restart_s_max)
            since_s = loop.time()
            self.restarts += 1
            with contextlib.suppress(GrpcDoorError):  # its process has ended, so the next round tries again
                await self._open()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Hand on what the door turns away, until it ends."""
        assert process.stdout is not None, "asked for"
        while line := await process.stdout.readline():
            if not line.endswith(b"\n"):
                return  # it was killed while it wrote
            for refusal in msgspec.json.decode(line, type=list[Refusal]):
                self._refused(refusal)

    async def _open(self) -> None:
        settings = msgspec.structs.replace(self._settings, port=self.port or self._settings.port)
        words = ["-m", "slotwise.grpc_door", msgspec.json.encode(settings).decode(), str(os.getpid())]
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        try:
            ready = await asyncio.wait_for(_read_ready(process), self._limits.start_s_max)
        except BaseException as error:
            await _kill(process)
            if isinstance(error, TimeoutError):
                raise GrpcDoorError(f"the gRPC door was not ready within {self._limits.start_s_max:g} s") from error
            raise
        if ready.error:
            await process.wait()
            raise GrpcDoorError(f"the gRPC door did not open: {ready.error}")
        self.port = ready.port


async def _read_ready(process: asyncio.subprocess.Process) -> Ready:
    assert process.stdout is not None, "asked for"
    line = await process.stdout.readline()
    if not line:
        return Ready(error=f"its process ended with status {await process.wait()}")
    return msgspec.json.decode(line, type=Ready)


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
