"""Many requests within one call: answered one by one, each with its id, whatever becomes of the others."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.conftest import WaitUntil
from tests.edges.grpc.rig import GRPC_LIMITS, Door, Reply, Stream, tensor

pytestmark = pytest.mark.live

WAIT_S_MAX = 60.0


@pytest.fixture
def stream(door: Door) -> Iterator[Stream]:
    with grpc.insecure_channel(door.address) as channel:
        found = Stream(channel)
        yield found
        found.end()


def ids(replies: Iterable[Reply]) -> list[str]:
    return [reply.infer_response.id for reply in replies]


def test_the_standard_client_has_fifty_requests_under_way_in_one_stream(
    door: Door, client: triton.InferenceServerClient, wait_until: WaitUntil
) -> None:
    told: queue.Queue[tuple[triton.InferResult | None, Exception | None]] = queue.Queue()
    client.start_stream(lambda result, error: told.put((result, error)))
    for number in range(50):
        row = np.full((1, 4), number, np.float32)
        client.async_stream_infer("silent", [tensor("x", "FP32", row)], request_id=str(number))
    wait_until(lambda: len(door.system.controller.silent) == 50)
    door.system.release()
    answers = [told.get(timeout=WAIT_S_MAX) for _ in range(50)]
    client.stop_stream()
    seen = set()
    for result, error in answers:
        assert error is None
        assert result is not None
        name = result.get_response().id
        seen.add(name)
        assert result.as_numpy("x").tolist() == [[float(name)] * 4]
    assert len(seen) == 50


def test_answers_come_in_the_order_in_which_they_are_ready(door: Door, stream: Stream, wait_until: WaitUntil) -> None:
    stream.send("silent", "slow")
    wait_until(lambda: door.system.controller.silent)
    stream.send("echo", "fast")
    assert ids(stream.read(1)) == ["fast"]
    door.system.release()
    assert ids(stream.read(1)) == ["slow"]


def test_an_error_ends_its_request_and_not_the_stream(stream: Stream) -> None:
    for model in ("nobody", "refused", "echo"):
        stream.send(model, model)
    told = {reply.infer_response.id: reply.error_message for reply in stream.read(3)}
    assert "unknown model" in told["nobody"]
    assert "always refused" in told["refused"]
    assert told["echo"] == ""
    stream.send_garbage()
    assert "no ModelInferRequest" in stream.read(1)[0].error_message
    stream.send("echo", "again")
    assert ids(stream.read(1)) == ["again"]


@pytest.mark.parametrize("is_asked", [True, False])
def test_every_answer_says_that_it_is_the_last_to_its_request(stream: Stream, is_asked: bool) -> None:
    stream.send("echo", "mine", is_final_asked=is_asked)
    (answer,) = stream.read(1)
    assert answer.infer_response.parameters["triton_final_response"].bool_param


def test_what_was_asked_before_the_client_ended_its_side_is_answered(
    door: Door, stream: Stream, wait_until: WaitUntil
) -> None:
    stream.send("silent", "last")
    stream.end()
    wait_until(lambda: door.system.controller.silent)
    door.system.release()
    assert ids(stream.call) == ["last"]
    assert stream.call.code() is grpc.StatusCode.OK


def test_no_more_is_read_while_a_stream_has_its_limit_under_way(
    door: Door, stream: Stream, wait_until: WaitUntil
) -> None:
    controller, limit = door.system.controller, GRPC_LIMITS.stream_requests_max
    for number in range(limit + 5):
        stream.send("silent", str(number))
    wait_until(lambda: len(controller.silent) == limit)
    door.system.release()
    assert len(stream.read(limit)) == limit
    door.system.release()
    assert len(stream.read(5)) == 5


def test_a_stream_that_is_cancelled_cancels_all_that_is_under_way(
    door: Door, stream: Stream, wait_until: WaitUntil
) -> None:
    controller = door.system.controller
    for number in range(10):
        stream.send("silent", str(number))
    wait_until(lambda: len(controller.silent) == 10)
    waiting = set(controller.silent)
    stream.call.cancel()
    wait_until(lambda: waiting <= set(controller.cancelled))
