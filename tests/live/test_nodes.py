"""Executors on other machines: client, server and nodes as processes that know each other over TCP only."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException

from slotwise.app import LiveSystem
from slotwise.client import AsyncClient, Client
from slotwise.edges.fleets.nodes.joined import JoinedFleet
from slotwise.edges.fleets.nodes.remote import NodeStatistics
from tests.live.nodes import hosting, program
from tests.live.systems import client_of, put_emulated, put_network, serving, tensor, until

pytestmark = pytest.mark.live

MS = 1_000_000
REQUESTS = 1_000
PATIENCE_US = 20_000_000
SECRET = "0123456789abcdef0123456789abcdef"


def test_client_server_and_node_as_processes_lose_none_of_a_thousand_requests(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_network(root, "net")
    question = {"x": np.ones((1, 64), np.float32)}
    errors = tmp_path / "errors"
    with hosting(tmp_path / "node", "--cores", min(os.sched_getaffinity(0)), "--clock-skew-ms", -500) as node:
        words = ("serve", root, "--http-port", 0, "--no-grpc", "--node", f"far={node.address}", "--nodes-only")
        words += ("--summary-s", 0.2, "--local-socket", tmp_path / "socket")
        with errors.open("w") as file, program(*words, errors=file) as server:
            url = server.address
            with Client(url) as client:
                answers = [client.infer("net", question, timeout_us=PATIENCE_US) for _ in range(REQUESTS)]
            with Client(f"unix://{tmp_path}/socket") as client:
                answers.append(client.infer("net", question, timeout_us=PATIENCE_US))
            status = json.load(urllib.request.urlopen(f"{url}/v2/slotwise/status"))
            asyncio.run(until(lambda: "in time/s" in errors.read_text()))
    assert len(answers) == REQUESTS + 1
    assert len({answer.outputs["y"].tobytes() for answer in answers}) == 1
    assert [one["executor"] for one in status["executors"]] == [f"far:core{min(os.sched_getaffinity(0))}"]
    error_ns = status["nodes"][0]["clock_ahead_ns"] + status["clock_offset_ns"] + 500 * MS
    assert abs(error_ns) < MS


def nodes_of(system: LiveSystem) -> dict[str, NodeStatistics]:
    assert isinstance(system.fleet, JoinedFleet)
    return {node.node: node for node in system.fleet.node_statistics()}


async def status_of(client: triton.InferenceServerClient, model: str, width: int, timeout_us: int) -> str:
    try:
        await client.infer(model, [tensor("x", np.ones((1, width), np.float32))], timeout=timeout_us)
    except InferenceServerException as error:
        return str(error.status())
    return "200"


def test_requests_are_shared_among_executors_here_and_on_a_node(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "model", run_ms=5, settings="slo_ms = 20000\nbatch_max = 1")
    core = max(os.sched_getaffinity(0))
    names = {f"core{core}", "far:emulated0"}

    async def ask(address: str) -> set[str | None]:
        changes = {"nodes": {"addresses": [f"far={address}"]}, "local_socket": str(tmp_path / "socket")}
        question = {"x": np.ones((1, 4), np.float32)}
        async with serving(root, cores=[core], **changes) as system, AsyncClient(f"unix://{tmp_path}/socket") as client:
            await until(lambda: all("model/1" in system.status().resident.get(name, ()) for name in names))
            asked = (client.infer("model", question, has_timing=True) for _ in range(40))
            return {answer.timing.executor for answer in await asyncio.gather(*asked) if answer.timing}

    with hosting(tmp_path / "node", "--emulated", 1) as node:
        assert asyncio.run(ask(node.address)) == names


def test_an_emulated_node_has_as_many_executors_as_asked_for_and_keeps_to_the_profile(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_network(root, "net")

    async def ask(address: str) -> tuple[set[str], list[float], float]:
        nodes = {"addresses": [f"far={address}"], "only": True}
        async with serving(root, nodes=nodes) as system, client_of(system) as client:
            spec = system.registry.specs["net/1"]
            inputs = [tensor("x", np.ones((1, 64), np.float32))]
            took_ms = []
            for _ in range(50):
                answer = await client.infer("net", inputs, timeout=PATIENCE_US, parameters={"slotwise_timing": True})
                took_ms.append(answer.get_response()["parameters"]["slotwise_execution_us"] / 1e3)
                assert not answer.as_numpy("y").any(), "an emulated model answers zeros"
            names = {one.executor for one in system.fleet.statistics().executors}
            return names, took_ms, spec.profile.expected_ns(1) / MS

    with hosting(tmp_path / "node", "--emulated", 4) as node:
        assert node.line.startswith("hosting 4 executors")
        names, took_ms, expected_ms = asyncio.run(ask(node.address))
    assert names == {f"far:emulated{at}" for at in range(4)}
    assert min(took_ms) >= expected_ms
    assert statistics.median(took_ms) < expected_ms + 1


def test_a_node_that_is_killed_costs_no_request_its_answer_and_its_return_restores_it(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "model", run_ms=2, settings="slo_ms = 20000")

    async def ask(stack: ExitStack) -> tuple[Counter[str], Counter[str]]:
        left, right = (stack.enter_context(hosting(tmp_path / name, "--emulated", 1)) for name in ("l", "r"))
        nodes = {"addresses": [f"left={left.address}", f"right={right.address}"], "only": True, "retry_s_max": 0.2}
        async with serving(root, nodes=nodes) as system, client_of(system) as client:
            asked = [asyncio.create_task(status_of(client, "model", 4, PATIENCE_US)) for _ in range(200)]
            await until(lambda: nodes_of(system)["left"].in_flight)
            left.process.send_signal(signal.SIGKILL)
            during = Counter(await asyncio.gather(*asked))
            assert nodes_of(system)["left"].losses == 1
            assert {one.executor for one in system.fleet.statistics().executors} == {"right:emulated0"}
            stack.enter_context(hosting(tmp_path / "l", "--emulated", 1, listen=left.address))
            await until(lambda: "model/1" in system.status().resident.get("left:emulated0", ()))
            right.process.send_signal(signal.SIGKILL)
            await until(lambda: nodes_of(system)["right"].losses)
            return during, Counter([await status_of(client, "model", 4, PATIENCE_US) for _ in range(20)])

    with ExitStack() as stack:
        during, after = asyncio.run(ask(stack))
    assert during == {"200": 200}
    assert after == {"200": 20}


IP, TC = shutil.which("ip"), shutil.which("tc")
needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not IP or not TC, reason="a slow link is made of a network namespace: needs root, ip and tc"
)
RATE = "8mbit"
WIDTH = 150_000
"""Of an input of 600 kB, which takes 0.6 s on that link."""


def command(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@contextmanager
def slow_link() -> Iterator[tuple[str, str]]:
    """A network namespace of its own behind a slow link; its name, and its address. Skips where there can be none."""
    name = f"slotwise-{os.getpid()}"
    here, there = f"sw{os.getpid() % 10**6}h", f"sw{os.getpid() % 10**6}n"
    try:
        command("ip", "netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr.decode().strip()}")
    try:
        command("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        command("ip", "addr", "add", "10.213.7.1/30", "dev", here)
        command("ip", "link", "set", here, "up")
        command("ip", "-n", name, "addr", "add", "10.213.7.2/30", "dev", there)
        command("ip", "-n", name, "link", "set", there, "up")
        command("tc", "qdisc", "add", "dev", here, "root", "tbf", "rate", RATE, "burst", "16kb", "latency", "400ms")
        yield name, "10.213.7.2"
    finally:
        command("ip", "netns", "del", name)


@needs_namespaces
def test_what_cannot_cross_a_slow_link_in_time_is_not_sent_and_piles_up_nowhere(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "small", run_ms=1)
    put_emulated(root, "large", run_ms=1)
    file = root / "large" / "1" / "model.emulated.json"
    file.write_text(file.read_text().replace("[-1, 4]", f"[-1, {WIDTH}]"))
    secret = tmp_path / "secret"
    secret.write_text(SECRET)

    async def ask(address: str) -> tuple[Counter[str], Counter[str], int, NodeStatistics]:
        nodes = {"addresses": [f"far={address}"], "only": True, "token_file": str(secret)}
        async with serving(root, nodes=nodes) as system, client_of(system) as client:
            await until(lambda: nodes_of(system)["far"].bytes_per_s)
            backlog_bytes_max = 0
            large: Counter[str] = Counter()
            small: Counter[str] = Counter()
            for _ in range(10):
                statuses = await asyncio.gather(*(status_of(client, "large", WIDTH, 200_000) for _ in range(4)))
                large.update(statuses)
                small[await status_of(client, "small", 4, 2_000_000)] += 1
                backlog_bytes_max = max(backlog_bytes_max, nodes_of(system)["far"].backlog_bytes)
            return large, small, backlog_bytes_max, nodes_of(system)["far"]

    with slow_link() as (namespace, address):
        within = ("ip", "netns", "exec", namespace)
        words = ("--emulated", 2, "--token-file", secret)
        with hosting(tmp_path / "node", *words, listen=f"{address}:0", within=within) as node:
            large, small, backlog_bytes_max, far = asyncio.run(ask(node.address))
    assert small == {"200": 10}
    assert large.keys() <= {"503", "504"}
    assert far.returned_too_late > 0
    assert backlog_bytes_max < 4 * WIDTH, "less than one of the inputs that were not sent"
