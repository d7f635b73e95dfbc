"""What is asked over gRPC, in order, with the standard client's own messages."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message
from tritonclient.grpc import service_pb2 as pb

from conformance.exchange import GrpcCase, words
from conformance.http_cases import KEY, KEY_BYTES, ROW

COUNTS = ("ns", "last_inference")


def call(name: str, method: str, message: Message, hidden: Sequence[str] = ()) -> GrpcCase:
    return GrpcCase(name=name, method=method, message=message, hidden=hidden)


def request(
    model: str,
    name: str = "x",
    datatype: str = "FP32",
    shape: Sequence[int] = (1, 4),
    raw: bytes | None = ROW,
    **more: object,
) -> pb.ModelInferRequest:
    """An inference with one input."""
    made = pb.ModelInferRequest(model_name=model, **more)  # type: ignore[arg-type]  # fields of the message
    made.inputs.add(name=name, datatype=datatype, shape=shape)
    if raw is not None:
        made.raw_input_contents.append(raw)
    return made


def infer(name: str, message: pb.ModelInferRequest) -> GrpcCase:
    return call(name, "ModelInfer", message)


def _contents(datatype: str, **fields: object) -> pb.ModelInferRequest:
    made = request("echo", datatype=datatype, raw=None)
    made.inputs[0].contents.MergeFrom(pb.InferTensorContents(**fields))  # type: ignore[arg-type]  # as above
    return made


def _both() -> pb.ModelInferRequest:
    made = _contents("FP32", fp32_contents=[1, 2, 3, 4])
    made.raw_input_contents.append(ROW)
    return made


def _text() -> pb.ModelInferRequest:
    made = request("text", "t", "BYTES", (2,), raw=None)
    made.inputs[0].contents.bytes_contents.extend((b"one", b""))
    return made


def _wanting(output: str, **parameters: int | str | bool) -> pb.ModelInferRequest:
    made = request("echo")
    wanted = made.outputs.add(name=output)
    _set(wanted.parameters, parameters)
    return made


def _with(message: pb.ModelInferRequest, **parameters: int | str | bool) -> pb.ModelInferRequest:
    _set(message.parameters, parameters)
    return message


def _in_region(region: str) -> pb.ModelInferRequest:
    made = request("echo", raw=None)
    _set(made.inputs[0].parameters, {"shared_memory_region": region, "shared_memory_byte_size": 16})
    return made


def _set(parameters: object, told: dict[str, int | str | bool]) -> None:
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param"}
    for key, one in told.items():
        setattr(parameters[key], kinds[type(one)], one)  # type: ignore[index]  # a map of the message's


def _traces(model: str = "", **settings: Sequence[str]) -> pb.TraceSettingRequest:
    made = pb.TraceSettingRequest(model_name=model)
    for key, values in settings.items():
        made.settings[key].value.extend(values)
    return made


def _logs(**settings: bool | int | str) -> pb.LogSettingsRequest:
    made = pb.LogSettingsRequest()
    kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    for key, one in settings.items():
        setattr(made.settings[key], kinds[type(one)], one)
    return made


SECTIONS: dict[str, tuple[GrpcCase, ...]] = {
    "Server and models": (
        call("live", "ServerLive", pb.ServerLiveRequest()),
        call("ready", "ServerReady", pb.ServerReadyRequest()),
        call("server metadata", "ServerMetadata", pb.ServerMetadataRequest()),
        call("model ready", "ModelReady", pb.ModelReadyRequest(name="echo", version="1")),
        call("model ready, unknown model", "ModelReady", pb.ModelReadyRequest(name="nobody")),
        call("model ready, unknown version", "ModelReady", pb.ModelReadyRequest(name="echo", version="9")),
        call("model ready, no name", "ModelReady", pb.ModelReadyRequest()),
        call("model metadata", "ModelMetadata", pb.ModelMetadataRequest(name="echo")),
        call("model metadata, unknown model", "ModelMetadata", pb.ModelMetadataRequest(name="nobody")),
        call("model configuration", "ModelConfig", pb.ModelConfigRequest(name="echo")),
        call("model configuration, unknown model", "ModelConfig", pb.ModelConfigRequest(name="nobody")),
        call("statistics of a model", "ModelStatistics", pb.ModelStatisticsRequest(name="add"), COUNTS),
        call("statistics, unknown model", "ModelStatistics", pb.ModelStatisticsRequest(name="nobody")),
    ),
    "Inference": (
        infer("raw contents", request("echo")),
        infer("typed contents", _contents("FP32", fp32_contents=[1, 2, 3, 4])),
        infer("BYTES in typed contents", _text()),
        infer("BYTES in raw contents", request("text", "t", "BYTES", (2,), words(b"one", b""))),
        infer("BYTES that are no text", request("text", "t", "BYTES", (1,), words(b"\xff\x00"))),
        infer("FP16 in raw contents", request("half", "h", "FP16", (2,), b"\x00\x38\x00\xbc")),
        infer("no elements", request("half", "h", "FP16", (0,), b"")),
        infer("id, version, output by name", request("echo", id="mine", model_version="1", outputs=[{"name": "y"}])),
        infer("parameters timeout and priority", _with(request("echo"), timeout=5_000_000, priority=1)),
        infer("timeout that is no number", _with(request("echo"), timeout="soon")),
        infer("a parameter of one's own", _with(request("echo"), mine="yes")),
        infer("classification", _wanting("y", classification=2)),
        call("in a stream", "ModelStreamInfer", request("echo", id="mine")),
        call(
            "in a stream, asking for the final mark",
            "ModelStreamInfer",
            _with(request("echo"), triton_enable_empty_final_response=True),
        ),
    ),
    "Inference, refused": (
        infer("unknown model", request("nobody")),
        infer("unknown version", request("echo", model_version="9")),
        infer("model that does not load", request("broken")),
        infer("no name", request("")),
        infer("no inputs", pb.ModelInferRequest(model_name="echo")),
        infer("wrong name of an input", request("echo", "z")),
        infer("wrong datatype", request("echo", datatype="INT32")),
        infer("wrong shape", request("echo", shape=(1, 5))),
        infer("negative shape", request("echo", shape=(-1, 4))),
        infer("too few bytes", request("echo", raw=ROW[:-1])),
        infer("too many bytes", request("echo", raw=ROW + b"more")),
        infer("no contents at all", request("echo", raw=None)),
        infer("raw contents beside typed ones", _both()),
        infer("contents of another type", _contents("FP32", int_contents=[1, 2, 3, 4])),
        infer("too few typed contents", _contents("FP32", fp32_contents=[1, 2, 3])),
        infer("unknown output", _wanting("z")),
        infer("more rows than a batch has", request("echo", shape=(9, 4), raw=ROW * 9)),
        call("unknown model in a stream", "ModelStreamInfer", request("nobody", id="mine")),
        call("wrong shape in a stream", "ModelStreamInfer", request("echo", id="mine", shape=(1, 5))),
    ),
    "Repository": (
        call("index", "RepositoryIndex", pb.RepositoryIndexRequest(), ("reason",)),
        call("index of what is ready", "RepositoryIndex", pb.RepositoryIndexRequest(ready=True)),
        call("unload", "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="text")),
        infer("unloaded: infer", _text()),
        call("load", "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="text")),
        call("load, unknown model", "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="nobody")),
        call(
            "load, model that cannot be loaded",
            "RepositoryModelLoad",
            pb.RepositoryModelLoadRequest(model_name="broken"),
        ),
        call("unload, unknown model", "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="nobody")),
    ),
    "Shared memory": (
        call(
            "system: register",
            "SystemSharedMemoryRegister",
            pb.SystemSharedMemoryRegisterRequest(name="mine", key=KEY, byte_size=KEY_BYTES),
        ),
        call(
            "system: register twice",
            "SystemSharedMemoryRegister",
            pb.SystemSharedMemoryRegisterRequest(name="mine", key=KEY, byte_size=KEY_BYTES),
        ),
        call("system: status", "SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()),
        call(
            "system: status, unknown region",
            "SystemSharedMemoryStatus",
            pb.SystemSharedMemoryStatusRequest(name="nobody"),
        ),
        infer("input in a region", _in_region("mine")),
        infer("output in a region", _wanting("y", shared_memory_region="mine", shared_memory_byte_size=16)),
        infer("unknown region", _in_region("nobody")),
        call(
            "system: register, no such key",
            "SystemSharedMemoryRegister",
            pb.SystemSharedMemoryRegisterRequest(name="other", key="/slotwise-nobody", byte_size=8),
        ),
        call("system: unregister", "SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name="mine")),
        call("system: unregister all", "SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest()),
        call("CUDA: status", "CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest()),
        call(
            "CUDA: register",
            "CudaSharedMemoryRegister",
            pb.CudaSharedMemoryRegisterRequest(name="mine", raw_handle=b"0", byte_size=8),
        ),
        call("CUDA: unregister all", "CudaSharedMemoryUnregister", pb.CudaSharedMemoryUnregisterRequest()),
    ),
    "Trace and log settings": (
        call("trace setting", "TraceSetting", _traces()),
        call("trace rate and count", "TraceSetting", _traces(trace_rate=["9"], trace_count=["50"])),
        call("trace level of a model", "TraceSetting", _traces("echo", trace_level=["TIMESTAMPS"])),
        call("trace settings back", "TraceSetting", _traces("echo", trace_level=[])),
        call("trace level TENSORS", "TraceSetting", _traces(trace_level=["TENSORS"])),
        call("trace setting, unknown model", "TraceSetting", _traces("nobody")),
        call("unknown trace setting", "TraceSetting", _traces(trace_speed=["1"])),
        call("log settings", "LogSettings", _logs(), ("log_file",)),
        call("log_info off", "LogSettings", _logs(log_info=False), ("log_file",)),
        call("log_info on", "LogSettings", _logs(log_info=True), ("log_file",)),
        call("log_file", "LogSettings", _logs(log_file="elsewhere.log")),
        call("unknown log setting", "LogSettings", _logs(log_debug=True)),
    ),
}
