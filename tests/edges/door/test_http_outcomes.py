"""How inferences end, as the client sees it: statuses, reasons, timing, deadlines, and models that cannot be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from slotwise.edges.oip.tls import Tls
from slotwise.engine.ports import ModelState, ModelStatus
from slotwise.facts.types import FOREVER_NS, TensorSpec
from tests.certificates import self_signed, trusting
from tests.edges.echo import ENDINGS, HOST, MS, System, make_spec, serving
from tests.edges.wire import LIMITS, VALUES, Wire, infer, infer_body, pattern, post, wide

pytestmark = pytest.mark.live


STATUS_OF = {
    "late": 504,
    "refused": 503,
    "overloaded": 503,
    "expired": 504,
    "displaced": 503,
    "removed": 503,
    "faulty": 500,
    "lost": 503,
}


@pytest.mark.parametrize("model", ENDINGS)
def test_each_ending_has_its_status_and_says_why(wire: Wire, model: str) -> None:
    answer = wire.ask(infer(model))
    assert answer.status == STATUS_OF[model]
    assert answer.text["reason"] == ENDINGS[model][1].value
    if answer.status == 503:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.text["retry_after_ms"] == int(answer.headers["retry-after-ms"])
    assert wire.ask(infer()).status == 200


def test_a_refusal_says_when_it_would_have_been_and_when_to_come_again(wire: Wire) -> None:
    answer = wire.ask(infer("refused"))
    assert answer.text["predicted_ms"] == 250.0
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1200")
    assert "this model is always refused" in str(answer.text["error"])


def test_a_late_answer_is_withheld_unless_the_door_is_told_to_deliver() -> None:
    with serving(late_answers=True) as system, Wire(system.address) as wire:
        answer = wire.ask(infer("late"))
        assert (answer.status, answer.values) == (200, VALUES)
        assert answer.text["parameters"] == {"slotwise_outcome": "late"}


def test_timing_is_told_on_request(wire: Wire) -> None:
    answer = wire.ask(infer("echo", infer_body(*VALUES, parameters={"slotwise_timing": True})))
    told = answer.text["parameters"]
    assert isinstance(told, dict)
    assert told.pop("slotwise_queue_us") >= 0
    number = told.pop("slotwise_request")
    assert told == {
        "slotwise_outcome": "in_time",
        "slotwise_wait_us": 2,
        "slotwise_execution_us": 3,
        "slotwise_executor": "cpu:0",
        "slotwise_batch_rows": 1,
        "slotwise_attempts": 1,
        "slotwise_prediction_error_us": 1,
    }
    assert wire.ask(infer("refused")).text["request"] == number + 1
    assert "parameters" not in wire.ask(infer()).text


def test_deadline_and_priority_are_the_requests_or_the_models(system: System, wire: Wire) -> None:
    wire.ask(infer("echo", infer_body(*VALUES, parameters={"timeout": 1500, "priority": 1})))
    asked = system.controller.requests[-1]
    assert (asked.deadline_ns - asked.arrival_ns, asked.priority) == (1_500_000, 1)
    wire.ask(infer())
    plain = system.controller.requests[-1]
    assert (plain.deadline_ns - plain.arrival_ns, plain.priority) == (100 * MS, 5)


@pytest.mark.parametrize("given", [-1, 1.5, "5", True, None, 10**30])
@pytest.mark.parametrize("name", ["timeout", "priority"])
def test_a_bad_timeout_or_priority_is_told_by_its_name(wire: Wire, name: str, given: object) -> None:
    answer = wire.ask(infer("echo", infer_body(*VALUES, parameters={name: given})))
    assert answer.status == 400
    assert f"parameters.{name}" in str(answer.text["error"])
    assert wire.ask(infer()).values == VALUES


def test_a_priority_beyond_the_lowest_is_bad_and_0_means_the_models(system: System, wire: Wire) -> None:
    for priority in (10, 99):
        answer = wire.ask(infer("echo", infer_body(*VALUES, parameters={"priority": priority})))
        assert (answer.status, "parameters.priority" in str(answer.text["error"])) == (400, True)
    assert wire.ask(infer("echo", infer_body(*VALUES, parameters={"priority": 0, "timeout": 0}))).values == VALUES
    assert system.controller.requests[-1].priority == 5


def test_the_longest_timeout_that_is_taken_does_not_run_over(system: System, wire: Wire) -> None:
    assert wire.ask(infer("echo", infer_body(*VALUES, parameters={"timeout": (1 << 62) - 1}))).values == VALUES
    assert system.controller.requests[-1].deadline_ns == FOREVER_NS


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nobody/infer", 404),
        ("/v2/models/echo/versions/9/infer", 404),
        ("/v2/models/coming/infer", 503),
        ("/v2/models/broken/infer", 503),
        ("/v2/models/echo/infer/", 404),
        ("/v3", 404),
    ],
)
def test_an_inference_of_what_cannot_be_asked_says_so(wire: Wire, path: str, status: int) -> None:
    answer = wire.ask(post(path, infer_body(*VALUES)))
    assert answer.status == status
    assert answer.text["error"]
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


def test_another_method_on_the_hot_route_is_told_the_right_one(wire: Wire) -> None:
    answer = wire.ask(b"GET /v2/models/echo/infer HTTP/1.1\r\nHost: here\r\n\r\n")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_a_model_that_is_replaced_is_checked_against_its_new_spec() -> None:
    with serving(LIMITS) as system, Wire(system.address) as wire:
        assert wire.ask(infer("echo")).values == VALUES
        narrow = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))
        spec = make_spec("echo", "2", inputs=(narrow,), outputs=(narrow,))
        system.models.rows.append(ModelStatus(name="echo", version="2", state=ModelState.READY, spec=spec))
        assert wire.ask(infer("echo")).status == 400
        assert wire.ask(infer("echo", infer_body(1, 2))).values == [1.0, 2.0]


def test_requests_over_tls_are_answered(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with serving(LIMITS, tls=Tls(certificate=str(certificate), key=str(key))) as system, Wire(system.address) as wire:
        wire.socket = trusting(certificate).wrap_socket(wire.socket, server_hostname=HOST)
        assert wire.ask(infer()).values == VALUES
        assert wire.ask(wide(pattern(500_000))).body.endswith(pattern(500_000))
        assert wire.ask(b"NONSENSE\r\n\r\n").status == 400
