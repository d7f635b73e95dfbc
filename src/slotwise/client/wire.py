"""Requests and answers of the Open Inference Protocol as a client sees them: numpy arrays to bytes and back. Pure.

Tensors travel in the binary extension: a JSON head, then the data of each tensor in order. A request can be
encoded once and sent many times. Arrays that come back are read-only views of the reply.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from math import prod
from urllib.parse import quote

import msgspec
import numpy as np
from numpy.typing import NDArray

from slotwise.client.errors import BadRequest, ClientError, ModelNotFound, Refused, ServerFault, TooLate
from slotwise.edges.oip.datatypes import BYTES, TensorFault, elements_of, pack
from slotwise.facts.value import value

Array = NDArray[np.generic]
DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}
DATATYPES = {dtype: name for name, dtype in DTYPES.items()}
_TOKEN = re.compile(r"[\x21-\x7e]+")
STRINGS = "OSU"
"""Kinds of arrays that go as BYTES."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How the server spent a request's time."""

    outcome: str = msgspec.field(name="slotwise_outcome", default="")
    request: int | None = msgspec.field(name="slotwise_request", default=None)
    """Its number in the server's journals and logs."""
    queue_us: int | None = msgspec.field(name="slotwise_queue_us", default=None)
    """From arrival until its batch was sent to an executor."""
    wait_us: int | None = msgspec.field(name="slotwise_wait_us", default=None)
    """From there until the batch started."""
    execution_us: int | None = msgspec.field(name="slotwise_execution_us", default=None)
    executor: str | None = msgspec.field(name="slotwise_executor", default=None)
    batch_rows: int | None = msgspec.field(name="slotwise_batch_rows", default=None)
    attempts: int | None = msgspec.field(name="slotwise_attempts", default=None)
    prediction_error_us: int | None = msgspec.field(name="slotwise_prediction_error_us", default=None)


@value
class InferResult:
    """An answer: the outputs by name. `timing` is None unless it was asked for, or the answer is late."""

    model: str
    version: str
    outputs: dict[str, Array]
    timing: Timing | None

    def release(self) -> None:
        """Let go of the outputs. Shared memory is given back as soon as nobody else holds one of the arrays either."""
        self.outputs.clear()


class _Size(msgspec.Struct, frozen=True):
    binary_data_size: int


class _Input(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: _Size


class _Parameters(msgspec.Struct, frozen=True, omit_defaults=True):
    binary_data_output: bool = False
    timeout: int | None = None
    priority: int | None = None
    slotwise_timing: bool = False


class _Wanted(msgspec.Struct, frozen=True):
    name: str


class _Question(msgspec.Struct, frozen=True, omit_defaults=True):
    inputs: list[_Input]
    parameters: _Parameters
    outputs: list[_Wanted] = []


class _WholeInput(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[object]


class _TextParameters(msgspec.Struct, frozen=True, omit_defaults=True):
    timeout: int | None = None
    priority: int | None = None


class _WholeQuestion(msgspec.Struct, frozen=True, omit_defaults=True):
    inputs: list[_WholeInput]
    parameters: _TextParameters = _TextParameters()


class _Output(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: _Size


class _Answer(msgspec.Struct, frozen=True):
    model_name: str
    model_version: str
    outputs: list[_Output]
    parameters: Timing | None = None


class _Error(msgspec.Struct, frozen=True):
    error: str
    reason: str = ""
    retry_after_ms: int = 0


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_error = msgspec.json.Decoder(_Error).decode


def encode_infer(
    host: str,
    model: str,
    inputs: Mapping[str, Array],
    *,
    timeout_us: int | None = None,
    priority: int | None = None,
    outputs: Sequence[str] = (),
    has_timing: bool = False,
    shown: str = "",
) -> bytes:
    """A whole HTTP request. `model` is a name, or a name and a version with a slash. Raises BadRequest.

    `shown` is what `shown_of` makes of a token.
    """
    told, data = [], []
    for name, array in inputs.items():
        datatype, content = packed(name, array)
        told.append(_Input(name, datatype, array.shape, _Size(len(content))))
        data.append(content)
    parameters = _Parameters(binary_data_output=True, timeout=timeout_us, priority=priority, slotwise_timing=has_timing)
    head = msgspec.json.encode(_Question(told, parameters, [_Wanted(name) for name in outputs]))
    length = len(head) + sum(map(len, data))
    lines = (
        f"POST {_infer_path(model)} HTTP/1.1",
        f"Host: {host}",
        f"Inference-Header-Content-Length: {len(head)}",
        f"Content-Length: {length}",
        f"{shown}\r\n",
    )
    return b"".join(["\r\n".join(lines).encode(), head, *data])


def encode_infer_as_json(
    host: str,
    model: str,
    inputs: Mapping[str, Array],
    *,
    timeout_us: int | None = None,
    priority: int | None = None,
    shown: str = "",
) -> bytes:
    """The same for servers without the binary extension: tensors as JSON, in the request and in the answer."""
    told = []
    for name, array in inputs.items():
        datatype, _ = packed(name, array)
        data = [_as_text(element) for element in array.ravel().tolist()]
        told.append(_WholeInput(name, datatype, array.shape, data))
    parameters = _TextParameters(timeout=timeout_us, priority=priority)
    return encode_post(host, _infer_path(model), msgspec.json.encode(_WholeQuestion(told, parameters)), shown)


def encode_post(host: str, path: str, body: bytes, shown: str = "") -> bytes:
    """A whole HTTP request that sends JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n{shown}\r\n".encode() + body


def encode_get(host: str, path: str, shown: str = "") -> bytes:
    """A whole HTTP request for a page."""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{shown}\r\n".encode()


def shown_of(token: str) -> str:
    """The header that shows a token; empty for none. Raises ValueError for what no token is."""
    if not token:
        return ""
    if not _TOKEN.fullmatch(token):
        raise ValueError("this is no token: one has letters, digits and signs of ASCII, and no spaces")
    return f"Authorization: Bearer {token}\r\n"


def decode_answer(body: bytes, head_length: int | None) -> InferResult:
    """An answer with its tensors. Raises ServerFault for one that is not the protocol."""
    head = body if head_length is None else body[:head_length]
    try:
        answer = _decode_answer(head)
        outputs, at = {}, len(head)
        for output in answer.outputs:
            end = at + output.parameters.binary_data_size
            outputs[output.name] = _unpacked(output, memoryview(body)[at:end])
            at = end
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        raise ServerFault(f"the answer is not the protocol's: {error}", status=HTTPStatus.OK) from error
    return InferResult(model=answer.model_name, version=answer.model_version, outputs=outputs, timing=answer.parameters)


def error_of(status: int, body: bytes) -> ClientError:
    """What to raise for a reply that is not an answer."""
    try:
        told = _decode_error(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        told = _Error(error=f"the server answered {status} without a reason that can be read")
    return error_for(status, told.error, told.reason, told.retry_after_ms)


def error_for(status: int, message: str, reason: str, retry_after_ms: int) -> ClientError:
    """What to raise for an error that the server has told."""
    match status:
        case HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.TOO_MANY_REQUESTS:
            return Refused(message, status=status, reason=reason, retry_after_ms=retry_after_ms)
        case HTTPStatus.GATEWAY_TIMEOUT:
            return TooLate(message, status=status, reason=reason)
        case HTTPStatus.NOT_FOUND:
            return ModelNotFound(message, status=status, reason=reason)
        case _ if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return BadRequest(message, status=status, reason=reason)
        case _:
            return ServerFault(message, status=status, reason=reason)


def _infer_path(model: str) -> str:
    name, _, version = model.partition("/")
    middle = f"/versions/{quote(version)}" if version else ""
    return f"/v2/models/{quote(name)}{middle}/infer"


def packed(name: str, array: Array) -> tuple[str, bytes]:
    """An array's datatype, and its bytes as they go over the wire. Raises BadRequest."""
    datatype = datatype_of(array)
    if datatype == BYTES:
        elements = [_as_bytes(name, element) for element in array.ravel().tolist()]
        return BYTES, b"".join([len(element).to_bytes(4, "little") + element for element in elements])
    if datatype is None:
        raise BadRequest(f"input {name!r} has the type {array.dtype}, which the protocol does not know; convert it")
    return datatype, array.tobytes()


def datatype_of(array: Array) -> str | None:
    """What the protocol calls an array's type; None for one that it does not know."""
    return BYTES if array.dtype.kind in STRINGS else DATATYPES.get(array.dtype)


def array_of(datatype: str, shape: tuple[int, ...], data: msgspec.Raw) -> Array:
    """A tensor's JSON values, flat or nested, as an array. Raises ValueError, whose text reads on from its name."""
    content = pack(data, datatype, shape, prod(shape))
    if datatype == BYTES:
        return elements_as_array(memoryview(content), shape)
    return np.frombuffer(content, DTYPES[datatype]).reshape(shape)


def _as_bytes(name: str, element: object) -> bytes:
    if isinstance(element, bytes):
        return element
    if isinstance(element, str):
        return element.encode()
    raise BadRequest(f"input {name!r} holds a {type(element).__name__}; arrays of objects hold bytes or str")


def _as_text(element: object) -> object:
    """An element as JSON has it."""
    return element.decode("utf-8", "replace") if isinstance(element, bytes) else element


def _unpacked(output: _Output, view: memoryview) -> Array:
    if output.datatype == BYTES:
        try:
            return elements_as_array(view, output.shape)
        except TensorFault as fault:
            raise ValueError(f"output {output.name!r} {fault}") from fault
    return np.frombuffer(view, DTYPES[output.datatype]).reshape(output.shape)


def elements_as_array(view: memoryview, shape: tuple[int, ...]) -> Array:
    """A BYTES tensor as an array of bytes objects. Raises TensorFault."""
    return np.array([bytes(element) for element in elements_of(view)], dtype=object).reshape(shape)
