"""The verb that says how many devices are needed: `capacity`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from slotwise.cli.common import FAILED, POLICIES, WRONG, Json
from slotwise.simulation import figures
from slotwise.simulation.capacity import CapacityReport, Trial, find_capacity, marks, wanted
from slotwise.simulation.reading import read_spec
from slotwise.terminal import RUN_FAILED, print_table, progress_bar, say, told_errors, writable, write_json

commands = typer.Typer()
COLUMNS = (
    "kind",
    "devices",
    "in time",
    "goodput/s",
    "p99 ms",
    "busy",
    "price/h",
    "price of a million in time",
    "",
)


@commands.command(short_help="Say how many devices a load needs, and what they cost.")
def capacity(
    spec: Annotated[Path, typer.Argument(help="TOML file of a simulation, with [[kinds]] of devices and prices.")],
    target: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of requests to be answered in time. [the file's]")
    ] = None,
    devices_max: Annotated[int | None, typer.Option(min=1, max=10_000, help="Try no more. [the file's]")] = None,
    policy: Annotated[str | None, typer.Option(help=f"{POLICIES} [the file's]")] = None,
    scale: Annotated[float, typer.Option(help="Multiplies every rate.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same requests for every count. [the file's]")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.001, help="How long requests come. [the file's]")] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Counts at a time; 0 is one for each core.")] = 0,
    figure: Annotated[
        Path | None, typer.Option(callback=writable, help="Draw attainment and price by count into this SVG file.")
    ] = None,
    json: Json = None,
) -> None:
    """Simulate a load on more and more devices of each kind, until the least count that is enough is known."""
    with told_errors(*WRONG, failed=FAILED), progress_bar("trying") as tell:
        figures.check_figure(figure, figures.CURVES_ENDING)
        asked = wanted(
            read_spec(spec),
            target=target,
            devices_max=devices_max,
            policy=policy,
            seed=seed,
            scale=scale,
            seconds=seconds,
        )
        report = find_capacity(asked, jobs=jobs or os.cpu_count() or 1, progress=tell)
        if figure is not None:
            figures.draw_capacity(report, figure)
    title = f"{report.target:.2%} in time, simulated: {report.policy}, seed {report.seed}, {report.seconds:g} s"
    rows = [_row(trial, mark) for trial, mark in zip(report.trials, marks(report), strict=True)]
    print_table(title, COLUMNS, rows)
    write_json(json, report)
    _say_answer(report)


def _say_answer(report: CapacityReport) -> None:
    for kind, count in report.least.items():
        if count is None:
            most = next(trial for trial in reversed(report.trials) if trial.kind == kind)
            say(
                f"{kind}: {report.devices_max} are not enough, with {most.attainment:.2%} in time; allow more with"
                " --devices-max, or look whether the SLO can be met at all"
            )
    if report.cheapest is None:
        raise typer.Exit(RUN_FAILED)
    best = report.cheapest
    price = f", {best.price_per_h:g} an hour" if best.price_per_h else ""
    print(f"{best.devices} x {best.kind}{price}: {best.attainment:.2%} in time")


def _row(trial: Trial, mark: str) -> tuple[str, ...]:
    return (
        trial.kind,
        str(trial.devices),
        f"{trial.attainment:.2%}",
        f"{trial.goodput_per_s:.1f}",
        f"{trial.latency_ms_p99:.2f}",
        f"{trial.busy:.0%}",
        f"{trial.price_per_h:g}",
        "-" if trial.price_per_million is None else f"{trial.price_per_million:.3f}",
        mark,
    )
