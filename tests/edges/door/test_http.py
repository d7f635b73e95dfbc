"""The HTTP door as the standard client sees it, unchanged, and as a plain one does."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from slotwise.edges.oip.limits import Limits
from tests.conftest import WaitUntil
from tests.edges.echo import System, serving
from tests.edges.wire import Answer, Wire, infer, post

pytestmark = pytest.mark.live

ROW = np.array([[1, 2, 3, 4]], dtype=np.float32)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with serving() as found:
        yield found


@pytest.fixture
def client(system: System) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{system.port}") as found:
        yield found


def get(wire: Wire, path: str) -> Answer:
    return wire.ask(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())


def tensor(name: str, datatype: str, values: np.ndarray, binary: bool = True) -> triton.InferInput:
    found = triton.InferInput(name, list(values.shape), datatype)
    found.set_data_from_numpy(values, binary_data=binary)
    return found


def texts(answer: triton.InferResult) -> list[str]:
    """The words of output `t`, which the client gives as bytes or as text, after the form they came in."""
    return [word if isinstance(word, str) else bytes(word).decode() for word in answer.as_numpy("t")]


# The standard client


def test_the_client_finds_the_server_live_and_its_models_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo")
    assert client.is_model_ready("echo", "1")
    assert not client.is_model_ready("echo", "9")
    assert not client.is_model_ready("coming")


def test_the_client_reads_metadata_and_configuration(client: triton.InferenceServerClient) -> None:
    server = client.get_server_metadata()
    assert server["name"] == "slotwise"
    assert {"binary_tensor_data", "model_configuration", "model_repository", "statistics"} <= set(server["extensions"])
    x = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
    assert client.get_model_metadata("echo") == {
        "name": "echo",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [x],
        "outputs": [x],
    }
    config = client.get_model_config("echo")
    assert (config["max_batch_size"], config["dynamic_batching"]) == (8, {})
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    assert config["parameters"]["slo_ms"] == {"string_value": "100"}
    family = client.get_model_config("family")["parameters"]
    assert family["accuracy"] == {"string_value": "0.9"}
    assert json.loads(family["variants"]["string_value"]) == [
        {"accuracy": 0.5, "model": "echo"},
        {"accuracy": 0.4, "file": "s"},
    ]
    text = client.get_model_config("text")
    assert (text["max_batch_size"], "dynamic_batching" in text) == (0, False)
    assert text["input"] == [{"name": "t", "data_type": "TYPE_STRING", "dims": [-1]}]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_the_client_infers_in_json_and_binary(
    client: triton.InferenceServerClient, binary_in: bool, binary_out: bool
) -> None:
    rows = np.vstack([ROW, ROW * 2])
    answer = client.infer(
        "echo",
        [tensor("x", "FP32", rows, binary_in)],
        outputs=[triton.InferRequestedOutput("x", binary_data=binary_out)],
        request_id="17",
    )
    assert np.array_equal(answer.as_numpy("x"), rows)
    assert answer.get_response()["id"] == "17"
    assert answer.get_response()["model_version"] == "2"


def test_the_client_infers_tensors_of_text(client: triton.InferenceServerClient) -> None:
    words = np.array(["a", "", "ünï", "x" * 300], dtype=object)
    for binary in (True, False):
        answer = client.infer("text", [tensor("t", "BYTES", words, binary)])
        assert texts(answer) == list(words)


def test_the_client_infers_halves(client: triton.InferenceServerClient) -> None:
    halves = np.arange(5, dtype=np.float16) / 3
    assert np.array_equal(client.infer("half", [tensor("h", "FP16", halves)]).as_numpy("h"), halves)


def test_the_client_mixes_datatypes_and_forms(client: triton.InferenceServerClient) -> None:
    given = {
        "i": np.array([-(1 << 62), 7], dtype=np.int64),
        "t": np.array(["one", "two"], dtype=object),
        "b": np.array([[True, False]]),
        "d": np.array([1e300, -0.5]),
    }
    inputs = [
        tensor("i", "INT64", given["i"], binary=False),
        tensor("t", "BYTES", given["t"]),
        tensor("b", "BOOL", given["b"], binary=False),
        tensor("d", "FP64", given["d"]),
    ]
    outputs = [triton.InferRequestedOutput(name, binary_data=name in "ib") for name in "dbti"]
    answer = client.infer("mixed", inputs, outputs=outputs)
    for name in "ibd":
        assert np.array_equal(answer.as_numpy(name), given[name])
    assert texts(answer) == ["one", "two"]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_the_client_compresses_both_ways(client: triton.InferenceServerClient, coding: str) -> None:
    rows = np.repeat(ROW, 8, axis=0)
    answer = client.infer(
        "echo",
        [tensor("x", "FP32", rows, binary=False)],
        outputs=[triton.InferRequestedOutput("x", binary_data=False)],
        request_compression_algorithm=coding,
        response_compression_algorithm="gzip",
    )
    assert np.array_equal(answer.as_numpy("x"), rows)


def test_the_client_sends_timeout_and_priority(client: triton.InferenceServerClient, system: System) -> None:
    client.infer("echo", [tensor("x", "FP32", ROW)], timeout=2_000_000, priority=3)
    asked = system.controller.requests[-1]
    assert (asked.deadline_ns - asked.arrival_ns, asked.priority) == (2_000_000_000, 3)


def test_the_client_is_told_what_was_wrong(client: triton.InferenceServerClient) -> None:
    cases = {
        "nobody": ("404", "there is no model 'nobody'"),
        "half": ("400", "has no input 'x'"),
        "refused": ("503", "always refused"),
        "late": ("504", "after the deadline"),
    }
    for model, (status, words) in cases.items():
        with pytest.raises(InferenceServerException, match=words) as caught:
            client.infer(model, [tensor("x", "FP32", ROW)])
        assert caught.value.status() == status


def test_the_client_reads_statistics(system: System, client: triton.InferenceServerClient) -> None:
    before = client.get_inference_statistics("echo")["model_stats"][0]
    client.infer("echo", [tensor("x", "FP32", np.vstack([ROW, ROW]))])
    (after,) = client.get_inference_statistics("echo")["model_stats"]
    assert after["inference_count"] - before["inference_count"] == 2
    success = "inference_stats", "success", "count"
    assert after[success[0]][success[1]][success[2]] - before[success[0]][success[1]][success[2]] == 1
    assert after["inference_stats"]["compute_infer"]["ns"] > 0
    phases = ("compute_input", "compute_infer", "compute_output")
    assert len({after["inference_stats"][phase]["count"] for phase in phases}) == 1
    names = {(one["name"], one["version"]) for one in client.get_inference_statistics()["model_stats"]}
    assert {("echo", "1"), ("echo", "2"), ("late", "1")} <= names


def test_the_client_lists_loads_and_unloads(client: triton.InferenceServerClient) -> None:
    index = client.get_model_repository_index()
    assert {"name": "coming", "version": "1", "state": "LOADING", "reason": ""} in index
    assert {"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "bad file"} in index
    client.unload_model("half", unload_dependents=True)
    assert not client.is_model_ready("half")
    with pytest.raises(InferenceServerException, match="there is no model 'half'"):
        client.infer("half", [tensor("h", "FP16", np.zeros(1, np.float16))])
    client.load_model("half")
    assert client.is_model_ready("half")
    for fault in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="nobody"):
            fault("nobody")
    with pytest.raises(InferenceServerException, match="config cannot be given"):
        client.load_model("half", config="{}")


# A plain client


def test_health_replies_can_be_read_as_json_too(wire: Wire) -> None:
    assert get(wire, "/v2/health/live").text == {"live": True}
    assert get(wire, "/v2/health/ready").text == {"live": True, "ready": True}
    assert get(wire, "/v2/models/echo/ready").text == {"name": "echo", "ready": True}
    assert get(wire, "/v2").text == get(wire, "/v2/").text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/v2/nope", 404),
        ("/v2/models/nobody", 404),
        ("/v2/models/nobody/config", 404),
        ("/v2/models/nobody/stats", 404),
        ("/v2/models/echo/versions/7", 404),
        ("/v2/models/echo/versions/latest/ready", 404),
        ("/v2/models/coming/ready", 503),
        ("/v2/models/broken", 503),
    ],
)
def test_what_is_not_there_is_an_error_in_json(wire: Wire, path: str, status: int) -> None:
    answer = get(wire, path)
    assert answer.status == status
    assert answer.text["error"]
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("POST", "/v2", "GET"), ("GET", "/v2/repository/index", "POST"), ("DELETE", "/v2/models/echo", "GET")],
)
def test_a_wrong_method_is_told_the_right_one(wire: Wire, method: str, path: str, allowed: str) -> None:
    answer = wire.ask(f"{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    assert answer.status == 405
    assert allowed in answer.headers["allow"]
    assert "does not go with" in str(answer.text["error"])


def test_the_index_can_be_of_ready_models_only(wire: Wire) -> None:
    whole, ready = (json.loads(wire.ask(post("/v2/repository/index", body)).body) for body in (b"", b'{"ready": true}'))
    assert {line["state"] for line in ready} == {"READY"}
    assert {line["name"] for line in whole} - {line["name"] for line in ready} == {"coming", "broken"}


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"ready": 1}', b"\xff"])
def test_a_management_body_that_is_wrong_is_refused(wire: Wire, body: bytes) -> None:
    assert wire.ask(post("/v2/repository/index", body)).status == 400


def test_a_management_body_beyond_the_limit_is_refused() -> None:
    with serving(Limits(management_bytes_max=100)) as system, Wire(system.address) as wire:
        assert wire.ask(post("/v2/repository/index", b" " * 101)).status == 413


def test_the_door_counts_its_replies(wire: Wire, system: System, wait_until: WaitUntil) -> None:
    before = system.door.statistics().replies.get(200, 0)
    assert wire.ask(infer()).status == 200
    wait_until(lambda: system.door.statistics().replies[200] == before + 1)
    assert system.door.statistics().connections >= 1
    assert system.door.statistics().requests_in_flight == 0
