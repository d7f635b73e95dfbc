"""The whole product, live: real models and real processes behind a standard client."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import tritonclient.http as blocking
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from slotwise.edges.zoo.build import build
from tests.live.systems import client_of, put_emulated, put_network, serving, starting, tensor, until

ZOO = Path(__file__).parents[2] / ".zoo"
PATIENCE_US = 30_000_000

pytestmark = pytest.mark.live


async def status_of(client: triton.InferenceServerClient, model: str, rows: int = 1, **options: object) -> str:
    """200, or the status of the error that came."""
    inputs = [tensor("x", np.ones((rows, 4), np.float32))]
    try:
        await client.infer(model, inputs, **options)
    except InferenceServerException as error:
        return str(error.status())
    return "200"


@pytest.mark.slow
def test_every_model_of_the_zoo_answers_through_the_server_as_the_plain_runtime_does(tmp_path: Path) -> None:
    entries = build(ZOO)
    assert len(entries) >= 10

    async def compare() -> list[str]:
        async with serving(ZOO, memory_mib=4096, cache="") as system:
            return await asyncio.to_thread(unexpected_answers, system.http_port)

    assert asyncio.run(compare()) == []


def unexpected_answers(port: int) -> list[str]:
    """The models of the zoo whose answer is not what the plain runtime gave when the zoo was built."""
    client = blocking.InferenceServerClient(f"127.0.0.1:{port}", network_timeout=60.0)
    folders = sorted(path for path in ZOO.iterdir() if (path / "example.npz").exists())
    different = [folder.name for folder in folders if not answers_as_expected(client, folder)]
    client.close()
    return different


def answers_as_expected(client: blocking.InferenceServerClient, folder: Path) -> bool:
    example, expected = np.load(folder / "example.npz"), np.load(folder / "expected.npz")
    inputs = []
    for name in example.files:
        given = blocking.InferInput(name, example[name].shape, np_to_triton_dtype(example[name].dtype))
        given.set_data_from_numpy(example[name])
        inputs.append(given)
    answer = client.infer(folder.name, inputs, timeout=PATIENCE_US)
    return all(np.array_equal(answer.as_numpy(name), expected[name]) for name in expected.files)


def test_all_executors_map_the_same_weights_also_after_a_second_start(tmp_path: Path) -> None:
    put_network(tmp_path / "models", "mlp")

    async def mapped() -> list[set[str]]:
        async with serving(tmp_path / "models") as system, client_of(system) as client:
            inputs = [tensor("x", np.ones((1, 64), np.float32))]
            await client.infer("mlp", inputs, timeout=PATIENCE_US)
            pids = [one.pid for one in system.fleet.statistics().executors]
            return [weights_mapped(pid) for pid in pids]

    first, second = asyncio.run(mapped())
    assert len(first) == 1
    assert first == second
    assert asyncio.run(mapped()) == [first, second]


def weights_mapped(pid: int | None) -> set[str]:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if line.endswith("weights.bin")}


def test_a_real_and_an_emulated_executor_are_the_same_to_the_controller(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_network(root, "real")
    put_emulated(root, "emulated", run_ms=1)

    async def ask() -> list[object]:
        async with serving(root) as system, client_of(system) as client:
            timings = []
            for name, size in (("real", 64), ("emulated", 4)):
                inputs = [tensor("x", np.ones((1, size), np.float32))]
                answer = await client.infer(name, inputs, timeout=PATIENCE_US, parameters={"slotwise_timing": True})
                timings.append(sorted(answer.get_response()["parameters"]))
            return timings

    real, emulated = asyncio.run(ask())
    assert real == emulated


def test_what_cannot_be_in_time_is_refused_with_a_reason_and_a_time_to_come_again(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "slow", run_ms=200)

    async def ask() -> tuple[int, dict[str, object], dict[str, str]]:
        async with serving(root) as system, aiohttp.ClientSession() as session:
            body = {
                "parameters": {"timeout": 50_000},
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}],
            }
            url = f"http://127.0.0.1:{system.http_port}/v2/models/slow/infer"
            async with session.post(url, json=body) as reply:
                return reply.status, await reply.json(), dict(reply.headers)

    status, document, headers = asyncio.run(ask())
    assert status == 503
    assert document["reason"] == "infeasible"
    assert document["predicted_ms"] >= 200
    assert "Retry-After" in headers


def test_a_server_that_reads_its_models_says_that_it_initializes_and_then_serves(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "model", run_ms=1)

    async def ask() -> tuple[set[tuple[int, str]], dict[str, int]]:
        async with starting(root) as (system, started), aiohttp.ClientSession() as session:
            await until(lambda: system.http_port)
            base = f"http://127.0.0.1:{system.http_port}/v2"
            inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]
            body = {"parameters": {"timeout": PATIENCE_US}, "inputs": inputs}
            told: set[tuple[int, str]] = set()
            early = {}
            for path in ("health/live", "health/ready"):
                async with session.get(f"{base}/{path}") as reply:
                    early[path] = reply.status
            while not started.done():
                async with session.post(f"{base}/models/model/infer", json=body) as reply:
                    told.add((reply.status, (await reply.json()).get("reason", "")))
                    assert reply.status == 200 or "Retry-After" in reply.headers
            await started
            async with session.get(f"{base}/health/ready") as reply:
                early["then"] = reply.status
            return told, early

    told, health = asyncio.run(ask())
    assert (503, "initializing") in told
    assert told <= {(503, "initializing"), (200, "")}
    assert health == {"health/live": 200, "health/ready": 503, "then": 200}


def test_an_answer_that_misses_its_deadline_is_told_as_504(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "slow", run_ms=200)

    async def ask() -> str:
        async with serving(root, policy="fifo") as system, client_of(system) as client:
            return await status_of(client, "slow", timeout=50_000)

    assert asyncio.run(ask()) == "504"


def test_an_idle_server_refuses_nothing_that_it_can_do(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "long", run_ms=300, settings="slo_ms = 20000")
    put_emulated(root, "short", run_ms=2, settings="slo_ms = 20000")

    async def ask() -> set[str]:
        async with serving(root) as system, client_of(system) as client:
            return {await status_of(client, name) for name in ("long", "short", "long", "long", "short")}

    assert asyncio.run(ask()) == {"200"}


def test_a_bad_model_is_named_with_its_reason_and_the_others_are_served(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "good", run_ms=1)
    put_network(root, "broken")
    (root / "broken" / "1" / "model.onnx").write_bytes(b"this is no model")
    put_emulated(root, "giant", run_ms=1, memory_mib=100_000)

    async def ask() -> tuple[dict[str, str], str, str]:
        async with serving(root) as system, client_of(system) as client:
            index = await client.get_model_repository_index()
            states = {row["name"]: f"{row['state']} {row.get('reason', '')}" for row in index}
            return states, await status_of(client, "good", timeout=PATIENCE_US), await status_of(client, "giant")

    states, good, giant = asyncio.run(ask())
    assert states["broken"].startswith("UNAVAILABLE")
    assert len(states["broken"]) > len("UNAVAILABLE ")
    assert good == "200"
    assert giant == "503"


def test_a_load_that_fails_is_told_without_where_the_file_lies(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_network(root, "network", settings="slo_ms = 20000")

    async def live() -> dict[str, object]:
        async with serving(root) as system, aiohttp.ClientSession() as session:
            spoil(root / "network" / "1" / "model.onnx")
            spoil(Path(system.registry.specs["network/1"].pack))
            for executor in system.fleet.statistics().executors:
                system.fleet.kill(executor.executor)
            await until(lambda: all(executor.restarts for executor in system.fleet.statistics().executors))
            tensor_of_ones = {"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [1] * 64}
            url = f"{system.url()}/v2/models/network/infer"
            while True:  # until an executor has found out
                async with session.post(url, json={"inputs": [tensor_of_ones]}) as reply:
                    told: dict[str, object] = await reply.json()
                if told.get("reason") == "load_failed":
                    return told

    told = asyncio.run(asyncio.wait_for(live(), 60))
    assert "model.onnx" in str(told["error"])
    assert str(tmp_path) not in str(told["error"])


def spoil(file: Path) -> None:
    """Replace a file by another, as whoever copies files does; what has been mapped of it stays."""
    file.unlink()
    file.write_bytes(b"no model any more")


async def is_answered(client: triton.InferenceServerClient) -> bool:
    try:
        await client.infer("network", [tensor("x", np.ones((1, 64), np.float32))], timeout=PATIENCE_US)
    except InferenceServerException as error:
        if "no_executor" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize("spoilt", ["pack", "path"])
def test_of_a_model_and_its_pack_one_is_enough_to_load_it_again(tmp_path: Path, spoilt: str) -> None:
    root = tmp_path / "models"
    put_network(root, "network", settings="slo_ms = 20000")

    async def live() -> None:
        async with serving(root) as system, client_of(system) as client:
            spoil(Path(getattr(system.registry.specs["network/1"], spoilt)))
            for executor in system.fleet.statistics().executors:
                system.fleet.kill(executor.executor)
            await until(lambda: all(executor.restarts for executor in system.fleet.statistics().executors))
            while not await is_answered(client):  # until an executor is there to hold it
                pass

    asyncio.run(asyncio.wait_for(live(), 60))


def test_models_come_change_and_go_while_others_are_served(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "steady", run_ms=2, settings="slo_ms = 20000")

    async def live() -> None:
        async with serving(root) as system, client_of(system) as client:
            stop = asyncio.Event()
            steady = asyncio.create_task(ask_steadily(client, stop))
            first = put_network(root, "network", seed=1)
            await client.load_model("network")
            zeros = [tensor("x", np.zeros((1, 64), np.float32))]
            before = await client.infer("network", zeros, timeout=PATIENCE_US)
            second = put_network(root, "network", version=2, seed=2)
            await client.load_model("network")
            after = await client.infer("network", zeros, timeout=PATIENCE_US)
            assert (before.get_response()["model_version"], after.get_response()["model_version"]) == ("1", "2")
            assert not np.array_equal(first, second)
            assert not np.array_equal(before.as_numpy("y"), after.as_numpy("y"))
            await client.unload_model("network")
            with pytest.raises(InferenceServerException):
                await client.infer("network", zeros, timeout=PATIENCE_US)
            stop.set()
            assert set(await steady) == {"200"}

    asyncio.run(live())


async def ask_steadily(client: triton.InferenceServerClient, stop: asyncio.Event) -> list[str]:
    statuses = []
    while not stop.is_set():
        statuses.append(await status_of(client, "steady"))
    return statuses


def test_a_model_replaced_in_place_answers_anew(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_network(root, "network", seed=1)

    async def live() -> None:
        async with serving(root) as system, client_of(system) as client:
            zeros = [tensor("x", np.zeros((1, 64), np.float32))]
            before = (await client.infer("network", zeros, timeout=PATIENCE_US)).as_numpy("y")
            put_network(root, "network", seed=2)
            await client.load_model("network")

            async def is_new() -> bool:
                return not np.array_equal(
                    (await client.infer("network", zeros, timeout=PATIENCE_US)).as_numpy("y"), before
                )

            assert await is_new()

    asyncio.run(live())


def test_more_models_than_memory_are_all_served_in_turn(tmp_path: Path) -> None:
    root = tmp_path / "models"
    names = [f"model{index}" for index in range(8)]
    for name in names:
        put_emulated(root, name, run_ms=1, memory_mib=100, settings="slo_ms = 10000")

    async def ask() -> set[str]:
        async with serving(root) as system, client_of(system) as client:
            return {await status_of(client, name) for name in names * 2}

    assert asyncio.run(ask()) == {"200"}


def test_a_hung_executor_is_replaced_and_its_request_answered(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "model", run_ms=5, settings="slo_ms = 50000")

    async def live() -> str:
        async with serving(root) as system, client_of(system) as client:
            for executor in system.fleet.statistics().executors:
                system.fleet.kill(executor.executor, signal.SIGSTOP)
            status = await status_of(client, "model")
            await until(lambda: any(executor.restarts for executor in system.fleet.statistics().executors))
            return status

    assert asyncio.run(live()) == "200"


def test_a_server_told_to_stop_answers_what_is_under_way_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "slow", run_ms=500, settings="slo_ms = 20000")
    command = [sys.executable, "-m", "slotwise.cli", "serve", str(root), "--http-port", "0", "--no-grpc"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        url = line.split()[-1]
        status, children = asyncio.run(ask_and_stop(url, server))
        assert server.wait(30) == 0
    assert status == 200
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


async def ask_and_stop(url: str, server: subprocess.Popen[str]) -> tuple[int, list[int]]:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/v2/slotwise/status") as reply:
            children = [executor["pid"] for executor in json.loads(await reply.read())["executors"]]
        asked = asyncio.create_task(post(session, f"{url}/v2/models/slow/infer", body))
        while not asked.done() and not await is_running(session, url):
            pass
        server.send_signal(signal.SIGTERM)
        return await asked, children


async def post(session: aiohttp.ClientSession, url: str, body: object) -> int:
    async with session.post(url, json=body) as reply:
        await reply.read()
        return reply.status


async def is_running(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether an executor has something to do."""
    async with session.get(f"{url}/v2/slotwise/status") as reply:
        return any(executor["in_flight"] for executor in json.loads(await reply.read())["executors"])
