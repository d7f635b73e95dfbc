"""Three processes that hand a byte round: what waking them costs on this machine, with nothing between.

The way is that of a request on the local channel: this program, a socket, a process with an event loop, an eventfd, a
process that sleeps on it, an eventfd, and back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator

BYTE = b"x"
NICE = 10
"""As the fleet's executors."""


@contextlib.contextmanager
def relay(core: int) -> Iterator[Callable[[], None]]:
    """A call that goes round once; the last of the processes is bound to a core."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    there, back = os.eventfd(0), os.eventfd(0, os.EFD_NONBLOCK)
    pids = [_fork(lambda: _answer(core, there, back)), _fork(lambda: asyncio.run(_pass_on(far, there, back)))]

    def go_round() -> None:
        near.send(BYTE)
        near.recv(1)

    try:
        yield go_round
    finally:
        for pid in pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        near.close()
        far.close()
        os.close(there)
        os.close(back)


def _fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    finally:
        os._exit(1)


def _answer(core: int, there: int, back: int) -> None:
    os.sched_setaffinity(0, {core})
    os.nice(NICE)
    while True:
        os.eventfd_read(there)
        os.eventfd_write(back, 1)


async def _pass_on(far: socket.socket, there: int, back: int) -> None:
    loop = asyncio.get_running_loop()
    far.setblocking(False)  # noqa: FBT003  # the method has no keyword

    def take() -> None:
        if far.recv(1):
            os.eventfd_write(there, 1)

    def reply() -> None:
        os.eventfd_read(back)
        far.send(BYTE)

    loop.add_reader(far, take)
    loop.add_reader(back, reply)
    await asyncio.Event().wait()
