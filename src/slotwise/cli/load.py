"""The verb that loads a live server: `load`."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from slotwise import config as configs
from slotwise.cli.common import FAILED, WRONG, Json, parameter_of
from slotwise.client import AddressError, BadRequest
from slotwise.facts.units import MS
from slotwise.load import report as reports
from slotwise.load.inputs import Shape
from slotwise.load.loop import exact_loop
from slotwise.load.plan import SECONDS, Closed, Formed, Steady, Wanted
from slotwise.load.run import ANSWER_S_MAX, MARGIN_NS, Look, Prepared, Settings, Watcher, play
from slotwise.load.sender import LINES
from slotwise.load.ways import PAGES_URL, Server
from slotwise.terminal import RUN_FAILED, console, print_table, say, stop_when_told, told_errors, writable, write_json
from slotwise.workload.form import WorkloadPart
from slotwise.workload.named import NAMED
from slotwise.workload.values import WorkloadError

commands = typer.Typer()
RECORD_SUFFIX, FORM_SUFFIX = ".csv", ".toml"
MODELS_TOLD = 5
"""Shapes of so many models are told."""


@commands.command(short_help="Load a live server.")
def load(
    url: Annotated[str, typer.Argument(help="http://, https://, grpc://, grpcs:// or unix:///path of its socket.")],
    model: Annotated[list[str] | None, typer.Option(help="Model, or a pattern; may be given again. [all]")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second in all, open loop.")] = None,
    even: Annotated[bool, typer.Option("--even", help="With --rate: equal gaps, not Poisson arrivals.")] = False,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Clients that ask in a closed loop.")] = None,
    heed: Annotated[bool, typer.Option("--heed", help="Clients come again when a refusal says, not at once.")] = False,
    requests: Annotated[int | None, typer.Option(min=1, help="With --concurrency: end after so many.")] = None,
    workload: Annotated[str | None, typer.Option(help="Name of a workload, or a .toml or .csv file.")] = None,
    parameters: Annotated[list[str] | None, typer.Option("--set", help="Parameter of it, as name=value.")] = None,
    slo_ms: Annotated[float | None, typer.Option(help="Each request's deadline. [the model's, if told]")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.001, help=f"How long. [{SECONDS:g}; a workload's own]")] = None,
    connections: Annotated[
        int | None, typer.Option(min=1, help=f"Requests under way at once. [{LINES}, or each client's]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same requests.")] = 1,
    shape: Annotated[list[str] | None, typer.Option(help="Shape of an input, as INPUT=1,128; it may vary.")] = None,
    inputs: Annotated[Path | None, typer.Option(help="File of samples to ask with: .npz or .json. [made]")] = None,
    margin_ms: Annotated[float, typer.Option(min=0, help="The server is told so much less.")] = MARGIN_NS / MS,
    answer_s: Annotated[float, typer.Option(min=0.001, help="Without a reply by then: unanswered.")] = ANSWER_S_MAX,
    call_deadlines: Annotated[
        bool, typer.Option("--call-deadlines", help="gRPC: the deadline is the call's as well.")
    ] = False,
    pages: Annotated[str, typer.Option(help=f"Where models are looked up. [the URL; {PAGES_URL} for a socket]")] = "",
    token: Annotated[str, typer.Option(envvar="SLOTWISE_TOKEN", help="Token, where the server wants one.")] = "",
    ca_file: Annotated[str, typer.Option(help="Certificates that sign the server's. [the system's]")] = "",
    record: Annotated[
        Path | None, typer.Option(callback=writable, help="Write every request to this file, to be replayed.")
    ] = None,
    compare: Annotated[Path | None, typer.Option(help="An earlier --json report to set beside this one.")] = None,
    summary_s: Annotated[float, typer.Option(min=0, help="Tell in a line how it goes, so often. [never]")] = 0.0,
    json: Json = None,
) -> None:
    """Ask a live server what a workload asks, open loop or closed, and tell what came of it."""
    with told_errors(*WRONG, WorkloadError, AddressError, BadRequest, ValueError, failed=(*FAILED, Ended)):
        if shape and inputs is not None:
            raise configs.ConfigError("--shape is for inputs that are made; a file of --inputs has shapes of its own")
        before = None if compare is None else _read_report(compare)
        wanted = _wanted(rate, even, concurrency, heed, requests, workload, parameters or [])
        settings = Settings(
            server=Server(url=url, pages_url=pages, token=token, ca_file=ca_file, has_call_deadlines=call_deadlines),
            models=tuple(model or ()),
            slo_ns=None if slo_ms is None else int(slo_ms * MS),
            seconds=seconds,
            connections=connections,
            seed=seed,
            shapes=dict(map(_shape, shape or ())),
            inputs=inputs,
            margin_ns=int(margin_ms * MS),
            answer_s_max=answer_s,
        )
        with asyncio.Runner(loop_factory=exact_loop) as runner:
            report = runner.run(_played(settings, wanted, record, summary_s))
    _print(report, before)
    write_json(json, report)
    if report.total.unanswered:
        raise typer.Exit(RUN_FAILED)


async def _played(settings: Settings, wanted: Wanted, record: Path | None, summary_s: float) -> reports.LoadReport:
    stopped = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None, "runs in a task"
    stop_when_told(stopped, at_eof=False, hurry=lambda: _cancel(task))
    with _watcher(summary_s) as watcher, record.open("w") if record else nullcontext() as file:
        try:
            return await play(settings, wanted, watcher, stopped, file)
        except asyncio.CancelledError as error:
            raise Ended("ended before there was a report") from error


class Ended(Exception):
    """Told twice to stop."""


def _cancel(task: asyncio.Task[Any]) -> None:
    """End at once, without a report."""
    task.cancel()


def _wanted(
    rate: float | None,
    even: bool,
    concurrency: int | None,
    heed: bool,
    requests: int | None,
    workload: str | None,
    parameters: Sequence[str],
) -> Wanted:
    """What the options ask for. Raises ConfigError or WorkloadError."""
    if [rate, concurrency, workload].count(None) != 2:
        raise configs.ConfigError("say what to ask: one of --rate 100, --concurrency 16, --workload NAME or FILE")
    if workload is not None:
        return _formed(workload, dict(map(parameter_of, parameters)))
    if parameters:
        raise configs.ConfigError("--set is for the parameters of a --workload")
    if concurrency is not None:
        return Closed(concurrency=concurrency, requests_max=requests, heeds_retry_after=heed)
    assert rate is not None, "one of the three is given"
    if requests is not None:
        raise configs.ConfigError("--requests is for --concurrency; a --rate ends after --seconds")
    return Steady(rate_per_s=rate, is_even=even)


def _formed(name: str, parameters: dict[str, str]) -> Formed:
    """A workload by its name, or from a file; parameters that are given go before those of the file.

    A file is a workload's own, or has it in a table `workload`, as that of a simulation does.
    """
    path = Path(name)
    if path.suffix == RECORD_SUFFIX:
        return Formed(form=WorkloadPart(recorded=path.name), lines=_reader(path.parent))
    if path.suffix != FORM_SUFFIX:
        if name not in NAMED and path.exists():
            raise configs.ConfigError(
                f"{name} is neither a {FORM_SUFFIX} file with a workload nor a {RECORD_SUFFIX} record"
            )
        return Formed(form=WorkloadPart(name=name, parameters=dict(parameters)), lines=_reader(path.parent))
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        form = msgspec.convert(document.get("workload", document), WorkloadPart)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise configs.ConfigError(f"{path}: {error}") from error
    return Formed(
        form=msgspec.structs.replace(form, parameters={**form.parameters, **parameters}), lines=_reader(path.parent)
    )


def _reader(folder: Path) -> Callable[[str], Iterable[str]]:
    """Reads the files that a form names, which lie beside it."""

    def lines(name: str) -> Iterator[str]:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            yield from file

    return lines


def _shape(text: str) -> tuple[str, Shape]:
    name, _, told = text.rpartition("=")
    sizes, _, datatype = told.partition(":")
    try:
        given = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        given = ()
    if not name or not given or min(given) < 0:
        forms = "INPUT=1,128, MODEL:INPUT=1,128 or INPUT=1,128:FP32"
        raise configs.ConfigError(f"--shape {text} is no shape; write {forms}")
    return name, Shape(sizes=given, datatype=datatype)


def _read_report(path: Path) -> reports.LoadReport:
    try:
        return msgspec.json.decode(path.read_bytes(), type=reports.LoadReport)
    except msgspec.MsgspecError as error:
        raise configs.ConfigError(f"{path} is no report of a load: {error}") from error


@contextmanager
def _watcher(summary_s: float) -> Iterator[Watcher]:
    """Tells what will be played; then a bar where somebody watches, and lines where they are asked for."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("looking", total=None)
        told_s = 0.0

        def prepared(what: Prepared) -> None:
            for line in _prepared_lines(what):
                say(line)
            progress.update(bar, total=what.seconds)

        def look(how: Look) -> None:
            nonlocal told_s
            line = _look_line(how)
            progress.update(bar, completed=how.seconds, description=line)
            if summary_s and how.seconds - told_s >= summary_s:
                told_s = how.seconds
                say(f"{how.seconds:.0f} s: {line}")

        yield Watcher(prepared=prepared, look=look)


def _prepared_lines(what: Prepared) -> Iterator[str]:
    yield f"{what.about}; over {what.connections} connections"
    for taken in what.taken[:MODELS_TOLD]:
        yield f"{taken.model}: {taken.input} is {list(taken.taken)} of {list(taken.told)}; --shape says otherwise"
    for given in what.given[:MODELS_TOLD]:
        yield f"{given.model}: {given.samples} samples of {given.bytes_min} to {given.bytes_max} bytes, in turn"
    if len(what.taken) > MODELS_TOLD:
        yield f"and of {len(what.taken) - MODELS_TOLD} more inputs, 1 where they vary"


def _look_line(how: Look) -> str:
    line = f"{how.ended} ended, {how.in_time} in time, {how.under_way} under way"
    waiting = f", {how.waiting} wait for a connection" if how.waiting else ""
    unanswered = f", {how.unanswered} unanswered" if how.unanswered else ""
    return line + waiting + unanswered + (f"; {how.trouble}" if how.trouble else "")


def _print(report: reports.LoadReport, before: reports.LoadReport | None) -> None:
    print(reports.headline(report))
    print_table("how requests ended", reports.COUNTS, reports.count_rows(report))
    print_table("times, from when a request was due", reports.TIMES, reports.time_rows(report))
    print(reports.client_line(report))
    if before is not None:
        print_table("beside the earlier run", reports.COMPARED, reports.compared(before, report))
        for line in reports.differences(before, report):
            say(line)
    for line in reports.remarks(report):
        say(line)
