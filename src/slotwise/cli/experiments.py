"""The verbs of `slotwise experiment`: `list`, `run` and `report`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from slotwise.cli.common import Json
from slotwise.laboratory import finding
from slotwise.laboratory.report import PAGE, expected, page, shown, verdict_of
from slotwise.laboratory.running import Options, run_experiment
from slotwise.laboratory.values import LaboratoryError
from slotwise.laboratory.verdict import Verdict, read_verdict
from slotwise.terminal import RUN_FAILED, print_table, progress_bar, say, told_errors, write_json

experiment = typer.Typer(no_args_is_help=True, help="Hold claims of papers against this system.")

Folder = Annotated[Path, typer.Option(help="Folder of the experiments, one folder each.")]


@experiment.command(name="list", short_help="List the experiments, and how their claims stand.")
def list_(folder: Folder = finding.FOLDER) -> None:
    """List the experiments, and how the claims of each stood when it last ran in full."""
    with told_errors(LaboratoryError, OSError):
        found = finding.find_all(folder)
        rows = [(one.experiment.name, one.experiment.title, _standing(read_verdict(one))) for one in found]
    print_table(f"experiments in {folder}", ("name", "what", "claims that hold"), rows)


def _standing(verdict: Verdict | None) -> str:
    return "never run" if verdict is None else f"{verdict.held} of {len(verdict.claims)}"


@experiment.command(short_help="Run an experiment and judge its claims.")
def run(
    name: Annotated[str, typer.Argument(help="Its name, as `slotwise experiment list` has it.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="A first look: fewer cases, shorter ones, in a minute.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=0, help="Cases at a time; 0 is one for each core.")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run all cases, also those that have been run before.")
    ] = False,
    folder: Folder = finding.FOLDER,
    json: Json = None,
) -> None:
    """Run the cases that were not run yet, or whose code has changed since, and judge the claims; 1 where one fails."""
    options = Options(is_quick=quick, jobs=jobs or len(os.sched_getaffinity(0)), is_fresh=fresh)
    with told_errors(LaboratoryError, OSError), progress_bar("running") as tell:

        def told(case: str, done: int, total: int) -> None:
            tell(case, done, total)
            say(f"{done}/{total} {case}")

        found = finding.find(folder, name)
        verdict = run_experiment(found, options, told)
    columns = ("claim", "policy", "found", "expected", "verdict")
    rows = [(c.id, c.policy, shown(c.value), expected(c), verdict_of(c)) for c in verdict.claims]
    print_table(f"{name}: {verdict.title}", columns, rows)
    print(f"{verdict.held} of {len(verdict.claims)} claims hold; rows and figure are in {found.results(quick)}")
    write_json(json, verdict)
    if verdict.held < len(verdict.claims):
        raise typer.Exit(RUN_FAILED)


@experiment.command(short_help="Write all verdicts into one page.")
def report(
    folder: Folder = finding.FOLDER,
    out: Annotated[Path, typer.Option(help="The page to write, in Markdown.")] = PAGE,
) -> None:
    """Write the verdicts of all experiments, as they last ran in full, into one page. Nothing is run."""
    with told_errors(LaboratoryError, OSError):
        out.write_text(page(finding.find_all(folder), out.parent), encoding="utf-8")
    print(f"the report: {out}")
