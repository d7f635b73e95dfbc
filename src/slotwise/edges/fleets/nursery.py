"""The front's end of the zygote: starts it, has it fork children, hears how they end, replaces it.

A child is told exactly once that it has ended, whether it ended by itself, was killed, or went down with the
zygote. Requests made while there is no zygote wait for the next one; a zygote that does not answer
in time is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Protocol

from slotwise.edges.fleets.messages import (
    ExecutorSettings,
    Exited,
    Forked,
    ForkExecutor,
    ForkInspector,
    InspectorSettings,
    MessageError,
    ZygoteCommand,
    ZygoteReady,
    decode_zygote_report,
    encode,
)
from slotwise.facts.value import value

REPORT_BYTES_MAX = 1 << 16
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
"""A zygote must have no threads when it forks: a lock that one holds stays locked in every child for ever."""


class Child(Protocol):
    """A process to be forked."""

    def forked(self, pid: int, pidfd: int) -> None:
        """It has come to be. The descriptor is the child's to close."""

    def ended(self, how: str) -> None:
        """It is no more; also if it never came to be. Called once."""


@value
class Birth:
    """A request to fork that has not been sent. The descriptors are its own copies."""

    command: ZygoteCommand
    fds: tuple[int, ...]
    child: Child


class Nursery:
    """One zygote at a time, and the children of the present one."""

    def __init__(self, *, restart_s: float, answer_s_max: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._restart_s = restart_s
        self._answer_s_max = answer_s_max
        self._ticket = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._is_ready = False
        self._is_closed = False
        self._waiting: list[Birth] = []
        self._children: dict[int, Child] = {}
        self._alarms: dict[int, asyncio.TimerHandle] = {}
        self._childless = asyncio.Event()
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The present zygote's process."""
        return self._process.pid if self._process else None

    @property
    def children(self) -> int:
        """How many processes there are or are about to be."""
        return len(self._children) + len(self._waiting)

    def start(self) -> None:
        """Start a zygote; it takes requests at once and carries them out when it is ready."""
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "slotwise.zygote", str(its.fileno()), str(os.getpid())],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_ENVIRONMENT},
            )
        mine.settimeout(0)
        self._socket = mine
        self._loop.add_reader(mine, self._read)
        self._set_alarm(0)

    def fork_executor(self, settings: ExecutorSettings, fds: Sequence[int], child: Child) -> None:
        """Have an executor forked with copies of the descriptors."""
        self._fork(ForkExecutor(ticket=self._next_ticket(), settings=settings), fds, child)

    def fork_inspector(self, settings: InspectorSettings, fd: int, child: Child) -> None:
        """Have an inspector forked that answers on a copy of `fd`."""
        self._fork(ForkInspector(ticket=self._next_ticket(), settings=settings), (fd,), child)

    async def close(self) -> None:
        """End the zygote, and with it whatever children are left."""
        self._is_closed = True
        self._drop()
        process = self._process
        if process is None:
            return
        await self._wait_for_end(process.pid)
        process.kill()
        process.wait()
        self._process = None
        self._end_children("was ended with the fleet")

    async def wait_until_childless(self, timeout_s: float) -> None:
        """Wait for all children to have ended, or for the time to pass."""
        self._childless.clear()
        if self._children or self._waiting:
            await _wait(self._childless, timeout_s)

    async def _wait_for_end(self, pid: int) -> None:
        """Wait for a process to end of itself, for as long as an answer may take."""
        pidfd = os.pidfd_open(pid)
        ended = asyncio.Event()
        self._loop.add_reader(pidfd, ended.set)
        await _wait(ended, self._answer_s_max)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)

    def _next_ticket(self) -> int:
        self._ticket += 1
        return self._ticket

    def _fork(self, command: ZygoteCommand, fds: Sequence[int], child: Child) -> None:
        birth = Birth(command=command, fds=tuple([os.dup(fd) for fd in fds]), child=child)
        if self._is_ready:
            self._send(birth)
        else:
            self._waiting.append(birth)

    def _send(self, birth: Birth) -> None:
        assert self._socket is not None
        ticket = birth.command.ticket
        self._children[ticket] = birth.child
        self._set_alarm(ticket)
        try:
            socket.send_fds(self._socket, [encode(birth.command)], birth.fds)
        except OSError as error:
            self._loop.call_soon(self._lose, f"the zygote takes no requests: {error}")
        finally:
            _close_all(birth.fds)

    def _read(self) -> None:
        assert self._socket is not None
        try:
            record, fds, _, _ = socket.recv_fds(self._socket, REPORT_BYTES_MAX, 1)
        except OSError as error:
            self._lose(f"the zygote cannot be heard: {error}")
            return
        if not record:
            self._lose("the zygote died")
            return
        try:
            report = decode_zygote_report(record)
        except MessageError as error:
            self._lose(f"the zygote is not understood: {error}")
            return
        match report:
            case ZygoteReady():
                self._take_up_work()
            case Forked():
                self._cancel_alarm(report.ticket)
                self._children[report.ticket].forked(report.pid, fds[0])
            case Exited():
                self._children.pop(report.ticket).ended(report.how)
                if not self._children:
                    self._childless.set()

    def _take_up_work(self) -> None:
        self._cancel_alarm(0)
        self._is_ready = True
        births, self._waiting = self._waiting, []
        for birth in births:
            self._send(birth)

    def _lose(self, message: str) -> None:
        """The zygote is gone or must go: the kernel ends its children, another zygote comes."""
        if self._socket is None or self._is_closed:
            return
        self._drop()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.restarts += 1
        self._loop.call_later(self._restart_s, self._restart)
        self._end_children(f"went down: {message}")

    def _end_children(self, how: str) -> None:
        births, self._waiting = self._waiting, []
        children, self._children = [*self._children.values(), *(birth.child for birth in births)], {}
        for birth in births:
            _close_all(birth.fds)
        for child in children:
            child.ended(how)

    def _restart(self) -> None:
        if not self._is_closed:
            self.start()

    def _drop(self) -> None:
        self._is_ready = False
        for alarm in self._alarms.values():
            alarm.cancel()
        self._alarms.clear()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _set_alarm(self, ticket: int) -> None:
        message = f"the zygote did not answer within {self._answer_s_max:g} s"
        self._alarms[ticket] = self._loop.call_later(self._answer_s_max, self._lose, message)

    def _cancel_alarm(self, ticket: int) -> None:
        alarm = self._alarms.pop(ticket, None)
        if alarm is not None:
            alarm.cancel()


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
