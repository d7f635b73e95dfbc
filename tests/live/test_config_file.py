"""What stands in a server's configuration reaches the part that it is meant for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from slotwise.app import LiveSystem
from tests.certificates import self_signed, trusting
from tests.conftest import WaitUntil
from tests.live.systems import client_of, put_emulated, put_network, serving, tensor, until

pytestmark = pytest.mark.live

QUESTION = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


def url_of(system: LiveSystem, model: str, ending: str = "/infer") -> str:
    return f"{system.url()}/v2/models/{model}{ending}"


async def post(session: aiohttp.ClientSession, url: str) -> tuple[int, dict[str, object]]:
    async with session.post(url, json=QUESTION) as reply:
        return reply.status, await reply.json()


def test_a_limit_of_the_door_is_that_of_the_file(tmp_path: Path) -> None:
    put_emulated(tmp_path / "models", "model", run_ms=1, settings="slo_ms = 20000")

    async def live() -> int:
        async with (
            serving(tmp_path / "models", door={"body_bytes_max": 60}) as system,
            aiohttp.ClientSession() as session,
        ):
            return (await post(session, url_of(system, "model")))[0]

    assert asyncio.run(live()) == 413


@pytest.mark.parametrize("part", ["door", "controller"])
def test_requests_beyond_the_limit_of_either_part_are_refused(tmp_path: Path, part: str) -> None:
    put_emulated(tmp_path / "models", "slow", run_ms=500, settings="slo_ms = 20000")

    async def live() -> tuple[tuple[int, dict[str, object]], int]:
        async with (
            serving(tmp_path / "models", **{part: {"requests_max": 1}}) as system,
            aiohttp.ClientSession() as session,
        ):
            first = asyncio.create_task(post(session, url_of(system, "slow")))
            await until(lambda: any(executor.in_flight for executor in system.fleet.statistics().executors))
            return await post(session, url_of(system, "slow")), (await first)[0]

    (status, told), first = asyncio.run(live())
    assert (status, told["reason"], first) == (503, "queue_full", 200)
    assert "1 requests are under way" in str(told["error"])


def test_the_fleet_the_repository_and_the_defaults_are_those_of_the_file(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "small", run_ms=1)
    put_emulated(root, "Loud", run_ms=1)
    put_network(root, "network", settings="batch_max = 4096")
    tables = {
        "fleet": {"outputs_bytes": 4096},
        "models": {"name_pattern": "[a-z]+"},
        "defaults": {"slo_ms": 20_000, "batch_max": 3, "priority": 2, "weight": 7},
        "door": {"rows_max": 4096},
    }

    async def live() -> tuple[str, dict[str, object], str]:
        async with serving(root, **tables) as system, client_of(system) as client:
            index = {row["name"]: row.get("reason", "") for row in await client.get_model_repository_index()}
            with pytest.raises(InferenceServerException) as raised:
                await client.infer("network", [tensor("x", np.ones((1000, 64), np.float32))])
            return index["Loud"], await client.get_model_config("small"), str(raised.value.message())

    loud, config, failure = asyncio.run(live())
    assert "names match [a-z]+" in loud
    parameters = {name: told["string_value"] for name, told in config["parameters"].items()}
    assert config["max_batch_size"] == 3
    assert (parameters["slo_ms"], parameters["priority"], parameters["weight"]) == ("20000", "2", "7")
    assert "run_error" in failure


# Over the command line.


@contextlib.contextmanager
def served(*words: object) -> Iterator[subprocess.Popen[str]]:
    """A server of its own, with a pipe for standard input; killed at the end if it is still there."""
    command = [sys.executable, "-m", "slotwise.cli", "serve", "--http-port", "0", "--no-grpc", *map(str, words)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            yield server
        finally:
            server.kill()


def announced(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    return server.stdout.readline().split()[-1]


@pytest.mark.parametrize("way", ["options", "file"])
def test_a_server_with_a_certificate_speaks_https(tmp_path: Path, way: str) -> None:
    put_emulated(tmp_path / "models", "model", run_ms=1, settings="slo_ms = 20000")
    certificate, key = self_signed(tmp_path)
    config = tmp_path / "server.toml"
    config.write_text(f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    words = {"options": ("--tls-certificate", certificate, "--tls-key", key), "file": ("--config", config)}
    with served(tmp_path / "models", *words[way]) as server:
        url = announced(server)
        assert url.startswith("https://127.0.0.1:")
        request = urllib.request.Request(f"{url}/v2/models/model/infer", data=json.dumps(QUESTION).encode())
        with urllib.request.urlopen(request, timeout=60, context=trusting(certificate)) as reply:
            assert json.loads(reply.read())["outputs"][0]["data"] == [0.0, 0.0]
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http{url.removeprefix('https')}/v2", timeout=60)


def test_a_server_told_to_stops_when_its_input_ends(tmp_path: Path) -> None:
    put_emulated(tmp_path / "models", "model", run_ms=1)
    with served(tmp_path / "models", "--stop-at-eof") as server:
        announced(server)
        assert server.stdin is not None
        server.stdin.write("nothing that matters\n")
        server.stdin.close()
        assert server.wait(60) == 0


def test_a_server_that_still_reads_its_models_stops_at_once_when_told(tmp_path: Path, wait_until: WaitUntil) -> None:
    put_emulated(tmp_path / "models", "model", run_ms=1)
    file = tmp_path / "models" / "model" / "1" / "model.emulated.json"
    document = json.loads(file.read_text())
    document["profile"]["load_ns"] = 100_000_000_000  # inspecting it takes that long
    file.write_text(json.dumps(document))
    with served(tmp_path / "models") as server:
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        wait_until(lambda: children.read_text().strip())
        server.terminate()
        assert server.wait(60) == 0
        assert server.stdout is not None
        assert server.stdout.read() == ""
