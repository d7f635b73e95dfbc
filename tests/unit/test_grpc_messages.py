"""Requests and answers between gRPC and the protocol's binary form, without a wire."""

from __future__ import annotations

import json
import struct

import grpc
import numpy as np
import pytest

from slotwise.edges.oip.datatypes import SIZES
from slotwise.edges.oip.errors import WireError
from slotwise.edges.oip.grpc import inference_pb2 as pb
from slotwise.edges.oip.grpc.errors import CallError, error_of
from slotwise.edges.oip.grpc.messages import CONTENTS, answer_of, model_path, question_of

EXTREMES = {
    "BOOL": [True, False],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "FP32": [1.5, -0.0],
    "FP64": [1e300, -2.25],
}
DTYPES = {"BOOL": np.bool_, "FP32": np.float32, "FP64": np.float64}


def request_of(datatype: str, values: list[object], field: str = "") -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[len(values)])
    getattr(tensor.contents, field or CONTENTS[datatype][0]).extend(values)
    return request


def head_of(request: pb.ModelInferRequest) -> dict[str, object]:
    return json.loads(question_of(request, None).head)


@pytest.mark.parametrize("datatype", EXTREMES)
def test_typed_contents_become_the_bytes_of_their_datatype(datatype: str) -> None:
    (data,) = question_of(request_of(datatype, EXTREMES[datatype]), None).tensors
    dtype = DTYPES.get(datatype) or np.dtype(datatype.lower())
    assert data == np.array(EXTREMES[datatype], dtype=dtype).tobytes()


def test_every_datatype_has_contents_but_the_two_that_have_no_field() -> None:
    assert SIZES.keys() - CONTENTS.keys() == {"FP16", "BF16"}


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (request_of("INT8", [128]), "cannot hold"),
        (request_of("UINT16", [2**16]), "cannot hold"),
        (request_of("FP16", [1.0], "fp32_contents"), "send it in raw_input_contents"),
        (request_of("INT64", [1], "int_contents"), "go into int64_contents"),
    ],
)
def test_contents_that_do_not_fit_are_refused(request_: pb.ModelInferRequest, complaint: str) -> None:
    with pytest.raises(CallError, match=complaint) as refused:
        question_of(request_, None)
    assert refused.value.status is grpc.StatusCode.INVALID_ARGUMENT


def test_raw_and_typed_data_do_not_mix_and_raw_data_is_counted() -> None:
    request = request_of("FP32", [1.0])
    request.raw_input_contents.append(b"1234")
    with pytest.raises(CallError, match="send one of them"):
        question_of(request, None)
    request.inputs[0].ClearField("contents")
    request.raw_input_contents.append(b"1234")
    with pytest.raises(CallError, match="2 raw_input_contents for 1 inputs"):
        question_of(request, None)


def test_an_input_in_shared_memory_has_no_raw_data() -> None:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"abcd"])
    there = request.inputs.add(name="a", datatype="FP32", shape=[1])
    there.parameters["shared_memory_region"].string_param = "mine"
    there.parameters["shared_memory_byte_size"].int64_param = 4
    request.inputs.add(name="b", datatype="FP32", shape=[1])
    first, second = head_of(request)["inputs"]
    assert first["parameters"] == {"shared_memory_region": "mine", "shared_memory_byte_size": 4}
    assert second["parameters"] == {"binary_data_size": 4}


def test_inputs_to_be_made_bring_no_data_and_announce_none() -> None:
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[2])
    request.parameters["slotwise_inputs"].string_param = "executor"
    assert question_of(request, None).tensors == []
    assert head_of(request)["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [2], "parameters": {}}]
    request.raw_input_contents.append(bytes(8))
    assert question_of(request, None).tensors == [bytes(8)], "the server says what is wrong with it"


def test_a_region_without_a_value_does_not_move_the_data_of_others() -> None:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"abcd", b"efgh"])
    request.inputs.add(name="a", datatype="FP32", shape=[1]).parameters["shared_memory_region"].SetInParent()
    request.inputs.add(name="b", datatype="FP32", shape=[1])
    assert question_of(request, None).tensors == [b"abcd", b"efgh"]
    assert [given["parameters"] for given in head_of(request)["inputs"]] == [{"binary_data_size": 4}] * 2


def test_parameters_of_every_kind_go_on_and_those_of_the_form_are_ours() -> None:
    request = pb.ModelInferRequest(model_name="m", id="7")
    request.parameters["flag"].bool_param = True
    request.parameters["big"].uint64_param = 2**64 - 1
    request.parameters["real"].double_param = 0.5
    request.parameters["text"].string_param = "\u00e4"
    request.parameters["binary_data_output"].bool_param = False
    request.parameters["nothing"].SetInParent()
    output = request.outputs.add(name="y")
    output.parameters["binary_data"].bool_param = False
    output.parameters["classification"].int64_param = 3
    head = head_of(request)
    assert head["parameters"] == {
        "flag": True,
        "big": 2**64 - 1,
        "real": 0.5,
        "text": "\u00e4",
        "binary_data_output": True,
    }
    assert head["outputs"] == [{"name": "y", "parameters": {"classification": 3}}]


def test_what_differs_from_request_to_request_is_no_part_of_the_head() -> None:
    one, other = pb.ModelInferRequest(model_name="m", id="7"), pb.ModelInferRequest(model_name="m", id="8")
    one.parameters["timeout"].int64_param = 400
    assert question_of(one, 300).head == question_of(other, None).head


@pytest.mark.parametrize(
    ("timeout", "left_us", "told"),
    [
        (None, None, 0),
        (None, 500, 500),
        (0, 500, 500),
        (400, 500, 400),
        (600, 500, 500),
        (600, None, 600),
        (600, -3, 1),
    ],
)
def test_the_nearer_deadline_goes_on(timeout: int | None, left_us: int | None, told: int) -> None:
    request = pb.ModelInferRequest(model_name="m")
    if timeout is not None:
        request.parameters["timeout"].int64_param = timeout
    assert question_of(request, left_us).timeout_us == told


@pytest.mark.parametrize("timeout", [-5, 2**62])
def test_a_timeout_that_is_none_is_left_for_the_server_to_say_so(timeout: int) -> None:
    request = pb.ModelInferRequest(model_name="m")
    request.parameters["timeout"].int64_param = timeout
    assert head_of(request)["parameters"]["timeout"] == timeout
    assert question_of(request, 500).timeout_us == 0


def test_a_model_is_found_whatever_its_name_holds() -> None:
    assert model_path("a b/c?", "1") == b"/v2/models/a%20b%2Fc%3F/versions/1"
    assert model_path("m", "") == b"/v2/models/m"
    with pytest.raises(CallError, match="no model is named"):
        model_path("", "1")
    with pytest.raises(CallError, match="at most 1000 characters"):
        model_path("m" * 900, "1" * 101)


def test_an_answer_keeps_its_data_its_parameters_and_an_empty_place_for_what_lies_in_shared_memory() -> None:
    head = {
        "model_name": "m",
        "model_version": "2",
        "parameters": {"slotwise_outcome": "late", "slotwise_queue_us": 7, "share": 0.5, "flag": False},
        "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
            {"name": "b", "datatype": "FP32", "shape": [1], "parameters": {"shared_memory_region": "mine"}},
            {"name": "c", "datatype": "INT8", "shape": [2], "parameters": {"binary_data_size": 2}},
        ],
    }
    told = json.dumps(head).encode()
    answer = answer_of(told, memoryview(struct.pack("<fbb", 1.5, 1, -1)), "q")
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "2", "q")
    assert list(answer.raw_output_contents) == [struct.pack("<f", 1.5), b"", b"\x01\xff"]
    assert answer.outputs[1].parameters["shared_memory_region"].string_param == "mine"
    kinds = {name: told.WhichOneof("parameter_choice") for name, told in answer.parameters.items()}
    assert kinds == {
        "slotwise_outcome": "string_param",
        "slotwise_queue_us": "int64_param",
        "share": "double_param",
        "flag": "bool_param",
    }


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, grpc.StatusCode.INVALID_ARGUMENT),
        (401, grpc.StatusCode.UNAUTHENTICATED),
        (403, grpc.StatusCode.PERMISSION_DENIED),
        (404, grpc.StatusCode.NOT_FOUND),
        (413, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (415, grpc.StatusCode.INVALID_ARGUMENT),
        (422, grpc.StatusCode.INVALID_ARGUMENT),
        (429, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (500, grpc.StatusCode.INTERNAL),
        (501, grpc.StatusCode.UNIMPLEMENTED),
        (502, grpc.StatusCode.INTERNAL),
        (503, grpc.StatusCode.UNAVAILABLE),
        (504, grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_every_status_of_http_has_one_of_grpc(status: int, code: grpc.StatusCode) -> None:
    error = error_of(status, WireError(status, "in words", retry_after_ns=1_500_000).body())  # type: ignore[arg-type]  # any number
    assert (error.status, error.message) == (code, "in words")
    assert dict(error.metadata()) == {"retry-after": "1", "retry-after-ms": "2", "grpc-retry-pushback-ms": "2"}


def test_an_error_without_words_is_told_in_ours() -> None:
    assert "without a reason" in error_of(500, b"<html>").message
