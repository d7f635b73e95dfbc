"""Runs the demo from beginning to end and tells, step by step, what is being done.

It prints nothing itself: lines go to `tell`, and what was found comes back as a value.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from slotwise.client import HttpClient
from slotwise.demo import picture
from slotwise.demo.load import KILL_LOAD, LOADS, Act, Kill, Plan, calibrated, describe, encoded, kill_one, look_at, play
from slotwise.demo.mix import exhibits
from slotwise.demo.report import COLUMNS, Report, client_cost_us, phase_report, rows, verdict
from slotwise.demo.server import Command, DemoError, Server, running, status
from slotwise.facts.value import value
from slotwise.load.http import HttpWay
from slotwise.load.sender import Sender

__all__ = ["COLUMNS", "PHASE_S", "DemoError", "Options", "Shown", "rows", "show"]

PHASE_S = 10.0
PHASE_S_MIN = 0.5
CONNECTIONS = 256
"""More than requests can be under way at once; whether one ever waited is told."""
FIGURE_FILE, TRACE_FILE, JOURNAL_FILE, LOG_FILE = "timeline.png", "timeline.json", "journal.jsonl", "server.log"
Tell = Callable[[str], None]


@value
class Options:
    """What the demo can be told."""

    repository: Path
    out: Path
    seconds: float = PHASE_S
    """Of each phase."""
    server_options: tuple[str, ...] = ()
    """Handed to `slotwise serve`."""


@value
class Shown:
    """What came of it."""

    report: Report
    acts: tuple[Act, ...]
    verdict: str
    figure: Path
    trace: Path
    client_us: float
    """Processor time of the client for each request."""


@value
class _Played:
    models: int
    acts: tuple[Act, ...]
    kill: Kill
    memory_bytes: int
    clock_offset_ns: int


async def show(options: Options, tell: Tell) -> Shown:
    """The whole demo. Ctrl-C and SIGTERM end it early, with the server stopped. Raises DemoError or ClientError."""
    picture.require_library()
    if options.seconds < PHASE_S_MIN:
        raise DemoError(f"a phase of {options.seconds:g} s shows nothing; give {PHASE_S_MIN:g} s or more")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"{options.out} cannot be made a folder: {error.strerror}; name another") from error
    with _stopping_on_signals():
        played = await _play_all(options, tell)
    tell("drawing what happened from the server's journal")
    return _judge(options, played)


async def _play_all(options: Options, tell: Tell) -> _Played:
    shown = exhibits(options.repository)
    command = Command(
        repository=options.repository,
        journal=options.out / JOURNAL_FILE,
        log=options.out / LOG_FILE,
        options=options.server_options,
    )
    tell("starting the server; models that are new to this machine are measured first, a second or two each")
    async with running(command) as server, HttpClient(server.host, server.port, CONNECTIONS) as client:
        tell(f"{server.models} models are on offer; asking each one alone")
        plan = await look_at(client, shown)
        if plan.wrong:
            raise DemoError(f"answers differ from what the models should say: {', '.join(plan.wrong)}")
        tell(f"all {len(plan.exhibits)} answered as they should; finding out what this machine sustains")
        plan = await calibrated(client, server, plan)
        tell(f"1x is {plan.rate_per_s:.0f} requests/s of this mix: {describe(plan.rates)}")
        return await _phases(options, server, client, plan, tell)


async def _phases(options: Options, server: Server, client: HttpClient, plan: Plan, tell: Tell) -> _Played:
    clock_offset_ns = (await status(client)).clock_offset_ns
    requests = encoded(server, plan.exhibits)
    sender = Sender(HttpWay(server.host, server.port, lambda arrival: requests[arrival.model]), lines=CONNECTIONS)
    acts: list[Act] = []
    killing: asyncio.Task[Kill] | None = None
    try:
        for number, load in enumerate(LOADS):
            tell(f"{load:g}x: {plan.rate_per_s * load:.0f} requests/s for {options.seconds:g} s")
            if load == KILL_LOAD:
                killing = asyncio.create_task(kill_one(client, options.seconds / 2))
            acts.append(await play(sender, plan, load, options.seconds, number))
        assert killing is not None, "one of the loads is that of the kill"
        kill = await killing
    finally:
        await sender.close()
        if killing is not None:
            killing.cancel()
    return _Played(
        models=server.models,
        acts=tuple(acts),
        kill=kill,
        memory_bytes=server.memory_bytes(),
        clock_offset_ns=clock_offset_ns,
    )


def _judge(options: Options, played: _Played) -> Shown:
    phases = tuple(phase_report(act) for act in played.acts)
    report = Report(
        models=played.models,
        executors_killed=1,
        memory_mb=round(played.memory_bytes / 1e6, 1),
        phases=phases,
    )
    timeline = picture.read(options.out / JOURNAL_FILE)
    kill = played.kill
    away_ms = picture.away_ms(timeline, kill.executor, kill.killed_ns + played.clock_offset_ns)
    said = verdict(report, kill, away_ms)
    figure, trace = options.out / FIGURE_FILE, options.out / TRACE_FILE
    shown = picture.scenes(played.acts, phases, played.clock_offset_ns)
    mark = picture.kill_mark(kill, away_ms, played.clock_offset_ns)
    picture.write(timeline, shown, mark, figure, trace, said)
    return Shown(
        report=report,
        acts=played.acts,
        verdict=said,
        figure=figure,
        trace=trace,
        client_us=client_cost_us(played.acts),
    )


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """Cancel the running task on SIGTERM and SIGHUP, as asyncio itself does on Ctrl-C. Raises DemoError then."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None, "runs in a task"
    came: list[str] = []

    def stop(name: str) -> None:
        came.append(name)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number.name)
    try:
        yield
    except asyncio.CancelledError as error:
        if not came:
            raise
        task.uncancel()
        raise DemoError(f"ended early by {came[0]}; the server that it had started is stopped too") from error
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
