"""How a call over gRPC can end otherwise than with an answer: its status, its words, its metadata."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from slotwise.edges.oip.grpc.limits import GrpcLimits
from slotwise.edges.oip.grpc.service import NAME
from tests.conftest import WaitUntil
from tests.edges.echo import ENDINGS
from tests.edges.grpc.rig import GRPC_LIMITS, ROW, Door, opened, tensor

pytestmark = pytest.mark.live

Request = service_pb2.ModelInferRequest
STATUSES = {
    "late": grpc.StatusCode.DEADLINE_EXCEEDED,
    "refused": grpc.StatusCode.UNAVAILABLE,
    "overloaded": grpc.StatusCode.UNAVAILABLE,
    "expired": grpc.StatusCode.DEADLINE_EXCEEDED,
    "displaced": grpc.StatusCode.UNAVAILABLE,
    "removed": grpc.StatusCode.UNAVAILABLE,
    "faulty": grpc.StatusCode.INTERNAL,
    "lost": grpc.StatusCode.UNAVAILABLE,
}


@pytest.fixture
def raw(door: Door) -> Iterator[grpc.UnaryUnaryMultiCallable]:
    """ModelInfer by bytes."""
    with grpc.insecure_channel(door.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel.unary_unary(f"/{NAME}/ModelInfer")


def request_of(model: str, row: np.ndarray = ROW) -> bytes:
    request = Request(model_name=model, raw_input_contents=[row.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=row.shape)
    return request.SerializeToString()


def ended(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as failed:
        call()
    return failed.value


@pytest.mark.parametrize("model", ENDINGS)
def test_every_ending_has_its_status_and_the_servers_words(raw: grpc.UnaryUnaryMultiCallable, model: str) -> None:
    error = ended(lambda: raw(request_of(model)))
    assert error.code() is STATUSES[model]
    assert "after the deadline" in error.details() if model == "late" else f"always {model}" in error.details()
    metadata = dict(error.trailing_metadata())
    assert metadata["slotwise-reason"] == ENDINGS[model][1].value
    is_worth_a_retry = error.code() is grpc.StatusCode.UNAVAILABLE
    assert ("grpc-retry-pushback-ms" in metadata) == is_worth_a_retry


def test_a_refusal_says_when_to_come_again_and_what_was_predicted(raw: grpc.UnaryUnaryMultiCallable) -> None:
    metadata = dict(ended(lambda: raw(request_of("refused"))).trailing_metadata())
    assert metadata["grpc-retry-pushback-ms"] == metadata["retry-after-ms"] == "1200"
    assert metadata["retry-after"] == "2"
    assert metadata["slotwise-predicted-ms"] == "250.000"


def test_an_unknown_model_or_version_is_not_found(client: triton.InferenceServerClient) -> None:
    asks = (
        lambda: client.infer("nobody", [tensor("x", "FP32", ROW)]),
        lambda: client.infer("echo", [tensor("x", "FP32", ROW)], model_version="77"),
        lambda: client.get_model_metadata("nobody"),
        lambda: client.get_model_config("nobody"),
        lambda: client.get_inference_statistics("nobody"),
    )
    for ask in asks:
        with pytest.raises(InferenceServerException, match="unknown model") as refused:
            ask()
        assert refused.value.status() == "StatusCode.NOT_FOUND"


def test_a_model_that_is_not_ready_is_unavailable(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="LOADING") as refused:
        client.get_model_metadata("coming")
    assert refused.value.status() == "StatusCode.UNAVAILABLE"


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\x05no", b"\x0a\x02\xff\xfe"])
def test_bytes_that_are_no_message_are_an_invalid_argument(raw: grpc.UnaryUnaryMultiCallable, garbage: bytes) -> None:
    error = ended(lambda: raw(garbage))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "no ModelInferRequest" in error.details()


def test_a_request_that_does_not_fit_its_model_is_an_invalid_argument(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="the model takes") as refused:
        client.infer("echo", [tensor("x", "INT64", np.array([[1, 2, 3, 4]]))])
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("rows", [75_000, 150_000])
def test_what_is_too_large_for_the_server_or_the_door_exhausts_a_resource(
    raw: grpc.UnaryUnaryMultiCallable, rows: int
) -> None:
    error = ended(lambda: raw(request_of("echo", np.zeros((rows, 4), np.float32))))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_missed_deadline_is_told_and_frees_what_it_held(
    door: Door, client: triton.InferenceServerClient, wait_until: WaitUntil
) -> None:
    cancelled = len(door.system.controller.cancelled)
    with pytest.raises(InferenceServerException) as missed:
        client.infer("silent", [tensor("x", "FP32", ROW)], client_timeout=0.3)
    assert missed.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    wait_until(lambda: len(door.system.controller.cancelled) > cancelled)
    assert not door.system.controller.silent


def test_a_call_that_the_client_cancels_is_cancelled_at_the_engine(
    door: Door, raw: grpc.UnaryUnaryMultiCallable, wait_until: WaitUntil
) -> None:
    controller = door.system.controller
    call = raw.future(request_of("silent"))
    wait_until(lambda: controller.silent)
    (waiting,) = controller.silent
    call.cancel()
    wait_until(lambda: waiting in controller.cancelled)


def test_a_client_that_vanishes_cancels_what_it_has_asked(door: Door, wait_until: WaitUntil) -> None:
    controller = door.system.controller
    with grpc.insecure_channel(door.address) as channel:
        calls = [channel.unary_unary(f"/{NAME}/ModelInfer").future(request_of("silent")) for _ in range(5)]
        wait_until(lambda: len(controller.silent) == 5)
    wait_until(lambda: not controller.silent)
    assert all(call.code() is grpc.StatusCode.CANCELLED for call in calls)


def test_one_request_more_than_the_door_takes_is_refused_at_once(
    door: Door, raw: grpc.UnaryUnaryMultiCallable, wait_until: WaitUntil
) -> None:
    controller, limit = door.system.controller, GRPC_LIMITS.requests_max
    with ExitStack() as held:
        for _ in range(limit):
            held.callback(raw.future(request_of("silent")).cancel)
        wait_until(lambda: len(controller.silent) == limit)
        error = ended(lambda: raw(request_of("echo")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(error.trailing_metadata())["slotwise-reason"] == "queue_full"
    wait_until(lambda: not controller.silent)
    assert raw(request_of("echo"))


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (f"/{NAME}/Nothing", "Nothing"),
        ("/some.Other/Thing", "/some.Other/Thing"),
        ("/grpc.health.v1.Health/Nothing", "/grpc.health.v1.Health/Nothing"),
    ],
)
def test_a_method_that_there_is_not_is_refused_and_counted_with_its_name(
    door: Door, wait_until: WaitUntil, method: str, target: str
) -> None:
    with grpc.insecure_channel(door.address) as channel:
        assert ended(lambda: channel.unary_unary(method)(b"x")).code() is grpc.StatusCode.UNIMPLEMENTED
        stream = channel.stream_stream(method)
        assert ended(lambda: list(stream(iter([b"x", b"y"])))).code() is grpc.StatusCode.UNIMPLEMENTED
    wait_until(lambda: (501, target) in {(one.status, one.target) for one in door.refused})


def test_calls_beyond_the_limit_are_counted(wait_until: WaitUntil) -> None:
    with opened(GrpcLimits(calls_max=2)) as door, grpc.insecure_channel(door.address) as channel, ExitStack() as held:
        infer = channel.unary_unary(f"/{NAME}/ModelInfer")
        for _ in range(2):
            held.callback(infer.future(request_of("silent")).cancel)
        wait_until(lambda: len(door.system.controller.silent) == 2)
        assert ended(lambda: infer(request_of("echo"))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        wait_until(lambda: [(one.status, one.reason, one.count) for one in door.refused] == [(429, "queue_full", 1)])


@pytest.mark.parametrize(
    "noise", [bytes(range(256)) * 64, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 99]
)
def test_noise_on_the_wire_ends_its_connection_and_no_other(
    door: Door, raw: grpc.UnaryUnaryMultiCallable, noise: bytes
) -> None:
    pid = door.keeper.pid
    with socket.create_connection(("127.0.0.1", door.keeper.port), timeout=20) as wire:
        wire.sendall(noise)
        with contextlib.suppress(ConnectionResetError):
            while wire.recv(4096):
                pass
    assert raw(request_of("echo"))
    assert door.keeper.pid == pid
