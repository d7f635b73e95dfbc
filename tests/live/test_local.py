"""The local channel, live: real models, real executors, clients in processes of their own, and what becomes of them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slotwise.app import LiveSystem
from slotwise.client import AsyncClient, AsyncLocalClient, BadRequest, Client, Question, Refused
from slotwise.config import ConfigError
from tests.live.systems import put_emulated, put_network, serving, until

PATIENCE_US = 30_000_000
X = np.linspace(-1, 1, 64 * 8, dtype=np.float32).reshape(8, 64)

pytestmark = pytest.mark.live

ASKS_FOR_EVER = """
import sys
import numpy as np
from slotwise.client import LocalClient, Question

with LocalClient(sys.argv[1]) as client:
    row = client.empty((1, int(sys.argv[3])), np.float32)
    row[:] = 1
    def questions():
        while True:
            yield Question(model=sys.argv[2], inputs={"x": row}, timeout_us=30_000_000)
    for answer in client.stream(questions(), window=32):
        answer.result()
        print("answered", flush=True)
"""


def start_client(path: str, model: str, width: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ASKS_FOR_EVER, path, model, str(width)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def first_answer(client: subprocess.Popen[str]) -> None:
    assert client.stdout is not None
    assert await asyncio.to_thread(client.stdout.readline) == "answered\n"


def mapped(system: LiveSystem) -> int:
    """How often executors map memory of clients."""
    pids = [one.pid for one in system.fleet.statistics().executors if one.pid is not None]
    return sum(Path(f"/proc/{pid}/maps").read_text().count("memfd:slotwise-inputs") for pid in pids)


def is_clean(system: LiveSystem) -> bool:
    held = system.local.statistics()
    return not held.clients and not held.requests_in_flight and not system.arena.regions and not mapped(system)


def test_a_model_answers_over_shared_memory_as_it_does_over_http(tmp_path: Path) -> None:
    root, path = tmp_path / "models", tmp_path / "socket"
    put_network(root, "network")

    async def ask() -> None:
        async with serving(root, local_socket=str(path)) as system, AsyncClient(system.url()) as far:
            async with AsyncClient(f"unix://{path}") as near:
                array = near.empty(X.shape, np.float32)
                array[:] = X
                inputs = [{"x": X}, {"x": array}, {"x": array[4:5]}]
                for given in inputs:
                    one = await far.infer("network", given, PATIENCE_US)
                    other = await near.infer("network", given, PATIENCE_US, has_timing=True)
                    np.testing.assert_array_equal(one.outputs["y"], other.outputs["y"])
                rows = [{"x": array[index : index + 1]} for index in range(8)]
                alone = [(await near.infer("network", row, PATIENCE_US)).outputs["y"] for row in rows]
                together = await asyncio.gather(*[near.infer("network", row, PATIENCE_US) for row in rows * 5])
                for index, answer in enumerate(together):
                    np.testing.assert_allclose(answer.outputs["y"], alone[index % 8], rtol=1e-4, atol=1e-5)
                assert mapped(system)
            await until(lambda: is_clean(system))

    asyncio.run(ask())


def test_requests_of_several_clients_and_ways_share_a_batch(tmp_path: Path) -> None:
    root, path = tmp_path / "models", tmp_path / "socket"
    put_network(root, "network")

    async def ask() -> list[int | None]:
        async with serving(root, local_socket=str(path), cores=(0,)) as system:
            ways = [AsyncClient(url) for url in (f"unix://{path}", f"unix://{path}", system.url())]
            asking = [way.infer("network", {"x": X[:1]}, PATIENCE_US, has_timing=True) for way in ways * 60]
            answers = await asyncio.gather(*asking)
            for way in ways:
                way.close()
            return [answer.timing.batch_rows for answer in answers if answer.timing is not None]

    assert max(rows or 0 for rows in asyncio.run(ask())) > 1


def test_a_client_that_is_killed_leaves_nothing_behind_and_harms_nobody(tmp_path: Path) -> None:
    root, path = tmp_path / "models", tmp_path / "socket"
    put_network(root, "network")

    async def kill() -> None:
        async with serving(root, local_socket=str(path)) as system, AsyncClient(f"unix://{path}") as other:
            for _ in range(3):
                doomed = start_client(str(path), "network", 64)
                await first_answer(doomed)
                asking = [other.infer("network", {"x": X[:1]}, PATIENCE_US) for _ in range(20)]
                doomed.send_signal(signal.SIGKILL)
                await asyncio.to_thread(doomed.communicate)
                assert len(await asyncio.gather(*asking)) == 20
                await until(lambda: len(system.local.statistics().clients) == 1)
            other.close()
            await until(lambda: is_clean(system))

    asyncio.run(kill())


def test_an_executor_that_is_killed_costs_no_client_its_answers(tmp_path: Path) -> None:
    root, path = tmp_path / "models", tmp_path / "socket"
    put_network(root, "network")

    async def kill() -> None:
        async with serving(root, local_socket=str(path)) as system, AsyncLocalClient(str(path)) as client:
            row = client.empty((1, 64), np.float32)
            row[:] = 1
            question = Question(model="network", inputs={"x": row}, timeout_us=PATIENCE_US)
            expected = (await client.ask(question)).outputs["y"].copy()
            executors = system.controller.view.executors
            for executor in system.fleet.statistics().executors:
                await until(lambda: len(executors) == len(system.fleet.statistics().executors))
                asking = [asyncio.create_task(client.ask(question)) for _ in range(100)]
                await asyncio.sleep(0)
                system.fleet.kill(executor.executor)
                for answer in await asyncio.gather(*asking):
                    np.testing.assert_allclose(answer.outputs["y"], expected, rtol=1e-4, atol=1e-5)

    asyncio.run(kill())


def test_a_refusal_tells_when_to_come_again_and_a_bad_request_what_is_wrong(tmp_path: Path) -> None:
    root, path = tmp_path / "models", tmp_path / "socket"
    put_emulated(root, "slow", run_ms=200)

    def ask() -> None:
        with Client(f"unix://{path}") as client:
            with pytest.raises(Refused, match="predicted to take") as raised:
                client.infer("slow", {"x": np.ones((1, 4), np.float32)}, timeout_us=50_000)
            assert (raised.value.reason, raised.value.status) == ("infeasible", 503)
            assert raised.value.retry_after_ms > 0
            with pytest.raises(BadRequest, match="shape"):
                client.infer("slow", {"x": np.ones((1, 5), np.float32)})

    async def serve() -> None:
        async with serving(root, local_socket=str(path)):
            await asyncio.to_thread(ask)

    asyncio.run(serve())


def test_a_server_that_stops_answers_its_local_clients_and_removes_its_socket(tmp_path: Path) -> None:
    root, path = tmp_path / "models", tmp_path / "socket"
    put_emulated(root, "slow", run_ms=100)

    async def stop() -> None:
        async with serving(root, local_socket=str(path)) as system:
            client = AsyncLocalClient(str(path))
            await client.open()
            question = Question(model="slow", inputs={"x": np.ones((1, 4), np.float32)}, timeout_us=PATIENCE_US)
            asking = asyncio.create_task(client.ask(question))
            await until(lambda: system.local.statistics().requests_in_flight)
        assert (await asking).outputs["y"].shape == (1, 2)
        assert not path.exists()
        client.close()

    asyncio.run(stop())


def test_a_socket_that_cannot_be_had_stops_the_server_before_it_has_begun(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "slow", run_ms=1)

    async def serve() -> None:
        async with serving(root, local_socket=str(tmp_path / "no" / "folder" / "socket")):
            pass

    with pytest.raises(ConfigError, match="local_socket"):
        asyncio.run(serve())
