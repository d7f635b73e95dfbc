"""One client for every way to a server: HTTP, gRPC and the local channel; blocking, awaiting, future, callback."""

from __future__ import annotations

import asyncio
import hashlib
import queue
import socket
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from slotwise.client import (
    AddressError,
    AsyncClient,
    BadRequest,
    Client,
    ClientError,
    ConnectionLost,
    InferResult,
    ModelNotFound,
    Question,
    Refused,
    Streamed,
    TooLate,
    Unreachable,
)
from slotwise.client.tries import stream_with_tries
from slotwise.edges.oip.access import Grant
from slotwise.edges.oip.tls import Tls
from tests.certificates import self_signed
from tests.conftest import WaitUntil
from tests.edges.echo import HOST, MS, EchoController, serving
from tests.edges.grpc.rig import opened
from tests.edges.local.rig import serving as serving_local

pytestmark = pytest.mark.live

ROW = np.array([[1, 2, 3, 4]], np.float32)
MIXED = {
    "i": np.array([-(2**62), 7]),
    "t": np.array(["a", "\u00e4\u00df", ""], dtype=object),
    "b": np.array([[True, False]]),
    "d": np.array([1.5, float("nan")]),
}
WAYS = ("http", "grpc", "unix")
MANY = 100
WAIT_S_MAX = 60.0
TOKEN, SLOW = "token-of-a-camera", "token-of-a-slow-one"
GRANTS = (
    Grant(name="camera", sha256=hashlib.sha256(TOKEN.encode()).hexdigest(), models=("ech?",)),
    Grant(name="slow", sha256=hashlib.sha256(SLOW.encode()).hexdigest(), per_s=0.001, burst=1),
)


@dataclass
class Servers:
    """Where the echo is, by way, and what decides there."""

    urls: dict[str, str]
    controllers: dict[str, EchoController]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with opened() as door, serving_local(tmp_path_factory.mktemp("local") / "socket") as near:
        urls = {
            "http": f"http://{HOST}:{door.system.port}",
            "grpc": f"grpc://{door.address}",
            "unix": f"unix://{near.path}",
        }
        far = door.system.controller
        yield Servers(urls, {"http": far, "grpc": far, "unix": near.controller})


def rows(count: int) -> list[Question]:
    return [Question(model="echo", inputs={"x": ROW + number}, timeout_us=50_000_000) for number in range(count)]


@pytest.mark.parametrize("way", WAYS)
def test_the_blocking_client_answers_alike_on_every_way(servers: Servers, way: str) -> None:
    with Client(servers.urls[way]) as client:
        array = client.empty((1, 4), np.float32)
        array[:] = ROW
        answer = client.infer("echo/1", {"x": array}, 50_000_000, 2, has_timing=True)
        np.testing.assert_array_equal(answer.outputs["x"], ROW)
        assert (answer.model, answer.version) == ("echo", "1")
        request = servers.controllers[way].requests[-1]
        assert 0 < request.deadline_ns - request.arrival_ns <= 50_000 * MS
        assert request.priority == 2
        assert answer.timing is not None
        assert (answer.timing.outcome, answer.timing.execution_us) == ("in_time", 3)
        assert answer.timing.request == request.id, "its number in journals and logs"
        mixed = client.infer("mixed", MIXED).outputs
        assert mixed["t"].tolist() == [b"a", "\u00e4\u00df".encode(), b""]
        for name in ("i", "b", "d"):
            np.testing.assert_array_equal(mixed[name], MIXED[name])
        assert list(client.infer("mixed", MIXED, outputs=["d"]).outputs) == ["d"]
        found = {one.index: one.result().outputs["x"][0, 0] for one in client.stream(rows(10), 3)}
        assert found == {number: 1 + number for number in range(10)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("model", "error", "reason"),
    [
        ("nobody", ModelNotFound, "unknown_model"),
        ("overloaded", Refused, "overloaded"),
        ("expired", TooLate, "expired"),
        ("wrong", BadRequest, ""),
    ],
)
def test_an_error_is_the_same_on_every_way(
    servers: Servers, way: str, model: str, error: type[ClientError], reason: str
) -> None:
    inputs = {"y": ROW} if model == "wrong" else {"x": ROW}
    with Client(servers.urls[way]) as client, pytest.raises(error) as raised:
        client.infer("echo" if model == "wrong" else model, inputs)
    assert raised.value.reason == reason
    if isinstance(raised.value, Refused):
        assert raised.value.retry_after_ms == 1200


@pytest.mark.parametrize("way", WAYS)
def test_many_are_under_way_at_once_in_one_loop(servers: Servers, way: str) -> None:
    async def ask() -> list[float]:
        async with AsyncClient(servers.urls[way]) as client:
            answers = await asyncio.gather(*map(client.ask, rows(MANY)))
            streamed = [one.index async for one in client.stream(rows(5), 2)]
            assert sorted(streamed) == [0, 1, 2, 3, 4]
            return [float(answer.outputs["x"][0, 0]) for answer in answers]

    assert asyncio.run(ask()) == [1 + number for number in range(MANY)]


@pytest.mark.parametrize("way", WAYS)
def test_a_hundred_futures_resolve(servers: Servers, way: str) -> None:
    with Client(servers.urls[way]) as client:
        futures = [client.submit(question) for question in rows(MANY)]
        found = [future.result(WAIT_S_MAX).outputs["x"][0, 0] for future in futures]
        assert found == [1 + number for number in range(MANY)]
        with pytest.raises(ModelNotFound):
            client.submit(Question(model="nobody", inputs={"x": ROW})).result(WAIT_S_MAX)


@pytest.mark.parametrize("way", WAYS)
def test_a_callback_is_called_once_with_each_ending(servers: Servers, way: str) -> None:
    ended: queue.Queue[InferResult | ClientError] = queue.Queue()
    with Client(servers.urls[way]) as client:
        for model in ("echo", "nobody", "echo"):
            client.call(Question(model=model, inputs={"x": ROW}), ended.put)
        found = sorted(type(ended.get(timeout=WAIT_S_MAX)).__name__ for _ in range(3))
    assert found == ["InferResult", "InferResult", "ModelNotFound"]
    assert ended.empty()


@pytest.mark.parametrize("way", WAYS)
def test_a_future_that_is_cancelled_takes_its_question_back(servers: Servers, way: str, wait_until: WaitUntil) -> None:
    controller = servers.controllers[way]
    with Client(servers.urls[way]) as client:
        first = client.submit(Question(model="silent", inputs={"x": ROW}, timeout_us=50_000_000))
        wait_until(lambda: controller.silent)
        (waiting,) = controller.silent
        first.cancel()
        wait_until(lambda: waiting in controller.cancelled)
        ended: queue.Queue[InferResult | ClientError] = queue.Queue()
        client.call(Question(model="silent", inputs={"x": ROW}, timeout_us=50_000_000), ended.put)
        wait_until(lambda: controller.silent)
    assert isinstance(ended.get(timeout=WAIT_S_MAX), ConnectionLost), "its client closed"


# Rights and encryption


def test_a_token_is_shown_and_judged_over_http_and_over_grpc_alike() -> None:
    with opened(grants=GRANTS) as door:
        for url in (f"http://{HOST}:{door.system.port}", f"grpc://{door.address}"):
            with Client(url) as nobody, pytest.raises(BadRequest, match="token is needed") as refused:
                nobody.infer("echo", {"x": ROW})
            assert refused.value.status == 401
            with Client(url, token=TOKEN) as camera:
                np.testing.assert_array_equal(camera.infer("echo", {"x": ROW}).outputs["x"], ROW)
                with pytest.raises(BadRequest, match="may not use model 'mixed'") as refused:
                    camera.infer("mixed", MIXED)
                assert refused.value.status == 403
        with Client(f"grpc://{door.address}", token=SLOW) as slow, Client(url, token=SLOW) as again:
            slow.infer("echo", {"x": ROW})
            with pytest.raises(Refused, match="times a second") as refused:
                again.infer("echo", {"x": ROW})
            assert refused.value.retry_after_ms > 0


def test_what_is_no_token_is_told_before_anything_is_sent() -> None:
    for url in (f"http://{HOST}:1", f"grpc://{HOST}:1"):
        with pytest.raises(ValueError, match="no token"):
            Client(url, token="two words\r\n")


def test_a_server_with_a_certificate_is_asked_over_tls_by_those_who_trust_it(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    tls = Tls(certificate=str(certificate), key=str(key))
    with serving(tls=tls) as system, opened(tls=tls) as door:
        for url in (f"https://{HOST}:{system.port}", f"grpcs://{door.address}"):
            with Client(url, ca_file=str(certificate)) as client:
                np.testing.assert_array_equal(client.infer("echo", {"x": ROW}).outputs["x"], ROW)
        with Client(f"https://{HOST}:{system.port}") as client, pytest.raises(BadRequest, match="CA file"):
            client.infer("echo", {"x": ROW})


# What is asked again


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_there_is_unreachable(scheme: str) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"{scheme}://{HOST}:{port}", tries=2) as client, pytest.raises(Unreachable):
        client.infer("echo", {"x": ROW})


def test_a_stream_asks_again_what_was_refused_with_time_left_while_others_go_on() -> None:
    asked: list[float] = []

    def ask_all(ahead: Iterator[Question]) -> Generator[Streamed]:
        for index, question in enumerate(ahead):
            number = question.inputs["x"][0, 0]
            refusal = Refused("full", status=503, retry_after_ms=1)
            is_refused = number == 2 and number not in asked
            asked.append(number)
            answer = InferResult(model="echo", version="1", outputs={"x": question.inputs["x"]}, timing=None)
            yield Streamed(index=index, outcome=refusal if is_refused else answer)

    found = {one.index: one.result().outputs["x"][0, 0] for one in stream_with_tries(ask_all, rows(5), 3)}
    assert found == {number: 1 + number for number in range(5)}
    assert sorted(asked) == [1, 2, 2, 3, 4, 5]


def test_a_stream_hands_out_the_refusal_of_the_last_try(servers: Servers) -> None:
    questions = [Question(model=model, inputs={"x": ROW}, timeout_us=50_000_000) for model in ("refused", "echo")]
    for way in WAYS:
        with Client(servers.urls[way], tries=1) as client:
            kinds = {one.index: type(one.outcome) for one in client.stream(questions)}
        assert kinds == {0: Refused, 1: InferResult}


def test_an_address_over_grpc_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slotwise.client.client.find_spec", lambda _name: None)
    with pytest.raises(AddressError, match=r"slotwise\[grpc\]"):
        Client("grpc://localhost:8001")
