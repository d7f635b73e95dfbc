"""Inspections: models are loaded and measured in processes of their own, one at a time.

One at a time because each is timed. Whatever becomes of the process, the caller gets an answer or a
ModelError, and the server goes on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping

from slotwise.edges.fleets.messages import (
    InspectFailure,
    InspectorSettings,
    MessageError,
    decode_inspector_report,
)
from slotwise.edges.fleets.nursery import Nursery
from slotwise.edges.fleets.settings import CoreSlice, FleetLimits
from slotwise.engine.ports import NO_SHAPES, Inspection, ModelError

REPORT_BYTES_MAX = 1 << 20


class Inspections:
    """Carries out inspections; an `engine.ports.Inspector`."""

    def __init__(self, nursery: Nursery, slice_: CoreSlice, limits: FleetLimits) -> None:
        self._nursery = nursery
        self._slice = slice_
        self._limits = limits
        self._turn = asyncio.Lock()
        self._present: InspectorProcess | None = None

    @property
    def pid(self) -> int | None:
        """The process of the inspection under way."""
        return self._present.pid if self._present else None

    async def inspect(
        self, path: str, batch_max: int, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES, pack_into: str = ""
    ) -> Inspection:
        """Load, warm up and measure on the fleet's first slice. Raises ModelError."""
        async with self._turn:
            self._present = InspectorProcess(path, self._limits.inspect_s_max)
            try:
                return await self._present.run(self._nursery, self._settings(path, batch_max, shapes, pack_into))
            finally:
                self._present = None

    def close(self) -> None:
        """End the inspection under way; its caller is told so."""
        if self._present is not None:
            self._present.kill()

    def _settings(
        self, path: str, batch_max: int, shapes: Mapping[str, tuple[int, ...]], pack_into: str
    ) -> InspectorSettings:
        limits, slice_ = self._limits, self._slice
        return InspectorSettings(
            path=path,
            batch_max=batch_max,
            cores=slice_.cores,
            threads=slice_.threads or len(slice_.cores) or 1,
            nice=limits.nice,
            budget_ns=limits.inspect_budget_ns,
            memory_bytes=limits.inspect_memory_bytes,
            shapes=dict(shapes),
            pack_into=pack_into,
        )


class InspectorProcess:
    """One inspection; a `nursery.Child`."""

    def __init__(self, path: str, time_s_max: float) -> None:
        self.pid: int | None = None
        self._path = path
        self._time_s_max = time_s_max
        self._pidfd: int | None = None
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def forked(self, pid: int, pidfd: int) -> None:
        """The process exists."""
        self.pid, self._pidfd = pid, pidfd

    def ended(self, how: str) -> None:
        """The process is gone; what it has sent can still be read."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if not self._end.done():
            self._end.set_result(how)

    async def run(self, nursery: Nursery, settings: InspectorSettings) -> Inspection:
        """Wait for the process's end and read its report."""
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with mine, its:
            mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, REPORT_BYTES_MAX)
            nursery.fork_inspector(settings, its.fileno(), self)
            try:
                async with asyncio.timeout(self._time_s_max):
                    how = await asyncio.shield(self._end)
            except TimeoutError as error:
                raise ModelError(f"{self._path!r} was not loaded and measured within {self._time_s_max:g} s") from error
            finally:
                self.kill()
            return self._read(mine, how)

    def kill(self) -> None:
        """End the process, if there is one."""
        if self._pidfd is not None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _read(self, mine: socket.socket, how: str) -> Inspection:
        mine.settimeout(0)
        try:
            report = decode_inspector_report(mine.recv(REPORT_BYTES_MAX))
        except (BlockingIOError, MessageError) as error:
            raise ModelError(f"{self._path!r} cannot be served: the process that tried it {how}") from error
        if type(report) is InspectFailure:
            raise ModelError(report.text)
        return report.inspection  # type: ignore[union-attr]  # the union less the one above
