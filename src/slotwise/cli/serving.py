"""The verbs that serve: `serve`, `node`, and `token` for those who ask."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from slotwise import config as configs
from slotwise.app import LiveSystem
from slotwise.cli.common import FAILED, POLICIES, SUMMARY, WRONG, JournalFile, LogFolder, cores_of, nodes_of
from slotwise.edges.fleets.nodes.caller import NodeState
from slotwise.edges.oip.access import AccessError, Grant, new_token, written
from slotwise.edges.oip.head import MadeBy
from slotwise.engine.ports import ModelError, ModelState
from slotwise.executors import NodeSystem
from slotwise.terminal import (
    progress_bar,
    say,
    stop_when_told,
    told_errors,
    until_stopped,
)

commands = typer.Typer()


@commands.command(short_help="Serve a repository of models.")
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
    generated_inputs: Annotated[
        bool | None, typer.Option(help="Let requests leave their inputs to be made of zeros, for trials of load.")
    ] = None,
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
        "cores": cores_of(cores),
        "nodes": nodes_of(token_file, node, nodes_only),
        "policy": policy,
        "memory_mib": memory_mib,
        "journal": str(journal) if journal else None,
        "logs": {"folder": str(logs)} if logs else None,
        "summary_s": summary_s,
        "watch_s": watch_s,
        "late_answers": late_answers,
        "door": {"generated_inputs": generated_inputs} if generated_inputs is not None else None,
        "tokens": str(tokens) if tokens else None,
        "tls": {name: str(path) for name, path in (("certificate", tls_certificate), ("key", tls_key)) if path} or None,
    }
    with told_errors(*WRONG, failed=FAILED):
        asyncio.run(_serve(configs.read(config, changes), stop_at_eof))


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
    if system.config.door.generated_inputs:
        modes = ", ".join(f'"{one.value}"' for one in MadeBy)
        say(f"generated inputs: requests may say who makes their inputs, by the parameter `slotwise_inputs`: {modes}")
    ready = sum(status.state is ModelState.READY for status in index)
    print(f"serving {ready} models on {system.url()}", flush=True)
    if system.grpc is not None:
        print(f"gRPC on {system.grpc.address()}", flush=True)
    if system.local is not None:
        print(f"local clients at unix://{Path(system.config.local_socket).absolute()}", flush=True)
    elif system.config.grpc is None:
        say("no gRPC: its libraries are not installed (pip install 'slotwise[grpc]')")


@commands.command(short_help="Lend this machine's executors to a server.")
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
        "cores": cores_of(cores),
        "memory_mib": memory_mib,
        "summary_s": summary_s,
        "nodes": nodes_of(token_file, None, only=False),
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


@commands.command(short_help="Make a token for a client.")
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
