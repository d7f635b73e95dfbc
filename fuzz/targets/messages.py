"""Messages over gRPC, from bytes to what goes to the server's own door. The first byte of an input picks the method."""

from __future__ import annotations

import random

from fuzz.target import Fault
from fuzz.targets.specs import contracts
from slotwise.edges.local import frames
from slotwise.edges.oip.codec import Contract, decode
from slotwise.edges.oip.errors import WireError
from slotwise.edges.oip.grpc import inference_pb2 as pb
from slotwise.edges.oip.grpc.errors import CallError
from slotwise.edges.oip.grpc.messages import parse, question_of
from slotwise.edges.oip.grpc.pages import CALLS, page_of

METHODS = ("ModelInfer", *CALLS)
_NAMES = frozenset(b"\r\n \t\x00")


def method_of(data: bytes) -> tuple[str, bytes]:
    """The method that an input asks for, and its message."""
    return (METHODS[data[0] % len(METHODS)], data[1:]) if data else (METHODS[0], b"")


def message_seeds() -> list[bytes]:
    """A message for each method, and several for the one that matters."""
    plain = pb.ModelInferRequest(model_name="plain", id="7", raw_input_contents=[bytes(16)])
    plain.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    plain.outputs.add(name="x").parameters["binary_data"].bool_param = False
    plain.parameters["timeout"].int64_param = 1000
    typed = pb.ModelInferRequest(model_name="plain", model_version="1")
    typed.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1, 2, 3, 4])
    text = pb.ModelInferRequest(model_name="text")
    text.inputs.add(name="t", datatype="BYTES", shape=[2]).contents.bytes_contents.extend([b"a", b""])
    region = pb.ModelInferRequest(model_name="plain", raw_input_contents=[b"abcd"])
    there = region.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    there.parameters["shared_memory_region"].string_param = "r"
    there.parameters["shared_memory_byte_size"].int64_param = 16
    there.parameters["nothing"].SetInParent()
    region.inputs.add(name="b", datatype="BOOL", shape=[4])
    unsent = pb.ModelInferRequest(model_name="plain")
    unsent.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    unsent.parameters["slotwise_inputs"].string_param = "executor"
    requests = [b"\x00" + one.SerializeToString() for one in (plain, typed, text, region, unsent)]
    load = pb.RepositoryModelLoadRequest(model_name="plain")
    load.parameters["config"].string_param = "{}"
    load.parameters["file:1/model.onnx"].bytes_param = b"x"
    told = {
        "RepositoryModelLoad": load,
        "ModelMetadata": pb.ModelMetadataRequest(name="plain", version="1"),
        "SystemSharedMemoryRegister": pb.SystemSharedMemoryRegisterRequest(name="r", key="/k", offset=1, byte_size=16),
    }
    pages = [
        bytes([at]) + told.get(name, pb.ServerLiveRequest()).SerializeToString() for at, name in enumerate(METHODS)
    ]
    return requests + pages[1:]


class Messages:
    """What the gRPC door does with a message before it asks the server."""

    def __init__(self) -> None:
        self._contracts = contracts()

    def seeds(self) -> list[bytes]:
        """A message for each method."""
        source = random.Random(1)
        return [*message_seeds(), source.randbytes(8)]

    def run(self, data: bytes) -> None:
        """One message."""
        method, raw = method_of(data)
        try:
            if method == "ModelInfer":
                self._infer(parse(pb.ModelInferRequest, raw))
            else:
                _check_path(page_of(CALLS[method], raw).path)
        except CallError as error:
            error.metadata()

    def check(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """The end."""

    def _infer(self, request: pb.ModelInferRequest) -> None:
        question = question_of(request, 500)
        relay = frames.Relay(1, question.model, question.version, question.head, 0, 0, question.timeout_us)
        try:
            frames.decode_client(frames.encode(relay))
        except frames.FrameError as error:
            raise Fault(f"a question is no frame: {error}") from error
        sent = sum(map(len, question.tensors))
        contract: Contract = self._contracts.get(request.model_name, self._contracts["mixed"])
        try:
            decode(question.head, sent, contract)
        except WireError as error:
            if error.status >= 500:
                raise Fault(f"a message brings a {error.status}") from error


def _check_path(path: bytes) -> None:
    if _NAMES & set(path):
        raise Fault(f"a path that is no path: {path!r}")
