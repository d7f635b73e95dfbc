"""Pipelines, live: real models in real executors, through every door, and what becomes of them when a part fails."""

from __future__ import annotations

import asyncio
import csv
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException

from slotwise.app import LiveSystem, controller_of
from slotwise.client import AsyncClient, AsyncLocalClient, ClientError
from slotwise.engine.journal import read_header, replay
from slotwise.explain.journal import explanations
from tests.live.pipelines import CHAIN, put_arithmetic, put_patient, put_pipeline
from tests.live.systems import client_of, serving, tensor, until

X = np.arange(6, dtype=np.float32).reshape(2, 3)
PATIENCE_US = 30_000_000

pytestmark = pytest.mark.live


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    put_arithmetic(root)
    return root


@pytest.fixture
def patient_root(tmp_path: Path) -> Path:
    """Two steps of 0.3 s each."""
    root = tmp_path / "models"
    put_patient(root, "one", 300)
    put_patient(root, "two", 300)
    put_pipeline(root, "chain", CHAIN.format("one", "two") + "slo_ms: 20000\n")
    return root


async def outcome(asking: asyncio.Task[object]) -> str:
    try:
        await asking
    except ClientError as error:
        return f"{error.reason}: {error}"
    return "answered"


async def in_step(system: LiveSystem, model: str) -> None:
    """Wait until a step runs."""
    running = system.controller.view.executors.values()
    await until(lambda: any(batch.spec.id == model for one in running for batch in one.batches))


def is_clean(system: LiveSystem) -> bool:
    idle = all(not one.in_flight for one in system.fleet.statistics().executors)
    return idle and not system.relay.under_way() and not system.arena.regions


def test_every_door_answers_a_pipeline_as_it_would_a_model(root: Path, tmp_path: Path) -> None:
    socket, logs = tmp_path / "socket", tmp_path / "logs"

    async def live() -> None:
        changes = {"grpc": True, "grpc_port": 0, "local_socket": str(socket), "logs": {"folder": str(logs)}}
        async with serving(root, **changes) as system, client_of(system) as client:
            assert [line["state"] for line in await client.get_model_repository_index()] == ["READY"] * 5
            asked = [triton.InferRequestedOutput("left", binary_data=False), triton.InferRequestedOutput("sum")]
            answer = await client.infer("diamond", [tensor("x", X)], outputs=asked)
            np.testing.assert_array_equal(answer.as_numpy("sum"), 10 * X)
            np.testing.assert_array_equal(answer.as_numpy("left"), 4 * X)
            async with AsyncLocalClient(str(socket)) as local:
                given = await local.infer("diamond", {"x": X})
                np.testing.assert_array_equal(given.outputs["sum"], 10 * X)
                np.testing.assert_array_equal(given.outputs["left"], 4 * X)
                # One step reads both from the client's own memory and from what another step has made.
                given = await local.infer("residual", {"x": X})
                np.testing.assert_array_equal(given.outputs["y"], 3 * X)
            assert system.grpc is not None
            await asyncio.to_thread(over_grpc, system.grpc.port)
            await told_of(client, system)
            some = [triton.InferRequestedOutput("left")]
            answer = await client.infer("diamond", [tensor("x", X)], outputs=some)
            np.testing.assert_array_equal(answer.as_numpy("left"), 4 * X)
            await until(lambda: is_clean(system))

    asyncio.run(live())
    rows = [
        row for path in sorted(logs.glob("requests-*.csv")) for row in csv.DictReader(path.read_text().splitlines())
    ]
    assert [row["model_id"] for row in rows].count("diamond/1") == 4
    assert [row["model_id"] for row in rows].count("double/1") == 9
    assert [row["model_id"] for row in rows].count("triple/1") == 3  # not asked by one who wants `left` alone
    assert all(row["result"] == "in_time" for row in rows)


def over_grpc(port: int) -> None:
    with grpc_client.InferenceServerClient(f"127.0.0.1:{port}") as client:
        given = grpc_client.InferInput("x", list(X.shape), "FP32")
        given.set_data_from_numpy(X)
        np.testing.assert_array_equal(client.infer("diamond", [given]).as_numpy("sum"), 10 * X)
        steps = client.get_model_config("diamond").config.ensemble_scheduling.step
        assert [(step.model_name, step.model_version) for step in steps][-1] == ("add", 1)
        assert dict(steps[-1].input_map) == {"a": "left", "b": "right"}


async def told_of(client: triton.InferenceServerClient, system: LiveSystem) -> None:
    """What the server says of the pipeline beside its answers."""
    assert await client.is_model_ready("diamond")
    metadata = await client.get_model_metadata("diamond")
    assert metadata["platform"] == "ensemble"
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["sum", "left"]
    config = await client.get_model_config("diamond")
    assert "dynamic_batching" not in config
    assert config["ensemble_scheduling"]["step"][0]["output_map"] == {"y": "first"}
    (stats,) = (await client.get_inference_statistics("diamond"))["model_stats"]
    assert stats["inference_stats"]["success"]["count"] == 3
    page, _ = await system.metrics("")
    assert b'model="diamond"' in page


def test_a_pipeline_that_cannot_make_its_deadline_is_refused_at_once_and_told_when_it_would(patient_root: Path) -> None:
    async def live() -> None:
        async with serving(patient_root) as system, client_of(system) as client:
            with pytest.raises(InferenceServerException, match=r"infeasible.*take 600.\d+ ms of 500.000 ms allowed"):
                await client.infer("chain", [tensor("x", X[:1])], timeout=500_000)
            (stats,) = system.statistics.model("chain/1").outcomes
            assert (stats.outcome, stats.count) == ("refused", 1)
            assert not system.statistics.model("one/1").outcomes

    asyncio.run(live())


def test_an_executor_killed_in_each_step_costs_no_answer(patient_root: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    async def live() -> None:
        async with serving(patient_root, journal=journal) as system, AsyncClient(system.url()) as client:
            asking = asyncio.create_task(client.infer("chain", {"x": X[:1]}, timeout_us=PATIENCE_US))
            for model in ("one/1", "two/1"):
                await in_step(system, model)
                for name in list(system.controller.view.executors):
                    system.fleet.kill(name)
            assert await outcome(asking) == "answered"
            await until(lambda: is_clean(system))

    asyncio.run(live())
    (told,) = explanations(journal, request=1)
    assert (told.model, told.outcome) == ("chain/1", "in_time")
    assert [(one.step, one.model, one.outcome) for one in told.steps] == [
        (1, "one/1", "in_time"),
        (2, "two/1", "in_time"),
    ]


def test_a_client_that_goes_away_cancels_the_step_under_way_and_leaves_nothing(patient_root: Path) -> None:
    async def live() -> None:
        async with serving(patient_root) as system:
            async with AsyncClient(system.url()) as client:
                asking = asyncio.create_task(client.infer("chain", {"x": X[:1]}, timeout_us=PATIENCE_US))
                await in_step(system, "two/1")
                asking.cancel()
            await until(lambda: is_clean(system))
            ends = {name: system.statistics.model(name).outcomes[0].outcome for name in ("chain/1", "one/1", "two/1")}
            assert ends == {"chain/1": "cancelled", "one/1": "in_time", "two/1": "cancelled"}

    asyncio.run(live())


def test_a_member_that_is_unloaded_takes_its_pipeline_along_and_brings_it_back(patient_root: Path) -> None:
    async def live() -> None:
        async with serving(patient_root) as system, AsyncClient(system.url(), tries=1) as client:
            asking = asyncio.create_task(client.infer("chain", {"x": X[:1]}, timeout_us=PATIENCE_US))
            await in_step(system, "one/1")
            await system.registry.unload("two")
            assert "model_removed: " in (told := await outcome(asking))
            assert "step 2 of 2 (two/1)" in told
            async with client_of(system) as other:
                with pytest.raises(InferenceServerException, match="model 'two' is UNAVAILABLE: unloaded"):
                    await other.infer("chain", [tensor("x", X[:1])])
            await system.registry.load("two")
            last = asyncio.create_task(client.infer("chain", {"x": X[:1]}, timeout_us=PATIENCE_US))
            assert await outcome(last) == "answered"
            await until(lambda: is_clean(system))

    asyncio.run(live())


def test_a_pipeline_and_its_models_are_unloaded_together_where_that_is_asked(root: Path) -> None:
    async def live() -> None:
        async with serving(root) as system, client_of(system) as client:
            await client.unload_model("diamond", unload_dependents=True)
            assert {line["state"] for line in await client.get_model_repository_index()} == {"UNAVAILABLE"}
            for name in ("double", "triple", "add", "diamond"):
                await client.load_model(name)
            np.testing.assert_array_equal((await client.infer("diamond", [tensor("x", X)])).as_numpy("sum"), 10 * X)

    asyncio.run(live())


def test_what_finds_no_room_between_steps_fails_in_words_and_holds_nothing(root: Path) -> None:
    settings = "batch_max = 16384"
    for name in ("double", "triple", "add"):
        (root / name / "slotwise.toml").write_text(settings)

    async def live() -> None:
        big = np.ones((16384, 3), np.float32)
        async with serving(root, arena_mib=1, door={"rows_max": 16384}) as system, client_of(system) as client:
            held = system.arena.allocate((1 << 20) - int(1.5 * big.nbytes))
            assert held is not None
            with pytest.raises(InferenceServerException, match="no room in shared memory") as failed:
                await client.infer("diamond", [tensor("x", big)], timeout=PATIENCE_US)
            assert "503" in str(failed.value.status())
            system.arena.release(held)
            await until(lambda: is_clean(system))

    asyncio.run(live())


def test_a_replay_decides_a_journal_with_pipelines_again(root: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    async def live() -> None:
        async with serving(root, journal=journal) as system, client_of(system) as client:
            await asyncio.gather(*(client.infer("diamond", [tensor("x", X)]) for _ in range(8)))

    asyncio.run(live())
    header, *lines = journal.read_bytes().splitlines(keepends=True)
    replayed = replay(lines, controller_of(read_header(header)))
    assert replayed.difference is None
