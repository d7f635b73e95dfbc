"""Every call but inference: which route of the server answers it, and how its JSON becomes the reply's message. Pure.

The server's documents mirror the protocol's messages, so most are turned by protobuf's own reader of JSON. What a
document says beyond its message is passed over.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from enum import Enum
from http import HTTPStatus
from urllib.parse import quote

import grpc
import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message

from slotwise.edges.oip.grpc import inference_pb2 as pb
from slotwise.edges.oip.grpc.errors import CallError, bad, error_of
from slotwise.edges.oip.grpc.messages import model_path, parse
from slotwise.edges.oip.grpc.upstream import Answer


class Form(Enum):
    """How a route's document becomes a message."""

    MIRROR = "its fields are those of the message"
    HELD = "the whole of it is the one field of the message"
    NAMED = "a list, whose items become a map by their names"
    EMPTY = "nothing is said but that it is done"
    FLAG = "the status says it, in the one field of the message"
    TEXTS = "each of its fields is one of a map, as a list of texts"
    CHOICES = "each of its fields is one of a map, under the name of its type"


class Call(msgspec.Struct, frozen=True):
    """One of the service's methods."""

    request: type[Message]
    reply: type[Message]
    form: Form = Form.MIRROR


CALLS = {
    "ServerLive": Call(pb.ServerLiveRequest, pb.ServerLiveResponse, Form.FLAG),
    "ServerReady": Call(pb.ServerReadyRequest, pb.ServerReadyResponse, Form.FLAG),
    "ServerMetadata": Call(pb.ServerMetadataRequest, pb.ServerMetadataResponse),
    "ModelReady": Call(pb.ModelReadyRequest, pb.ModelReadyResponse, Form.FLAG),
    "ModelMetadata": Call(pb.ModelMetadataRequest, pb.ModelMetadataResponse),
    "ModelConfig": Call(pb.ModelConfigRequest, pb.ModelConfigResponse, Form.HELD),
    "ModelStatistics": Call(pb.ModelStatisticsRequest, pb.ModelStatisticsResponse),
    "RepositoryIndex": Call(pb.RepositoryIndexRequest, pb.RepositoryIndexResponse, Form.HELD),
    "RepositoryModelLoad": Call(pb.RepositoryModelLoadRequest, pb.RepositoryModelLoadResponse, Form.EMPTY),
    "RepositoryModelUnload": Call(pb.RepositoryModelUnloadRequest, pb.RepositoryModelUnloadResponse, Form.EMPTY),
    "SystemSharedMemoryStatus": Call(
        pb.SystemSharedMemoryStatusRequest, pb.SystemSharedMemoryStatusResponse, Form.NAMED
    ),
    "SystemSharedMemoryRegister": Call(
        pb.SystemSharedMemoryRegisterRequest, pb.SystemSharedMemoryRegisterResponse, Form.EMPTY
    ),
    "SystemSharedMemoryUnregister": Call(
        pb.SystemSharedMemoryUnregisterRequest, pb.SystemSharedMemoryUnregisterResponse, Form.EMPTY
    ),
    "CudaSharedMemoryStatus": Call(pb.CudaSharedMemoryStatusRequest, pb.CudaSharedMemoryStatusResponse, Form.NAMED),
    "CudaSharedMemoryRegister": Call(
        pb.CudaSharedMemoryRegisterRequest, pb.CudaSharedMemoryRegisterResponse, Form.EMPTY
    ),
    "CudaSharedMemoryUnregister": Call(
        pb.CudaSharedMemoryUnregisterRequest, pb.CudaSharedMemoryUnregisterResponse, Form.EMPTY
    ),
    "TraceSetting": Call(pb.TraceSettingRequest, pb.TraceSettingResponse, Form.TEXTS),
    "LogSettings": Call(pb.LogSettingsRequest, pb.LogSettingsResponse, Form.CHOICES),
}
CHOICES = {bool: "bool_param", int: "uint32_param", str: "string_param"}
"""The field of a log setting's value, by its type."""


FLAGS = {int(HTTPStatus.OK): True, int(HTTPStatus.NOT_FOUND): False, int(HTTPStatus.SERVICE_UNAVAILABLE): False}
"""What the status of a question for health says: a model that there is not is not ready."""


class Page(msgspec.Struct, frozen=True):
    """What to ask the server; a `body` is sent with POST."""

    path: bytes
    body: bytes | None = None


def page_of(call: Call, raw: bytes) -> Page:
    """The route that answers a call. Raises CallError for a request that cannot be understood."""
    match parse(call.request, raw):
        case pb.ServerLiveRequest():
            return Page(b"/v2/health/live")
        case pb.ServerReadyRequest():
            return Page(b"/v2/health/ready")
        case pb.ServerMetadataRequest():
            return Page(b"/v2")
        case pb.ModelReadyRequest() as request:
            return Page(model_path(request.name, request.version) + b"/ready")
        case pb.ModelMetadataRequest() as request:
            return Page(model_path(request.name, request.version))
        case pb.ModelConfigRequest() as request:
            return Page(model_path(request.name, request.version) + b"/config")
        case pb.ModelStatisticsRequest() as request:
            models = model_path(request.name, request.version) if request.name else b"/v2/models"
            return Page(models + b"/stats")
        case other:
            return _repository_page(other) or _recording_page(other) or _region_page(other)


def _repository_page(request: Message) -> Page | None:
    match request:
        case pb.RepositoryIndexRequest():
            return Page(b"/v2/repository/index", msgspec.json.encode({"ready": request.ready}))
        case pb.RepositoryModelLoadRequest():
            return _control_page(request.model_name, "load", request.parameters)
        case pb.RepositoryModelUnloadRequest():
            return _control_page(request.model_name, "unload", request.parameters)
        case _:
            return None


def _recording_page(request: Message) -> Page | None:
    """A setting is read where none is given, and changed by what is given; an empty value leaves it to the server."""
    match request:
        case pb.TraceSettingRequest():
            of = model_path(request.model_name, "") if request.model_name else b"/v2"
            return Page(
                of + b"/trace/setting", _changes({key: _told(value) for key, value in request.settings.items()})
            )
        case pb.LogSettingsRequest():
            chosen = {key: value.WhichOneof("parameter_choice") for key, value in request.settings.items()}
            told = {key: getattr(request.settings[key], field) if field else None for key, field in chosen.items()}
            return Page(b"/v2/logging", _changes(told))
        case _:
            return None


def _changes(told: Mapping[str, object]) -> bytes | None:
    return msgspec.json.encode(told) if told else None


def _told(setting: pb.TraceSettingRequest.SettingValue) -> str | list[str] | None:
    texts = list(setting.value)
    return texts if len(texts) > 1 else next(iter(texts), None)


def _control_page(name: str, verb: str, parameters: Mapping[str, pb.ModelRepositoryParameter]) -> Page:
    if not name:
        raise bad("no model is named; give its name with the request")
    told: dict[str, bool | int | str] = {}
    for key, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice == "bytes_param":
            told[key] = b64encode(parameter.bytes_param).decode()
        elif choice is not None:
            told[key] = getattr(parameter, choice)
    path = f"/v2/repository/models/{quote(name, safe='')}/{verb}"
    return Page(path.encode(), msgspec.json.encode({"parameters": told}))


def _region_page(request: Message) -> Page:
    match request:
        case pb.SystemSharedMemoryStatusRequest():
            return Page(_region_path("system", request.name, "status"))
        case pb.SystemSharedMemoryUnregisterRequest():
            return Page(_region_path("system", request.name, "unregister"), b"")
        case pb.SystemSharedMemoryRegisterRequest():
            region = {"key": request.key, "offset": request.offset, "byte_size": request.byte_size}
            return Page(_region_path("system", request.name, "register"), msgspec.json.encode(region))
        case pb.CudaSharedMemoryStatusRequest():
            return Page(_region_path("cuda", request.name, "status"))
        case pb.CudaSharedMemoryUnregisterRequest():
            return Page(_region_path("cuda", request.name, "unregister"), b"")
        case pb.CudaSharedMemoryRegisterRequest():
            handle = {"b64": b64encode(request.raw_handle).decode()}
            device = {"raw_handle": handle, "device_id": request.device_id, "byte_size": request.byte_size}
            return Page(_region_path("cuda", request.name, "register"), msgspec.json.encode(device))
        case _:
            raise AssertionError(f"{type(request).__name__} is in CALLS and has no route")


def _region_path(kind: str, name: str, verb: str) -> bytes:
    if verb == "register" and not name:
        raise bad("the region to register has no name; give it one")
    region = f"/region/{quote(name, safe='')}" if name else ""
    return f"/v2/{kind}sharedmemory{region}/{verb}".encode()


def reply_of(call: Call, answer: Answer) -> Message:
    """The reply to a call. Raises CallError where the server has not done what was asked."""
    field = call.reply.DESCRIPTOR.fields[0].name if call.reply.DESCRIPTOR.fields else ""
    if call.form is Form.FLAG and answer.status in (
        HTTPStatus.OK,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ):
        return call.reply(**{field: answer.status == HTTPStatus.OK})
    if answer.status != HTTPStatus.OK:
        raise error_of(answer.status, answer.body)
    if call.form is Form.EMPTY:
        return call.reply()
    try:
        document = _fitted(call.form, field, msgspec.json.decode(answer.body))
        return json_format.ParseDict(document, call.reply(), ignore_unknown_fields=True)
    except (msgspec.MsgspecError, json_format.ParseError) as error:
        raise CallError(grpc.StatusCode.INTERNAL, f"the server's reply cannot be read: {error}") from error


def _fitted(form: Form, field: str, document: object) -> dict[str, object]:
    match form, document:
        case Form.HELD, _:
            return {field: document}
        case Form.TEXTS, dict():
            return {
                field: {key: {"value": told if isinstance(told, list) else [told]} for key, told in document.items()}
            }
        case Form.CHOICES, dict():
            return {field: {key: {CHOICES[type(told)]: told} for key, told in document.items()}}
        case Form.NAMED, list():
            return {field: {str(item["name"]): item for item in document}}
        case _, dict():
            return document
        case _:
            raise msgspec.ValidationError("it is no object")
