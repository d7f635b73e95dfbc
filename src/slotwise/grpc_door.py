"""The process of the gRPC door: its entry, its signals, and its end with the server that started it.

    python -m slotwise.grpc_door SETTINGS_AS_JSON PARENT_PID

It ends in peace when it is told to (SIGTERM), and is killed by the kernel when the server dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Sequence

import msgspec

from slotwise.edges.oip.grpc.limits import DoorSettings, Ready
from slotwise.edges.oip.grpc.server import serve
from slotwise.engine.ports import Refusal
from slotwise.lifeline import die_with

GC_THRESHOLD = 50_000
"""Objects made between collections; what a request makes is in no cycles."""


def main(arguments: Sequence[str]) -> None:
    """Become the gRPC door of the process that started this one."""
    settings, parent = arguments
    die_with(int(parent))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the server decides what they mean when a terminal sends them to all
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    asyncio.run(_serve(msgspec.json.decode(settings, type=DoorSettings)))


async def _serve(settings: DoorSettings) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await serve(settings, stopped, _tell, _tell_refused)


def _tell(ready: Ready) -> None:
    os.write(sys.stdout.fileno(), msgspec.json.encode(ready) + b"\n")
    os.set_blocking(sys.stdout.fileno(), False)  # the function has no keyword


def _tell_refused(refusals: Sequence[Refusal]) -> None:
    """Say it on standard output. A server that does not read does not get to know: calls do not wait for that."""
    with contextlib.suppress(BlockingIOError):
        os.write(sys.stdout.fileno(), msgspec.json.encode(refusals) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
