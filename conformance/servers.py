"""Both servers over the same models, each ready when it says so."""

from __future__ import annotations

import contextlib
import http.client
import os
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import msgspec
from harness.server import serve
from peers.environment import FOLDER, NotHere, prepare
from peers.peer import started
from peers.ports import free_port
from peers.triton import Triton

from conformance.models import put_ours, put_triton
from slotwise import __version__

CLIENTS = FOLDER.parent / "clients"
"""Where environments are that are no peers'."""
START_S_MAX = 60.0
POLL_S = 0.1
OK = 200


class Server(msgspec.Struct, frozen=True):
    """Where a server is."""

    name: str
    version: str
    http_port: int
    grpc_port: int


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[Server]:
    """Slotwise with everything on that clients may use. The collector that spans go to is not there, and not needed."""
    put_ours(folder / "models")
    grpc_port = free_port()
    settings: dict[str, object] = {
        "grpc": True,
        "grpc_port": grpc_port,
        "door": {"shared_memory": True},
        "logs": {"folder": str(folder / "logs")},
        "traces": {"endpoint": f"http://127.0.0.1:{grpc_port + 1}/v1/traces", "answer_s_max": 0.1},
    }
    tracing = prepare(CLIENTS, "otel", ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"))
    paths = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(tracing.packages)]))
    with serve(folder / "models", folder, settings, {"PYTHONPATH": paths}) as running:
        server = Server("Slotwise", __version__, running.port, grpc_port)
        _wait(server)
        yield server


@contextlib.contextmanager
def triton(folder: Path) -> Iterator[Server]:
    """Triton's real binary. Raises NotHere."""
    peer = Triton()
    version = peer.install(FOLDER)
    put_triton(folder / "models")
    port = free_port()
    # Models are named one by one, so that the one that cannot be loaded does not end the start.
    options = (
        "--model-control-mode",
        "explicit",
        "--load-model",
        "*",
        "--exit-on-error",
        "false",
        "--strict-readiness",
    )
    launch = peer.launch_over(folder / "models", port, {}, (*options, "false"))
    with started(launch, folder) as running:
        server = Server("Triton", version, port, port + 1)
        try:
            _wait(server)
        except NotHere as error:
            raise NotHere(f"{error}; {running.told()}") from error
        yield server


def _wait(server: Server) -> None:
    """Until both doors are open. Raises NotHere."""
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        if _is_ready(server.http_port):
            break
        time.sleep(POLL_S)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(max(POLL_S, deadline - time.monotonic()))
        except grpc.FutureTimeoutError as error:
            raise NotHere(f"{server.name} was not ready within {START_S_MAX:g} s") from error


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=POLL_S * 10)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == OK
        except OSError:
            return False
