"""The gRPC door as the standard client sees it, unchanged, and beside the HTTP door of the same server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException, shared_memory

from slotwise.edges.logs.settings import Logs
from slotwise.edges.logs.writer import ThreadedLogs
from slotwise.edges.oip.grpc.service import NAME
from slotwise.edges.oip.limits import Limits
from slotwise.edges.oip.recording import Recording
from slotwise.edges.traces.sampling import Sampling
from tests.edges.grpc.rig import ROW, Door, opened, tensor

pytestmark = pytest.mark.live

KEY = f"/slotwise-grpc-{os.getpid()}"


@pytest.fixture
def http(door: Door) -> Iterator[tritonclient.http.InferenceServerClient]:
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{door.system.port}") as found:
        yield found


@pytest.fixture
def channel(door: Door) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(door.address) as found:
        yield found


def infer(channel: grpc.Channel, request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    call = channel.unary_unary(
        f"/{NAME}/ModelInfer",
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )
    return call(request)


# Health, metadata, repository


def test_the_client_finds_the_server_live_and_its_models_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo", "1")
    assert not client.is_model_ready("echo", "9")
    assert not client.is_model_ready("coming")


@pytest.mark.parametrize("service", ["", NAME])
def test_the_health_service_knows_the_server_and_the_inference_service(channel: grpc.Channel, service: str) -> None:
    checked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    assert checked.status == health_pb2.HealthCheckResponse.SERVING


def test_metadata_configuration_and_index_are_those_of_http(
    client: triton.InferenceServerClient, http: tritonclient.http.InferenceServerClient
) -> None:
    assert plain(client.get_server_metadata(as_json=True)) == http.get_server_metadata()
    assert plain(client.get_model_metadata("mixed", as_json=True)) == http.get_model_metadata("mixed")
    config, expected = client.get_model_config("echo", as_json=True)["config"], http.get_model_config("echo")
    assert (config["max_batch_size"], config["backend"]) == (expected["max_batch_size"], expected["backend"])
    assert plain(config["input"]) == expected["input"]
    assert config["parameters"]["slo_ms"] == expected["parameters"]["slo_ms"]
    assert "dynamic_batching" in config
    listed = client.get_model_repository_index(as_json=True)["models"]
    assert [(line["name"], line["state"]) for line in listed] == [
        (line["name"], line["state"]) for line in http.get_model_repository_index()
    ]


def plain(document: object) -> object:
    """JSON as protobuf writes it, with the whole numbers that it makes texts of turned back."""
    if isinstance(document, dict):
        return {name: item if name in ("version", "versions") else plain(item) for name, item in document.items()}
    if isinstance(document, list):
        return [plain(item) for item in document]
    if isinstance(document, str) and document.lstrip("-").isdigit():
        return int(document)
    return document


def test_statistics_of_one_model_and_of_all_are_told(client: triton.InferenceServerClient) -> None:
    client.infer("echo", [tensor("x", "FP32", ROW)], model_version="1")
    one = client.get_inference_statistics("echo", "1").model_stats
    assert [(stats.name, stats.version) for stats in one] == [("echo", "1")]
    assert one[0].inference_stats.success.count >= 1
    assert len(client.get_inference_statistics().model_stats) > 1


def test_a_model_is_unloaded_and_loaded_again(client: triton.InferenceServerClient) -> None:
    client.unload_model("wide")
    assert not client.is_model_ready("wide")
    client.load_model("wide")
    assert client.is_model_ready("wide")


def test_shared_memory_is_answered_as_the_server_has_it(client: triton.InferenceServerClient) -> None:
    assert not client.get_system_shared_memory_status().regions
    assert not client.get_cuda_shared_memory_status().regions
    with pytest.raises(InferenceServerException, match="shared memory of clients is off") as refused:
        client.register_system_shared_memory("mine", "/mine", 64)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException) as absent:
        client.register_cuda_shared_memory("mine", b"aGFuZGxl", 0, 64)
    assert absent.value.status() == "StatusCode.UNIMPLEMENTED"
    client.unregister_system_shared_memory()


def test_what_is_recorded_is_told_and_changed_as_over_http(tmp_path: Path) -> None:
    logs = ThreadedLogs(Logs(folder=str(tmp_path)))
    recording = Recording(tracing=Sampling(0.01), logging=logs)
    with opened(recording=recording) as door, triton.InferenceServerClient(door.address) as client:
        assert {"trace", "logging"} <= set(client.get_server_metadata().extensions)
        changed = client.update_trace_settings("echo", {"trace_rate": "7", "trace_level": ["OFF"]}, as_json=True)
        assert changed == client.get_trace_settings("echo", as_json=True)
        assert changed["settings"]["trace_rate"] == {"value": ["7"]}
        assert client.get_trace_settings(as_json=True)["settings"]["trace_rate"] == {"value": ["100"]}
        assert client.update_trace_settings("echo", {"trace_rate": None}).settings["trace_rate"].value == ["100"]
        changed = client.update_log_settings({"log_info": False, "log_verbose_level": 0}, as_json=True)
        assert changed["settings"]["log_info"] == {"bool_param": False}
        assert changed["settings"]["log_file"] == {"string_param": str(tmp_path)}
        with pytest.raises(InferenceServerException, match="log_file: it cannot be changed") as refused:
            client.update_log_settings({"log_file": "elsewhere"})
        assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    logs.close()


def test_reflection_tells_every_service_and_its_messages(channel: grpc.Channel) -> None:
    ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    wanted = [reflection_pb2.ServerReflectionRequest(list_services="")]
    [listed] = ask(iter(wanted))
    names = [service.name for service in listed.list_services_response.service]
    assert {NAME, "grpc.health.v1.Health"} <= set(names)
    for name in names:
        [told] = ask(iter([reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)]))
        [file] = map(FileDescriptorProto.FromString, told.file_descriptor_response.file_descriptor_proto)
        assert name in [f"{file.package}.{service.name}" for service in file.service]


def test_a_tensor_goes_and_comes_back_through_shared_memory() -> None:
    memory = shared_memory.create_shared_memory_region("mine", KEY, 64)
    try:
        shared_memory.set_shared_memory_region(memory, [ROW])
        with opened(server_limits=Limits(shared_memory=True)) as door:
            client = triton.InferenceServerClient(door.address)
            client.register_system_shared_memory("mine", KEY, 64)
            assert client.get_system_shared_memory_status().regions["mine"].byte_size == 64
            given, wanted = triton.InferInput("x", [1, 4], "FP32"), triton.InferRequestedOutput("x")
            given.set_shared_memory("mine", 16)
            wanted.set_shared_memory("mine", 16, offset=32)
            answer = client.infer("echo", [given], outputs=[wanted]).get_response()
            client.close()
        assert not answer.outputs[0].parameters
        assert list(answer.raw_output_contents) == [b""]
        assert np.array_equal(shared_memory.get_contents_as_numpy(memory, np.float32, [1, 4], offset=32), ROW)
    finally:
        shared_memory.destroy_shared_memory_region(memory)


# Inference

HALVES = np.array([0.5, -2, 65504], dtype=np.float16)
WORDS = np.array([b"one", "zwei-\u00e4".encode(), b"", b"\x00\x7f"], dtype=object)
MIXED = {
    "i": ("INT64", np.array([-(2**63), 2**63 - 1])),
    "t": ("BYTES", WORDS),
    "b": ("BOOL", np.array([[True, False], [False, False]])),
    "d": ("FP64", np.array([1e300, -0.0, np.inf])),
}


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("echo", {"x": ("FP32", ROW)}),
        ("half", {"h": ("FP16", HALVES)}),
        ("text", {"t": ("BYTES", WORDS)}),
        ("wide", {"w": ("UINT8", np.arange(200_000, dtype=np.uint8))}),
        ("mixed", MIXED),
    ],
)
def test_an_answer_is_that_of_http(
    client: triton.InferenceServerClient,
    http: tritonclient.http.InferenceServerClient,
    model: str,
    inputs: dict[str, tuple[str, NDArray[np.generic]]],
) -> None:
    answer = client.infer(model, [tensor(name, *given) for name, given in inputs.items()], request_id="mine")
    asked = []
    for name, (datatype, array) in inputs.items():
        asked.append(tritonclient.http.InferInput(name, list(array.shape), datatype))
        asked[-1].set_data_from_numpy(array)
    expected = http.infer(model, asked)
    for name, (_, array) in inputs.items():
        assert np.array_equal(answer.as_numpy(name), expected.as_numpy(name))
        assert np.array_equal(answer.as_numpy(name), array)
    assert answer.get_response().id == "mine"


def test_only_the_outputs_that_are_named_come_back_in_that_order(client: triton.InferenceServerClient) -> None:
    wanted = [triton.InferRequestedOutput("d"), triton.InferRequestedOutput("i")]
    answer = client.infer("mixed", [tensor(name, *given) for name, given in MIXED.items()], outputs=wanted)
    assert [output.name for output in answer.get_response().outputs] == ["d", "i"]
    assert np.array_equal(answer.as_numpy("i"), MIXED["i"][1])


def test_typed_contents_are_as_good_as_raw_ones(channel: grpc.Channel) -> None:
    request = service_pb2.ModelInferRequest(model_name="mixed", id="typed")
    request.inputs.add(name="i", datatype="INT64", shape=[2]).contents.int64_contents.extend([-1, 2**40])
    request.inputs.add(name="t", datatype="BYTES", shape=[2]).contents.bytes_contents.extend([b"a", b"\x7f\x00"])
    request.inputs.add(name="b", datatype="BOOL", shape=[1, 2]).contents.bool_contents.extend([True, False])
    request.inputs.add(name="d", datatype="FP64", shape=[1]).contents.fp64_contents.append(2.5)
    answer = infer(channel, request)
    assert answer.id == "typed"
    assert list(answer.raw_output_contents) == [
        np.array([-1, 2**40]).tobytes(),
        b"\x01\x00\x00\x00a\x02\x00\x00\x00\x7f\x00",
        b"\x01\x00",
        np.array([2.5]).tobytes(),
    ]


def test_parameters_go_on_and_those_of_the_answer_come_back(door: Door, client: triton.InferenceServerClient) -> None:
    parameters = {"slotwise_timing": True, "unknown": "passed over"}
    answer = client.infer("echo", [tensor("x", "FP32", ROW)], priority=3, timeout=70_000_000, parameters=parameters)
    told = answer.get_response().parameters
    assert told["slotwise_outcome"].string_param == "in_time"
    assert told["slotwise_execution_us"].int64_param == 3
    request = door.system.controller.requests[-1]
    assert request.priority == 3
    assert request.deadline_ns - request.arrival_ns == 70_000_000_000


@pytest.mark.parametrize(("timeout_us", "client_s", "whose"), [(30_000_000, 60.0, "timeout"), (0, 40.0, "gRPC")])
def test_the_nearer_of_timeout_and_grpc_deadline_is_the_deadline(
    door: Door, client: triton.InferenceServerClient, timeout_us: int, client_s: float, whose: str
) -> None:
    client.infer("echo", [tensor("x", "FP32", ROW)], timeout=timeout_us or None, client_timeout=client_s)
    request = door.system.controller.requests[-1]
    allowed_s = (request.deadline_ns - request.arrival_ns) / 1e9
    # On the wire the time left is rounded up, and the door reads it a moment after the arrival.
    assert allowed_s == 30.0 if whose == "timeout" else allowed_s == pytest.approx(40.0, abs=1.0)
