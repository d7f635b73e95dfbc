"""What the commands share with people: errors in a line, progress, tables, and reports as JSON."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

PIPED_WIDTH = 140
"""Columns of a table that goes to a file or a pipe."""

console = Console(stderr=True)
"""Progress and errors go to standard error, results to standard output."""
output = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)

READ_BYTES = 4096
"""Of an input that is read for its end only."""
RUN_FAILED, WRONG_INPUT = 1, 2
"""Exit codes: the command ran and its answer is no; or it could not be run as asked."""


@contextmanager
def told_errors(*wrong: type[Exception], failed: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Tell an expected error in one line and end with the exit code: of wrong input, or of a run that `failed`."""
    try:
        yield
    except (*wrong, *failed) as error:
        say(f"slotwise: {_told(error)}")
        raise typer.Exit(RUN_FAILED if isinstance(error, failed) else WRONG_INPUT) from error


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def writable(path: Path | None) -> Path | None:
    """The callback of an option for a file to write: whether it can be is told before the work, not after it."""
    if path is None:
        return None
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}; make it, or name a file elsewhere")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise typer.BadParameter(f"{path} cannot be written: no permission; name a file elsewhere")
    return path


@contextmanager
def progress_bar(verb: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for work on models, one after the other; silent where nobody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(verb)

        def tell(name: str, done: int, total: int) -> None:
            progress.update(task, description=f"{verb} {name}", completed=done, total=total)

        yield tell


def call_at_eof(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Call once standard input ends; what comes before is thrown away. Raises OSError for an input that is a file."""
    descriptor = sys.stdin.fileno()

    def read() -> None:
        if not os.read(descriptor, READ_BYTES):
            loop.remove_reader(descriptor)
            call()

    try:
        loop.add_reader(descriptor, read)
    except PermissionError as error:
        raise OSError("standard input is a file, whose end says nothing; make it a pipe for --stop-at-eof") from error


def stop_when_told(stopped: asyncio.Event, at_eof: bool, hurry: Callable[[], None] | None = None) -> None:
    """Have SIGTERM and Ctrl-C set the event, and the end of standard input too if that is asked for.

    A signal that comes when the event is set already asks for hurry, where there is any.
    """
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopped.is_set() and hurry is not None:
            hurry()
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if at_eof:
        call_at_eof(loop, stopped.set)


async def until_stopped(stopped: asyncio.Event, summary_s: float, tell: Callable[[], str]) -> None:
    """Wait for the end, with a line now and then if that is asked for."""
    while not stopped.is_set():
        try:
            await asyncio.wait_for(stopped.wait(), summary_s or None)
        except TimeoutError:
            say(tell())


def say(text: str) -> None:
    """A line for the person at the terminal, apart from results."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A result as a table; all columns but the first are numbers."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    output.print(table)


def write_json(path: Path | None, report: object) -> None:
    """Write a report where it was asked for."""
    if path is not None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
