"""A client over gRPC, within an event loop: questions with numpy arrays on one channel, errors as on the other ways.

grpcio is an extra (`slotwise[grpc]`), and is loaded with this file alone. gRPC's own retries are off: a question is
asked once more by whoever knows whether that is safe (`address.Tries`). A question's deadline goes along as the
parameter `timeout`, as over HTTP; how long this client waits is another matter, and no deadline to the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import grpc
import msgspec
import numpy as np

import slotwise.edges.oip.grpc.inference_pb2 as pb
from slotwise.client.errors import ClientError, ConnectionLost, NoAnswer, ServerFault, Unreachable
from slotwise.client.pages import SLO_KEY, InputSpec, ServerModel, ready_names, slo_ns_of
from slotwise.client.question import Asker, Question
from slotwise.client.wire import DTYPES, Array, InferResult, Timing, elements_as_array, error_for, packed, shown_of
from slotwise.edges.oip.datatypes import BYTES, TensorFault

SERVICE = "/inference.GRPCInferenceService"
METHOD = f"{SERVICE}/ModelInfer"
ANSWER_S_MAX = 60.0
MESSAGE_BYTES_MAX = 1 << 30
STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
}
"""Others are the server's fault, but for RESOURCE_EXHAUSTED: a rate that has been used up, or a message too long."""
Call = grpc.aio.UnaryUnaryMultiCallable
Q = TypeVar("Q")
A = TypeVar("A")


class GrpcClient(Asker[Coroutine[Any, Any, InferResult]]):
    """Asks one server, within one event loop, with any number of questions under way."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        answer_s_max: float = ANSWER_S_MAX,
        token: str = "",
        is_tls: bool = False,
        ca_file: str = "",
    ) -> None:
        """Nothing is sent yet. Raises ValueError for what is no token, and OSError for a file that cannot be read."""
        self._host = target_of(host, port)
        self._answer_s_max = answer_s_max
        self._metadata = metadata_of(token)
        self._channel = channel_of(self._host, is_tls=is_tls, ca_file=ca_file)
        self._call: Call[pb.ModelInferRequest, pb.ModelInferResponse] = self._channel.unary_unary(
            METHOD,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )

    async def ask(self, question: Question) -> InferResult:
        """The answer to a question. Raises the ClientError that fits."""
        request = encode(question)
        try:
            async with asyncio.timeout(self._answer_s_max):
                await connect(self._channel, self._host)
                answer = await self._call(request, metadata=self._metadata)
        except TimeoutError as error:
            raise NoAnswer(f"{self._host} gave no reply within {self._answer_s_max:g} s") from error
        except grpc.aio.AioRpcError as error:
            raise error_of(self._host, error) from error
        return decode(answer)

    async def close(self) -> None:
        """Close the channel; questions under way raise ConnectionLost."""
        await self._channel.close()


class GrpcPages:
    """What a server says of its models, over gRPC; the `Pages` of that way."""

    def __init__(self, host: str, port: int, *, token: str = "", is_tls: bool = False, ca_file: str = "") -> None:
        """Raises ValueError for what is no token."""
        self._target = target_of(host, port)
        self._metadata = metadata_of(token)
        self._channel = channel_of(self._target, is_tls=is_tls, ca_file=ca_file)
        self._index: Call[pb.RepositoryIndexRequest, pb.RepositoryIndexResponse] = self._channel.unary_unary(
            f"{SERVICE}/RepositoryIndex",
            request_serializer=pb.RepositoryIndexRequest.SerializeToString,
            response_deserializer=pb.RepositoryIndexResponse.FromString,
        )
        self._described: Call[pb.ModelMetadataRequest, pb.ModelMetadataResponse] = self._channel.unary_unary(
            f"{SERVICE}/ModelMetadata",
            request_serializer=pb.ModelMetadataRequest.SerializeToString,
            response_deserializer=pb.ModelMetadataResponse.FromString,
        )
        self._configured: Call[pb.ModelConfigRequest, pb.ModelConfigResponse] = self._channel.unary_unary(
            f"{SERVICE}/ModelConfig",
            request_serializer=pb.ModelConfigRequest.SerializeToString,
            response_deserializer=pb.ModelConfigResponse.FromString,
        )

    async def names(self) -> list[str]:
        """The models that can be asked."""
        listed = await self._page(self._index, pb.RepositoryIndexRequest())
        return ready_names((one.name, one.state) for one in listed.models)

    async def model(self, name: str) -> ServerModel:
        """One of them."""
        model, _, version = name.partition("/")
        metadata = await self._page(self._described, pb.ModelMetadataRequest(name=model, version=version))
        inputs = tuple(InputSpec(one.name, one.datatype, tuple(one.shape)) for one in metadata.inputs)
        try:
            told = await self._page(self._configured, pb.ModelConfigRequest(name=model, version=version))
        except ClientError:
            return ServerModel(name=name, inputs=inputs, slo_ns=None)  # an extension, which a server may do without
        return ServerModel(name=name, inputs=inputs, slo_ns=slo_ns_of(told.config.parameters[SLO_KEY].string_value))

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _page(self, call: Call[Q, A], request: Q) -> A:
        await connect(self._channel, self._target)
        try:
            return await call(request, timeout=ANSWER_S_MAX, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise error_of(self._target, error) from error


def target_of(host: str, port: int) -> str:
    """An address in gRPC's form."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def metadata_of(token: str) -> tuple[tuple[str, str], ...]:
    """What shows a token with a call. Raises ValueError for what is no token."""
    shown = shown_of(token).strip().partition(": ")[2]
    return (("authorization", shown),) if shown else ()


def channel_of(target: str, *, is_tls: bool, ca_file: str) -> grpc.aio.Channel:
    """A channel with a connection of its own, not made yet. Raises OSError for a file that cannot be read."""
    options = [
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if not is_tls:
        return grpc.aio.insecure_channel(target, options=options)
    roots = Path(ca_file).read_bytes() if ca_file else None
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(roots), options=options)


async def connect(channel: grpc.aio.Channel, target: str) -> None:
    """Wait for a channel's connection. Raises Unreachable, and then nothing has been sent."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            raise Unreachable(f"{target} cannot be reached over gRPC")
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)


def encode(question: Question) -> pb.ModelInferRequest:
    """A question as a message. Raises BadRequest."""
    model, _, version = question.model.partition("/")
    request = pb.ModelInferRequest(model_name=model, model_version=version)
    for name, number in (("timeout", question.timeout_us), ("priority", question.priority)):
        if number:
            request.parameters[name].int64_param = number
    if question.has_timing:
        request.parameters["slotwise_timing"].bool_param = True
    for name, array in question.inputs.items():
        datatype, content = packed(name, array)
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(content)
    for name in question.outputs:
        request.outputs.add(name=name)
    return request


def decode(answer: pb.ModelInferResponse) -> InferResult:
    """An answer with its tensors. Raises ServerFault for one that is not the protocol."""
    try:
        pairs = zip(answer.outputs, answer.raw_output_contents, strict=True)
        outputs = {output.name: _array(output, content) for output, content in pairs}
        told = {name: _content(parameter) for name, parameter in answer.parameters.items()}
        timing = msgspec.convert(told, Timing) if told else None
    except (ValueError, KeyError, TensorFault, msgspec.ValidationError) as error:
        raise ServerFault(f"the answer is not the protocol's: {error}") from error
    return InferResult(model=answer.model_name, version=answer.model_version, outputs=outputs, timing=timing)


def error_of(host: str, error: grpc.aio.AioRpcError) -> ClientError:
    """What to raise for a call that has failed."""
    told = {str(name): str(content) for name, content in error.trailing_metadata() or ()}
    code, words, reason = error.code(), error.details() or "", told.get("slotwise-reason", "")
    retry_after_ms = int(told.get("retry-after-ms", "0"))
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        status = HTTPStatus.TOO_MANY_REQUESTS if retry_after_ms else HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return error_for(status, words, reason, retry_after_ms)
    is_lost = code is grpc.StatusCode.UNAVAILABLE and (reason == LOST or not told.keys() & TOLD)
    if is_lost or code is grpc.StatusCode.CANCELLED:
        return ConnectionLost(f"{host} closed the connection before it had replied: {words}")
    return error_for(STATUSES.get(code, HTTPStatus.INTERNAL_SERVER_ERROR), words, reason, retry_after_ms)


LOST = "connection_lost"
"""The reason of a door that has lost its server: the request may or may not have run."""
TOLD = frozenset(("slotwise-reason", "retry-after-ms"))
"""What the server says with an error of its own, and gRPC with none."""


def _array(output: pb.ModelInferResponse.InferOutputTensor, content: bytes) -> Array:
    shape = tuple(output.shape)
    if output.datatype == BYTES:
        return elements_as_array(memoryview(content), shape)
    return np.frombuffer(content, DTYPES[output.datatype]).reshape(shape)


def _content(parameter: pb.InferParameter) -> bool | int | float | str | None:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)
