"""The command line: every verb, a file for each kind, and its options. The work is done elsewhere.

Results go to standard output, everything else to standard error. An error is one line that says what to do; exit
code 2 means wrong input, 1 that the command ran and its answer is no.
"""

from __future__ import annotations

from typing import Annotated

import typer

from slotwise import __version__
from slotwise.cli import experiments, laboratory, load, looking, models, serving, showing, workloads

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Serve many models on few machines, and answer on time.",
)
for part in (serving, models, load, laboratory, showing, looking):
    app.add_typer(part.commands)
app.add_typer(models.zoo, name="zoo")
app.add_typer(experiments.experiment, name="experiment")
app.add_typer(workloads.commands, name="workload")


def main() -> None:
    """Run the command; the entry point of `slotwise`."""
    app()


def _say_version(is_asked: bool) -> None:
    if is_asked:
        print(f"slotwise {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """Serve many models on few machines, and answer on time."""
