"""The verbs of the laboratory: `simulate`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from slotwise import simulation
from slotwise.cli.common import FAILED, POLICIES, WRONG, JournalFile, Json, LogFolder
from slotwise.terminal import (
    print_table,
    told_errors,
    write_json,
)

commands = typer.Typer()


@commands.command(short_help="Run the controller in virtual time.")
def simulate(
    spec: Annotated[Path, typer.Argument(help="TOML file: models with profiles and rates, fleet, seconds.")],
    policy: Annotated[str, typer.Option(help=POLICIES)] = "slotwise",
    scale: Annotated[float, typer.Option(help="Multiplies every rate.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Same seed, same run, to the byte.")] = 1,
    journal: JournalFile = None,
    logs: LogFolder = None,
    json: Json = None,
) -> None:
    """Run the product's own controller over a simulated fleet, in virtual time."""
    with told_errors(*WRONG, failed=FAILED):
        read = simulation.read_spec(spec)
        with journal.open("wb") if journal else nullcontext() as file:
            report = simulation.run(read, policy=policy, scale=scale, seed=seed, journal=file, logs=logs)
    columns = ("model", "offered", "in time", "late", "refused", "dropped", "failed", "p50 ms", "p99 ms")
    rows = [_simulation_row(part) for part in (*report.models, report.total)]
    title = f"simulated: {policy}, rates x{scale:g}, seed {seed}: {report.goodput_per_s:.1f} answers a second in time"
    print_table(title, columns, rows)
    write_json(json, report)


def _simulation_row(part: simulation.ModelReport) -> tuple[str, ...]:
    counts = (part.outcomes[name] for name in ("late", "refused", "dropped", "failed"))
    return (
        part.model,
        str(part.offered),
        str(part.in_time),
        *map(str, counts),
        f"{part.latency_ms_p50:.2f}",
        f"{part.latency_ms_p99:.2f}",
    )
