"""The verbs about workloads: `workload list`, `show`, `record` and `azure`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Annotated, TypeVar

import msgspec
import typer

from slotwise.cli.common import WRONG, Json, parameter_of
from slotwise.recording import arrivals_of
from slotwise.terminal import print_table, say, told_errors, writable, write_json
from slotwise.workload import azure as traces
from slotwise.workload.named import NAMED, Parameter, Want, help_of, kind_of, parameters_of, wants_of
from slotwise.workload.recorded import written
from slotwise.workload.synthetic import FUNCTIONS, stand_in
from slotwise.workload.values import WorkloadError

commands = typer.Typer(no_args_is_help=True, help="Workloads: those with names, records, and traces.")
T = TypeVar("T")


class Shown(msgspec.Struct, frozen=True):
    """A workload by its name, as it is reported."""

    name: str
    help: str
    models: tuple[Want, ...]
    parameters: tuple[Parameter, ...]


@commands.command("list", short_help="Name every workload.")
def list_workloads(json: Json = None) -> None:
    """Name every workload, with what it does."""
    shown = [_shown(name) for name in NAMED]
    width = max(map(len, NAMED))
    for one in shown:
        print(f"{one.name:{width}}  {one.help.partition('. ')[0].removesuffix('.')}")
    write_json(json, shown)


@commands.command(short_help="Tell what a workload does and takes.")
def show(
    name: Annotated[str, typer.Argument(help="Name of the workload.")],
    parameters: Annotated[list[str] | None, typer.Option("--set", help="Parameter of it, as name=value.")] = None,
    json: Json = None,
) -> None:
    """Tell what a workload does, the models that it wants, and its parameters with their defaults."""
    with told_errors(*WRONG, WorkloadError):
        shown = _shown(name, dict(map(parameter_of, parameters or [])))
    print(shown.help)
    wanted = ", ".join(f"{want.copies} of {want.model_type}" for want in shown.models)
    print(f"It wants {sum(want.copies for want in shown.models)} models: {wanted}.")
    print("Its parameters:")
    for one in shown.parameters:
        print(f"  {one.name}={one.default}: {one.help}; {one.allowed}")
    write_json(json, shown)


@commands.command(short_help="Make a record of a journal, to replay it.")
def record(
    journal: Annotated[Path, typer.Argument(help="Journal of a live or a simulated run.")],
    file: Annotated[Path, typer.Argument(callback=writable, help="CSV file to write: a request a line.")],
) -> None:
    """Write what the clients of a run asked to a file, which is a workload again."""
    with told_errors(*WRONG):
        with journal.open("rb") as lines:
            arrivals = arrivals_of(lines)
        _write(file, written(arrivals))
    say(f"{len(arrivals)} requests are in {file}")


@commands.command(short_help="Describe a day of the Azure trace, or make one up.")
def azure(
    file: Annotated[
        Path | None, typer.Argument(help="invocations_per_function_md.anon.dNN.csv. [a synthetic stand-in]")
    ] = None,
    durations: Annotated[Path | None, typer.Option(help="The day's function_durations_percentiles file.")] = None,
    memory: Annotated[Path | None, typer.Option(help="The day's app_memory_percentiles file.")] = None,
    functions: Annotated[int, typer.Option(min=1, max=1_000_000, help="Functions of the stand-in.")] = FUNCTIONS,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same stand-in.")] = 1,
    write: Annotated[
        Path | None, typer.Option(callback=writable, help="Write the calls to this file, in the trace's form.")
    ] = None,
    json: Json = None,
) -> None:
    """Describe a day of the Azure Functions trace of 2019: how much, how uneven, called by what, and how it beats."""
    with told_errors(*WRONG, WorkloadError):
        trace = stand_in(functions, seed) if file is None else _read(file, traces.read_calls)
        described = traces.describe(trace)
        ran = None if durations is None else _read(durations, traces.read_durations)
        held = None if memory is None else _read(memory, traces.read_memory)
        if write is not None:
            _write(write, traces.written_calls(trace))
    _print_trace(described)
    if ran:
        print(f"half of {len(ran)} functions ran for {median(one.average for one in ran):.0f} ms or less on average")
    if held:
        print(f"half of {len(held)} applications held {median(one.average for one in held):.0f} MB or less on average")
    write_json(json, described)


def _print_trace(described: traces.Description) -> None:
    print(f"{described.source}: {described.functions} functions of {described.apps} applications")
    print(
        f"{described.calls} calls: {described.rate_per_s:.0f} a second, {described.rate_max_per_s:.0f} in the busiest"
    )
    print(f"the busiest 19% of the applications make {described.busiest_share:.2%} of all calls")
    for spike in described.spikes:
        print(f"minutes that are a multiple of {spike.minutes} have {spike.factor:.3f} times the calls of others")
    rows = [(one.trigger.value, f"{one.functions:.1%}", f"{one.calls:.1%}") for one in described.triggers]
    print_table("what calls the functions", ("trigger", "of functions", "of calls"), rows)


def _shown(name: str, given: dict[str, str] | None = None) -> Shown:
    kind = kind_of(name)
    return Shown(name=name, help=help_of(kind), models=wants_of(name, given), parameters=parameters_of(kind))


def _read(path: Path, reader: Callable[[Iterable[str], str], T]) -> T:
    """A file's lines, read."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return reader(lines, str(path))
    except UnicodeDecodeError as error:
        raise WorkloadError(f"{path} is no text in UTF-8: {error.reason}") from error


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)
