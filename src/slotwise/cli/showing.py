"""The verb that shows it all: `demo`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from slotwise.cli.common import FAILED, POLICIES, WRONG, Json
from slotwise.demo import show as shows
from slotwise.edges.zoo.build import build
from slotwise.terminal import (
    RUN_FAILED,
    print_table,
    progress_bar,
    say,
    told_errors,
    write_json,
)

commands = typer.Typer()


@commands.command(short_help="Serve, load, overload, wound, and draw it.")
def demo(
    zoo: Annotated[Path, typer.Option(help="Folder of the models; it is built first if need be.")] = Path(".zoo"),
    out: Annotated[Path, typer.Option(help="Folder for the picture, the trace and the journal.")] = Path("build/demo"),
    seconds: Annotated[float, typer.Option(help="How long each of the three phases lasts.")] = shows.PHASE_S,
    cores: Annotated[str | None, typer.Option(help="Cores for executors, one each, as 0,1. [all]")] = None,
    policy: Annotated[str | None, typer.Option(help=f"{POLICIES} [slotwise]")] = None,
    json: Json = None,
) -> None:
    """Show what Slotwise does: serve real models, load and overload them, kill an executor, and draw what happened."""
    given = {"--cores": cores, "--policy": policy}
    options = tuple(word for name, text in given.items() if text is not None for word in (name, text))
    with told_errors(*WRONG, shows.DemoError, failed=FAILED):
        with progress_bar("building") as tell:
            build(zoo, progress=tell)
        wanted = shows.Options(repository=zoo, out=out, seconds=seconds, server_options=options)
        shown = asyncio.run(shows.show(wanted, say))
    report = shown.report
    say(f"the client took {shown.client_us:.0f} us of processor time for each request")
    print_table("What the client saw", shows.COLUMNS, shows.rows(shown.acts, report.phases))
    print(f"{report.memory_mb:.0f} MB for {report.models} models, all processes of the server together")
    print(f"the picture: {shown.figure}\nthe trace, for ui.perfetto.dev: {shown.trace}")
    print(shown.verdict)
    write_json(json, report)
    if report.unanswered:
        raise typer.Exit(RUN_FAILED)
