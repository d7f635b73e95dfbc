"""The verbs that look at what a server does or has done: `replay`, `explain`, `top`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slotwise import config as configs
from slotwise import top as tops
from slotwise.app import controller_of
from slotwise.cli.common import FAILED, WRONG, Json
from slotwise.engine.journal import read_header, replay
from slotwise.explain import words
from slotwise.explain.journal import explanations
from slotwise.terminal import (
    RUN_FAILED,
    output,
    print_table,
    told_errors,
    write_json,
)

commands = typer.Typer()


@commands.command("replay", short_help="Hold a journal against a fresh controller.")
def replay_journal(journal: Annotated[Path, typer.Argument(help="Journal of a live or a simulated run.")]) -> None:
    """Feed a journal to a fresh controller, and say whether it decides the same again."""
    with told_errors(*WRONG, failed=FAILED), journal.open("rb") as lines:
        header = read_header(lines.readline())
        replayed = replay(lines, controller_of(header))
    if replayed.torn_line is not None:
        print(f"line {replayed.torn_line}, the last, is torn and was left out: the server was killed while it wrote")
    difference = replayed.difference
    if difference is None:
        print(f"{replayed.turns} turns, all decided the same again")
        return
    print(f"line {difference.line} differs after {replayed.turns} equal turns")
    print(f"recorded: {difference.recorded}")
    print(f"replayed: {difference.replayed}")
    raise typer.Exit(RUN_FAILED)


@commands.command(short_help="Tell why a request ended as it did.")
def explain(
    journal: Annotated[Path, typer.Option("--journal", help="Journal of a live or a simulated run.")],
    request: Annotated[int | None, typer.Argument(help="Its number, as `slotwise_request` tells it.")] = None,
    worst: Annotated[int | None, typer.Option(min=1, help="List those that missed by most, so many.")] = None,
    json: Json = None,
) -> None:
    """Tell what a request met, which batches it was in, how it ended, and why."""
    with told_errors(*WRONG, failed=FAILED):
        if (request is None) == (worst is None):
            raise configs.ConfigError("name the number of one request, or ask for --worst 10")
        told = explanations(journal, request=request, worst=worst or 0)
    if request is None:
        rows = [words.worst_row(one) for one in told]
        print_table(f"{journal}: those that missed their deadlines by most", words.WORST_COLUMNS, rows)
    else:
        _print_story(told[0])
    write_json(json, told if request is None else told[0])


def _print_story(told: words.Explanation) -> None:
    print(words.headline(told))
    if told.steps:
        print_table("its steps: ms after it arrived", words.STEP_COLUMNS, words.step_rows(told))
    print_table("the executors, as it arrived", words.EXECUTOR_COLUMNS, words.executor_rows(told))
    if told.batches:
        title = "its batches: times are ms after it arrived"
        print_table(title, words.BATCH_COLUMNS, words.batch_rows(told))
    if told.loads:
        print_table("loads of its model: ms after it arrived", words.LOAD_COLUMNS, words.load_rows(told))


@commands.command(short_help="Watch a running server.")
def top(
    url: Annotated[str, typer.Argument(help="Where the server is.")] = "http://127.0.0.1:8000",
    once: Annotated[bool, typer.Option("--once", help="Print one view, since the server's start, and end.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    token: Annotated[str, typer.Option(envvar="SLOTWISE_TOKEN", help="Token, where the server wants one.")] = "",
) -> None:
    """Watch a running server: goodput, what is turned away and why, each model, each executor. Ctrl-C ends it."""
    with told_errors(tops.BadUrl, failed=FAILED):
        watch = tops.Watch(url, token)
        if once:
            tops.show_once(watch, output)
        else:
            tops.show(watch, output, every)
