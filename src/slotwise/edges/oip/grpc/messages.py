"""Inference between gRPC and the protocol's binary form on the local channel: from message to message. Pure.

A request becomes a JSON head and the tensors' bytes as they came; an answer's bytes go into the message as they
are. What a request says is checked where it is understood, behind the server's own door, in words that
hold for both; only what is gRPC's own, its two ways to send data, is checked here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar
from urllib.parse import quote

import grpc
import msgspec
from google.protobuf.message import DecodeError, Message

from slotwise.edges.local.frames import RELAYED_NAME_LENGTH_MAX
from slotwise.edges.oip.datatypes import BYTES
from slotwise.edges.oip.grpc import inference_pb2 as pb
from slotwise.edges.oip.grpc.errors import CallError, bad

Parameter = bool | int | float | str
_Message = TypeVar("_Message", bound=Message)

_INT32, _UINT32 = "int_contents", "uint_contents"
CONTENTS = {
    "BOOL": ("bool_contents", "?"),
    "INT8": (_INT32, "b"),
    "INT16": (_INT32, "h"),
    "INT32": (_INT32, "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": (_UINT32, "B"),
    "UINT16": (_UINT32, "H"),
    "UINT32": (_UINT32, "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
    BYTES: ("bytes_contents", ""),
}
"""Where a datatype's elements stand in `contents`, and how each is packed. FP16 and BF16 have no such form."""
REGION = "shared_memory_region"
MADE_BY = "slotwise_inputs"
FINAL_ASKED = "triton_enable_empty_final_response"
FINAL_TOLD = "triton_final_response"
"""Clients of streams may ask to be told which answer to a request is the last; here, the only one is."""
PATHS_MAX = 4096
"""Paths remembered."""
TIMEOUT_US_MAX = (1 << 62) - 1
"""The server takes no more."""


class Question(msgspec.Struct, frozen=True, gc=False):
    """A request as it goes to the server: which model, the JSON head, and the data of its inputs.

    What differs between requests that are otherwise alike, the deadline and the id, is no part of the head, so that the
    server understands each head once.
    """

    model: str
    version: str
    head: bytes
    tensors: list[bytes]
    timeout_us: int = 0


class _Input(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Parameter]


class _Asked(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Parameter]


class _Head(msgspec.Struct, gc=False, omit_defaults=True):
    parameters: dict[str, Parameter]
    inputs: list[_Input]
    outputs: list[_Asked] = []


class _Output(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Parameter] = {}


class _Answer(msgspec.Struct, gc=False):
    model_name: str
    outputs: list[_Output]
    model_version: str = ""
    parameters: dict[str, Parameter] = {}


_encode_head = msgspec.json.Encoder().encode
_decode_answer = msgspec.json.Decoder(_Answer).decode


def parse(kind: type[_Message], raw: bytes) -> _Message:
    """A message out of its bytes. Raises CallError for bytes that are none."""
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise bad(f"the bytes are no {kind.DESCRIPTOR.name}: {error}") from error


def question_of(request: pb.ModelInferRequest, left_us: int | None) -> Question:
    """What to ask the server. `left_us` is the time left by gRPC's own deadline; None where it has none."""
    check_name(request.model_name, request.model_version)
    parameters = parameters_of(request.parameters)
    parameters.pop(FINAL_ASKED, None)
    parameters["binary_data_output"] = True
    timeout_us = _take_timeout(parameters, left_us)
    tensors = _tensors(request)
    inputs, following = [], iter(tensors)
    for tensor in request.inputs:
        told = parameters_of(tensor.parameters)
        if tensors and not _is_in_region(tensor):
            told["binary_data_size"] = len(next(following))
        inputs.append(_Input(tensor.name, tensor.datatype, list(tensor.shape), told))
    outputs = [_Asked(output.name, _asked(output)) for output in request.outputs]
    head = _encode_head(_Head(parameters, inputs, outputs))
    return Question(request.model_name, request.model_version, head, tensors, timeout_us)


def answer_of(head: bytes, data: memoryview, name: str) -> pb.ModelInferResponse:
    """The server's answer to the request of that id. Raises CallError for what is none."""
    try:
        told = _decode_answer(head)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CallError(grpc.StatusCode.INTERNAL, f"the server's answer cannot be read: {error}") from error
    answer = pb.ModelInferResponse(model_name=told.model_name, model_version=told.model_version, id=name)
    for key, content in told.parameters.items():
        _put_parameter(answer.parameters[key], content)
    at = 0
    for output in told.outputs:
        size = output.parameters.pop("binary_data_size", 0)
        tensor = answer.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        for key, content in output.parameters.items():
            _put_parameter(tensor.parameters[key], content)
        end = at + int(size)
        answer.raw_output_contents.append(bytes(data[at:end]))
        at = end
    return answer


def parameters_of(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Parameter]:
    """Parameters as JSON has them; one without a value is left out."""
    found: dict[str, Parameter] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None:
            found[name] = getattr(parameter, choice)
    return found


def check_name(name: str, version: str) -> None:
    """Raise CallError for a name that no model has."""
    if not name:
        raise bad("no model is named; give its name with the request")
    if len(name) + len(version) > RELAYED_NAME_LENGTH_MAX:
        raise bad(f"the names of a model and its version have at most {RELAYED_NAME_LENGTH_MAX} characters in all")


@lru_cache(maxsize=PATHS_MAX)
def model_path(name: str, version: str) -> bytes:
    """A model's place among the server's routes. Raises CallError for a name that no model has."""
    check_name(name, version)
    versions = f"/versions/{quote(version, safe='')}" if version else ""
    return f"/v2/models/{quote(name, safe='')}{versions}".encode()


def _take_timeout(parameters: dict[str, Parameter], left_us: int | None) -> int:
    """The nearer of two deadlines, 0 for none. A timeout that is none is left where it is, for the server to say so."""
    asked = parameters.get("timeout", 0)
    if type(asked) is not int or not 0 <= asked <= TIMEOUT_US_MAX:
        return 0
    parameters.pop("timeout", None)
    if left_us is None:
        return asked
    left_us = min(max(left_us, 1), TIMEOUT_US_MAX)
    return min(asked, left_us) if asked else left_us


def _asked(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> dict[str, Parameter]:
    told = parameters_of(output.parameters)
    told.pop("binary_data", None)  # data is always binary here
    return told


def _is_in_region(tensor: pb.ModelInferRequest.InferInputTensor) -> bool:
    """Whether its data lies in shared memory; a parameter without a value says nothing, and does not make one up."""
    return REGION in tensor.parameters and tensor.parameters[REGION].WhichOneof("parameter_choice") is not None


def _tensors(request: pb.ModelInferRequest) -> list[bytes]:
    """The data of the inputs that are not in shared memory; none where they are to be made. Raises CallError."""
    sent = [tensor for tensor in request.inputs if not _is_in_region(tensor)]
    raw = list(request.raw_input_contents)
    if not raw:
        if MADE_BY in request.parameters and not any(tensor.HasField("contents") for tensor in sent):
            return []
        return [_packed(tensor) for tensor in sent]
    for tensor in request.inputs:
        if tensor.HasField("contents"):
            raise bad(f"input {tensor.name!r} has contents, and there are raw_input_contents; send one of them")
    if len(raw) != len(sent):
        raise bad(f"there are {len(raw)} raw_input_contents for {len(sent)} inputs; send one for each, in their order")
    return raw


def _packed(tensor: pb.ModelInferRequest.InferInputTensor) -> bytes:
    name, code = CONTENTS.get(tensor.datatype, ("", ""))
    if not name:
        raise bad(f"input {tensor.name!r} is {tensor.datatype}, which has no contents; send it in raw_input_contents")
    for field, _ in tensor.contents.ListFields():
        if field.name != name:
            raise bad(f"input {tensor.name!r} has {field.name}; the elements of {tensor.datatype} go into {name}")
    elements = getattr(tensor.contents, name)
    if tensor.datatype == BYTES:
        return b"".join([len(element).to_bytes(4, "little") + element for element in elements])
    try:
        return struct.pack(f"<{len(elements)}{code}", *elements)
    except struct.error as error:
        raise bad(f"input {tensor.name!r} holds a value that {tensor.datatype} cannot hold: {error}") from error


def _put_parameter(place: pb.InferParameter, content: Parameter) -> None:
    match content:
        case bool():
            place.bool_param = content
        case int():
            place.int64_param = content
        case float():
            place.double_param = content
        case str():
            place.string_param = content
