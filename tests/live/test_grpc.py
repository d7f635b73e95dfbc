"""A whole server with its gRPC door: real models, real processes, and nobody left behind however it ends."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http
from tritonclient.utils import InferenceServerException

from tests.conftest import WaitUntil
from tests.live.systems import put_emulated, put_network

pytestmark = [pytest.mark.live, pytest.mark.slow]

DOOR = b"slotwise.grpc_door"
HOST = "127.0.0.1"


@dataclass
class Server:
    """A server in a process of its own, and where its two doors are."""

    process: subprocess.Popen[str]
    http: str
    grpc: str

    def doors(self) -> list[int]:
        """The processes that are its gRPC door."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if DOOR in Path(f"/proc/{pid}/cmdline").read_bytes()]


@contextlib.contextmanager
def served(root: Path, *words: object) -> Iterator[Server]:
    command = [sys.executable, "-m", "slotwise.cli", "serve", str(root), "--http-port", "0", "--grpc-port", "0"]
    pipe, folder = subprocess.PIPE, root.parent
    (folder / "home").mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(folder / "home"), "TMPDIR": str(folder / "home")}
    with subprocess.Popen(
        [*command, *map(str, words)], stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            http, grpc = (process.stdout.readline().split()[-1] for _ in range(2))
            yield Server(process, http.removeprefix("http://"), grpc)
        finally:
            process.kill()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    put_network(root, "network", settings="slo_ms = 20000")
    put_emulated(root, "slow", run_ms=400, settings="slo_ms = 20000")
    return root


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def memory_mib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon:"))) >> 10


def slow_input() -> triton.InferInput:
    made = triton.InferInput("x", [1, 4], "FP32")
    made.set_data_from_numpy(np.ones((1, 4), np.float32))
    return made


def test_a_network_answers_over_grpc_as_over_http_and_the_server_ends_with_its_door(root: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    with served(root) as server:
        with triton.InferenceServerClient(server.grpc) as client:
            asked = triton.InferInput("x", list(rows.shape), "FP32")
            asked.set_data_from_numpy(rows)
            answer = client.infer("network", [asked]).as_numpy("y")
            assert client.get_model_config("network", as_json=True)["config"]["max_batch_size"] > 1
        with tritonclient.http.InferenceServerClient(server.http) as client:
            asked = tritonclient.http.InferInput("x", list(rows.shape), "FP32")
            asked.set_data_from_numpy(rows)
            expected = client.infer("network", [asked]).as_numpy("y")
        assert np.allclose(answer, expected, rtol=1e-5)
        (door,) = server.doors()
        server.process.terminate()
        assert server.process.wait(60) == 0
        assert is_gone(door)
        assert not list((root.parent / "home").glob("slotwise-*")), "its folder is removed"


def test_what_is_under_way_over_grpc_is_answered_when_the_server_is_told_to_stop(
    root: Path, wait_until: WaitUntil
) -> None:
    with served(root) as server, triton.InferenceServerClient(server.grpc) as client:
        answers: list[object] = []
        client.async_infer("slow", [slow_input()], lambda result, error: answers.append(error or result))
        wait_for_one_in_flight(server)
        server.process.terminate()
        assert server.process.wait(60) == 0
        wait_until(lambda: answers)
    assert [type(answer) for answer in answers] == [triton.InferResult]


def test_a_second_signal_ends_the_wait_for_what_is_under_way(root: Path, wait_until: WaitUntil) -> None:
    put_emulated(root, "endless", run_ms=20_000, settings="slo_ms = 60000")
    with served(root) as server, triton.InferenceServerClient(server.grpc) as client:
        endings: list[object] = []
        client.async_infer("endless", [slow_input()], lambda result, error: endings.append(error or result))
        with tritonclient.http.InferenceServerClient(server.http) as http:
            wait_until(lambda: b"slotwise_requests_in_flight 1.0" in bytes(http._get("metrics", None, None).read()))
            server.process.send_signal(signal.SIGINT)
            wait_until(lambda: not http.is_server_ready())
        assert server.process.poll() is None, "it waits"
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(15) == 0
        wait_until(lambda: endings)
    assert "did not wait for the answer" in str(endings[0])


def test_the_memory_and_the_replies_of_the_door_are_among_the_metrics(root: Path) -> None:
    with served(root) as server, triton.InferenceServerClient(server.grpc) as client:
        client.infer("slow", [slow_input()])
        with urllib.request.urlopen(f"http://{server.http}/metrics") as page:
            lines = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line[0] != "#")
    assert float(lines["slotwise_grpc_memory_bytes"]) > 1 << 20
    assert float(lines['slotwise_grpc_replies_total{status="200"}']) == 1


def wait_for_one_in_flight(server: Server) -> None:
    with tritonclient.http.InferenceServerClient(server.http) as client:
        is_running = False
        while not is_running:
            status = client._get("v2/slotwise/status", None, None)
            is_running = b'"in_flight":1' in bytes(status.read())


def test_a_killed_server_takes_its_door_with_it(root: Path, wait_until: WaitUntil) -> None:
    with served(root) as server:
        (door,) = server.doors()
        os.kill(door, signal.SIGSTOP)  # even one that does nothing more
        server.process.kill()
        server.process.wait(60)
        wait_until(lambda: is_gone(door))


def test_a_killed_door_comes_back_and_the_server_serves_on(root: Path, wait_until: WaitUntil) -> None:
    with served(root) as server, triton.InferenceServerClient(server.grpc) as client:
        (door,) = server.doors()
        os.kill(door, signal.SIGKILL)
        with tritonclient.http.InferenceServerClient(server.http) as http:
            assert http.is_server_ready()

        def is_back() -> bool:
            with contextlib.suppress(InferenceServerException):
                return client.infer("slow", [slow_input()]).as_numpy("y") is not None
            return False

        wait_until(is_back)
        assert server.doors() != [door]


def test_the_token_of_a_client_is_judged_by_the_server(root: Path) -> None:
    tokens, config = root.parent / "tokens.toml", root.parent / "server.toml"
    digest = hashlib.sha256(b"secret").hexdigest()
    tokens.write_text(f'[[token]]\nname = "one"\nsha256 = "{digest}"\nmodels = ["slow"]\n')
    config.write_text(f'tokens = "{tokens}"\n')
    shown = {"authorization": "Bearer secret"}
    with served(root, "--config", config) as server, triton.InferenceServerClient(server.grpc) as client:
        assert client.is_server_live()
        assert client.infer("slow", [slow_input()], headers=shown).as_numpy("y") is not None
        asks = {
            "UNAUTHENTICATED": lambda: client.infer("slow", [slow_input()]),
            "PERMISSION_DENIED": lambda: client.get_model_metadata("network", headers=shown),
        }
        for status, ask in asks.items():
            with pytest.raises(InferenceServerException) as refused:
                ask()
            assert refused.value.status() == f"StatusCode.{status}"
        with pytest.raises(InferenceServerException, match="may not manage"):
            client.load_model("slow", headers=shown)


def test_a_taken_grpc_port_ends_the_start_with_a_line_that_says_so(root: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "slotwise.cli", "serve", str(root), "--http-port", "0", "--grpc-port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"port {port}: Address already in use; name another with --host or --grpc-port" in done.stderr


def test_calls_that_are_turned_away_leave_no_messages_behind(root: Path) -> None:
    asked = triton.InferInput("x", [1, 1 << 20], "FP32")
    asked.set_data_from_numpy(np.zeros((1, 1 << 20), np.float32))
    with served(root) as server, triton.InferenceServerClient(server.grpc) as client:
        grown_mib = []
        for calls in (5, 15):  # the first ones fill what gRPC keeps for messages
            before_mib = memory_mib(server.doors()[0])
            for _ in range(calls):
                with pytest.raises(InferenceServerException, match="there is no model 'nobody'"):
                    client.infer("nobody", [asked])
            grown_mib.append(memory_mib(server.doors()[0]) - before_mib)
    assert grown_mib[1] < 50, "of the 60 MiB that were sent, each of them twice in memory while it is read"
