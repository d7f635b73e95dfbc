"""The zygote: a process that has the runtimes imported, and forks executors and inspectors from itself.

A forked process shares the imported libraries' memory and is ready in milliseconds. What lives here is
forking, reaping and nothing else: no threads, no sessions, no decisions. Messages come over a socket that
keeps their bounds and carries descriptors; its end is the end of the zygote. The kernel kills the
children when the zygote dies, and the zygote when the front dies, so nobody is left behind.

    python -m slotwise.zygote SOCKET_DESCRIPTOR PARENT_PID
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from slotwise.edges import runtimes
from slotwise.edges.fleets.messages import (
    TEXT_LENGTH_MAX,
    Exited,
    Forked,
    ForkExecutor,
    ForkInspector,
    Inspected,
    InspectFailure,
    InspectorSettings,
    Message,
    ZygoteCommand,
    ZygoteReady,
    decode_zygote_command,
    encode,
)
from slotwise.edges.runtimes.inspection import inspect
from slotwise.edges.slices import cores
from slotwise.engine.ports import ModelError
from slotwise.lifeline import die_with
from slotwise.worker.executor import run_executor

COMMAND_BYTES_MAX = 1 << 16
DESCRIPTORS_MAX = 8


class Zygote:
    """Forks on request and reports how its children end."""

    def __init__(self, front: socket.socket) -> None:
        self._front = front
        self._tickets: dict[int, int] = {}
        self._poll = select.poll()
        self._poll.register(front, select.POLLIN)

    def run(self) -> None:
        """Serve until the front goes away."""
        self._send(ZygoteReady())
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._front.fileno():
                    self._reap(fd)
                elif not self._serve():
                    return

    def _serve(self) -> bool:
        record, fds, _, _ = socket.recv_fds(self._front, COMMAND_BYTES_MAX, DESCRIPTORS_MAX)
        if not record:
            return False
        self._fork(decode_zygote_command(record), fds)
        return True

    def _fork(self, command: ZygoteCommand, fds: Sequence[int]) -> None:
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(command, fds, zygote)
        for fd in fds:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        self._tickets[pidfd] = command.ticket
        self._poll.register(pidfd, select.POLLIN)
        self._send(Forked(ticket=command.ticket, pid=pid), pidfd)

    def _become(self, command: ZygoteCommand, fds: Sequence[int], zygote: int) -> None:
        """Turn this forked process into what was asked for. Does not return: an error that is raised here ends it."""
        die_with(zygote)
        self._front.close()
        for pidfd in self._tickets:
            os.close(pidfd)
        _run_child(command, fds)
        os._exit(0)

    def _reap(self, pidfd: int) -> None:
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        assert ended is not None, "a process that has ended can be waited for"
        self._send(Exited(ticket=self._tickets.pop(pidfd), how=_how(ended.si_code, ended.si_status)))

    def _send(self, message: Message, *fds: int) -> None:
        socket.send_fds(self._front, [encode(message)], fds)


def _run_child(command: ZygoteCommand, fds: Sequence[int]) -> None:
    if type(command) is ForkExecutor:
        run_executor(command.settings, fds)
    elif type(command) is ForkInspector:
        run_inspector(command.settings, fds[0])


def run_inspector(settings: InspectorSettings, fd: int) -> None:
    """Inspect one model and send what was found."""
    cores.enter(settings.cores, settings.nice)
    _limit_memory(settings.memory_bytes)
    limit = f"an inspection may take {settings.memory_bytes} bytes of memory"
    report: Message
    try:
        report = Inspected(
            inspection=inspect(
                settings.path,
                settings.batch_max,
                settings.threads,
                settings.budget_ns,
                settings.shapes,
                settings.pack_into,
            )
        )
    except ModelError as error:
        text = str(error)[:TEXT_LENGTH_MAX]
        report = InspectFailure(text=f"{text} ({limit})" if "bad_alloc" in text else text)
    except MemoryError:
        report = InspectFailure(text=f"{settings.path!r} needs more memory: {limit}")
    with socket.socket(fileno=fd) as front:
        front.sendall(encode(report))


def _limit_memory(nbytes: int) -> None:
    """Let this process's private memory grow by so many bytes at most."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    now_bytes = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = now_bytes + nbytes
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _how(code: int, status: int) -> str:
    """How a process ended, in words."""
    if code == os.CLD_EXITED:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(status).name}"
    except ValueError:
        return f"was killed by signal {status}"


def main(arguments: Sequence[str]) -> None:
    """Become the zygote of the process that started this one."""
    fd, parent = (int(argument) for argument in arguments)
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the front decides what an interrupt at the terminal means
    runtimes.preload()
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError("a runtime's library starts threads when imported; whatever they lock stays locked in forks")
    gc.collect()
    gc.freeze()
    gc.disable()
    with socket.socket(fileno=fd) as front:
        Zygote(front).run()


if __name__ == "__main__":
    main(sys.argv[1:])
