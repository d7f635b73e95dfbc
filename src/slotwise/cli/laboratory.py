"""The verb that runs a simulation: `simulate`."""

from __future__ import annotations

import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Annotated

import typer

from slotwise.cli.common import FAILED, POLICIES, WRONG, JournalFile, Json, LogFolder
from slotwise.facts.units import MS
from slotwise.simulation import figures
from slotwise.simulation.profiles import MB, SOURCES, shipped_profiles
from slotwise.simulation.reading import read_scenario
from slotwise.simulation.report import ExecutorReport, ModelReport, Report
from slotwise.simulation.running import run
from slotwise.simulation.scenario import changed
from slotwise.terminal import output, print_table, progress_bar, say, told_errors, writable, write_json

EXECUTORS_SHOWN_MAX = 64
"""Of more there is no table; the report has them all."""

commands = typer.Typer()


def _list_profiles(is_asked: bool) -> None:
    if not is_asked:
        return
    rows = []
    for name, row in shipped_profiles().items():
        profile = row.profile
        times = "  ".join(f"{n}: {ns / MS:g}" for n, ns in zip(profile.rows, profile.run_ns, strict=True))
        size, load = f"{profile.memory_bytes / MB:g}", f"{profile.load_ns / MS:g}"
        rows.append((name, row.source, size, load, times))
    print_table("profiles that can be named", ("name", "source", "MB", "load ms", "rows: ms of a run"), rows)
    for source, about in SOURCES.items():
        output.print(f"{source}: {about}", highlight=False)
    raise typer.Exit


@commands.command(short_help="Run the controller in virtual time.")
def simulate(
    spec: Annotated[Path, typer.Argument(help="TOML file: models with profiles and rates, fleet, faults, seconds.")],
    policy: Annotated[str | None, typer.Option(help=f"{POLICIES} [the file's]")] = None,
    scale: Annotated[float, typer.Option(help="Multiplies every rate.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same run, to the byte. [the file's]")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.001, help="How long requests come. [the file's]")] = None,
    checks: Annotated[bool, typer.Option(help="Hold every turn against the rules, which takes time.")] = True,
    journal: JournalFile = None,
    logs: LogFolder = None,
    figure: Annotated[
        Path | None, typer.Option(callback=writable, help="Draw what happened over time into this SVG file.")
    ] = None,
    timeline: Annotated[
        Path | None, typer.Option(callback=writable, help="Draw every batch into this PNG file; for short runs.")
    ] = None,
    profiles: Annotated[
        bool, typer.Option("--profiles", callback=_list_profiles, is_eager=True, help="List the shipped profiles.")
    ] = False,
    json: Json = None,
) -> None:
    """Run the product's own controller over a simulated fleet, in virtual time."""
    del profiles  # its callback has listed them, and ended the command
    with told_errors(*WRONG, failed=FAILED):
        figures.check_figure(figure, figures.CURVES_ENDING)
        figures.check_figure(timeline, figures.PICTURE_ENDING)
        scenario = changed(read_scenario(spec), policy=policy, seed=seed, scale=scale, seconds=seconds)
        begun_s = time.monotonic()
        with _journal(journal, is_needed=timeline is not None) as file:
            with progress_bar("simulating") as tell:
                report = run(
                    scenario,
                    journal=file,
                    logs=logs,
                    is_checked=checks,
                    progress=lambda done_s, total_s: tell("seconds", round(done_s), round(total_s)),
                )
            say(f"{report.total.offered} requests were simulated in {time.monotonic() - begun_s:.1f} s")
            if timeline is not None and file is not None:
                file.seek(0)
                figures.draw_timeline(file, scenario, report, timeline)
        if figure is not None:
            figures.draw_course(report, figure)
    _print_report(report, scale)
    write_json(json, report)


def _journal(path: Path | None, *, is_needed: bool) -> IO[bytes] | nullcontext[None]:
    """The journal where it is asked for; one for the moment, where it is only read again."""
    if path is not None:
        return path.open("w+b")
    return tempfile.TemporaryFile() if is_needed else nullcontext()


def _print_report(report: Report, scale: float) -> None:
    title = (
        f"simulated: {report.policy}, rates x{scale:g}, seed {report.seed}:"
        f" {report.goodput_per_s:.1f} answers a second in time"
    )
    columns = ("model", "offered", "in time", "late", "refused", "dropped", "failed", "p50 ms", "p99 ms")
    print_table(title, columns, [_model_row(part) for part in (*report.models, report.total)])
    if len(report.executors) <= EXECUTORS_SHOWN_MAX:
        titles = ("executor", "busy", "batches", "rows of a batch", "loads")
        print_table("executors", titles, [_executor_row(part) for part in report.executors])
    if report.unanswered:
        say(f"{report.unanswered} requests still waited when the run was given up")


def _model_row(part: ModelReport) -> tuple[str, ...]:
    counts = (part.outcomes[name] for name in ("late", "refused", "dropped", "failed"))
    return (
        part.model,
        str(part.offered),
        str(part.in_time),
        *map(str, counts),
        f"{part.latency_ms_p50:.2f}",
        f"{part.latency_ms_p99:.2f}",
    )


def _executor_row(part: ExecutorReport) -> tuple[str, ...]:
    return (part.executor, f"{part.busy:.1%}", str(part.batches), f"{part.rows_mean:.2f}", str(part.loads))
