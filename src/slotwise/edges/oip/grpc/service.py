"""The service: every method of the protocol, answered by the server behind the door.

Requests stay bytes until they are in here, so that what is no message is told as any other error is. A stream has
many requests under way at once and answers each when its answer is there; where one ends, the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import grpc

from slotwise.edges.local.frames import SHOWN_LENGTH_MAX
from slotwise.edges.oip.grpc import inference_pb2 as pb
from slotwise.edges.oip.grpc.channel import Channel, Shown
from slotwise.edges.oip.grpc.errors import CallError, bad, unavailable
from slotwise.edges.oip.grpc.limits import GrpcLimits
from slotwise.edges.oip.grpc.messages import FINAL_TOLD, answer_of, parse, question_of
from slotwise.edges.oip.grpc.pages import CALLS, Call, page_of, reply_of
from slotwise.edges.oip.grpc.upstream import Upstream
from slotwise.facts.types import Reason
from slotwise.facts.units import US, S

NAME = "inference.GRPCInferenceService"
PEER_LENGTH_MAX = 256
METHOD_LENGTH_MAX = 200
Context = grpc.aio.ServicerContext[bytes, bytes]
Answerer = Callable[[bytes, Context], Awaitable[bytes]]
RefusedCall = Callable[[CallError, str, str], None]
"""Told of an error, the method, and who called."""


class Service:
    """Answers calls until it is told to drain; then it ends what is under way and takes nothing new."""

    def __init__(self, upstream: Upstream, channel: Channel, limits: GrpcLimits, refused: RefusedCall) -> None:
        self._upstream = upstream
        self._channel = channel
        self._refused = refused
        self._limits = limits
        self._open = 0
        """Calls that have begun and not ended."""
        self._under_way = 0
        self._is_draining = False
        self._readers: set[asyncio.Task[None]] = set()
        """One for each stream that may bring more."""
        self._idle = asyncio.Event()
        self._idle.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """All methods, for gRPC's server."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]]
        methods = {name: unary(self._call(name, self._page_answerer(call))) for name, call in CALLS.items()}
        methods["ModelInfer"] = unary(self._call("ModelInfer", self._infer))
        methods["ModelStreamInfer"] = stream(self._stream)
        return _Counted(grpc.method_handlers_generic_handler(NAME, methods), self._note_if_full)

    def unknown(self) -> grpc.GenericRpcHandler:
        """Refuses every method. To be asked last, so that what nobody serves is counted, as gRPC's library does not."""
        return _Unknown(self._refused)

    def _note_if_full(self, method: str) -> None:
        """A call has come. gRPC's library, which counts those of other services too, is about to refuse it if so."""
        if self._open >= self._limits.calls_max:
            words = f"{self._open} calls are open, the limit"
            error = CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, words, reason="queue_full")
            self._refused(error, _short(method), "")

    async def drain(self, patience_s: float) -> None:
        """Refuse new requests, and wait for those under way, no longer than that."""
        self._is_draining = True
        for reader in self._readers:
            reader.cancel()
        try:
            await asyncio.wait_for(self._idle.wait(), patience_s)
        except TimeoutError:
            return  # what is still under way is cut off by the server's end

    def _enter(self) -> None:
        if self._is_draining:
            raise self._no_more()
        self._under_way += 1
        self._idle.clear()

    def _no_more(self) -> CallError:
        return unavailable("the server is shutting down", self._limits.retry_after_ns, Reason.SHUTTING_DOWN.value)

    def _leave(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()

    def _call(self, name: str, answer: Answerer) -> Answerer:
        """One request, one answer or an error."""

        async def call(raw: bytes, context: Context) -> bytes:
            self._open += 1
            try:
                self._enter()
                try:
                    return await answer(raw, context)
                finally:
                    self._leave()
            except CallError as error:
                refusal = error.alone()
            finally:
                self._open -= 1
            # The abort is kept until garbage is collected, which is seldom, and with it the frames that it came from:
            # they must not hold the message any more.
            raw = b""
            self._refused(refusal, name, context.peer())
            return await context.abort(refusal.status, refusal.message, refusal.metadata())

        return call

    def _page_answerer(self, call: Call) -> Answerer:
        async def answer(raw: bytes, context: Context) -> bytes:
            page, shown = page_of(call, raw), _shown(context).authorization
            if page.body is None:
                reply = await self._upstream.get(page.path, shown)
            else:
                reply = await self._upstream.post(page.path, page.body, shown)
            return reply_of(call, reply).SerializeToString()

        return answer

    async def _infer(self, raw: bytes, context: Context) -> bytes:
        answer = await self._answer(parse(pb.ModelInferRequest, raw), context)
        return answer.SerializeToString()

    async def _answer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        question = question_of(request, _left_us(context))
        answer = await self._channel.infer(question, _shown(context))
        return answer_of(answer.head, answer.data, request.id)

    async def _stream(self, _requests: object, context: Context) -> None:
        """Read requests while there is room for them, each of which is a task of its own, and end when all are done."""
        self._open += 1
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._read(context, group))
                self._readers.add(reader)
                reader.add_done_callback(self._readers.discard)
        finally:
            self._open -= 1
        if self._is_draining:
            error = self._no_more()
            await context.abort(error.status, error.message, error.metadata())

    async def _read(self, context: Context, group: asyncio.TaskGroup) -> None:
        permits = asyncio.Semaphore(self._limits.stream_requests_max)
        writing = asyncio.Lock()
        while not self._is_draining:
            await permits.acquire()
            raw = cast("bytes | object", await context.read())
            if not isinstance(raw, bytes):
                return  # the client has no more; gRPC says so with a value of its own
            task = group.create_task(self._answer_on_stream(raw, context, writing))
            task.add_done_callback(lambda _: permits.release())

    async def _answer_on_stream(self, raw: bytes, context: Context, writing: asyncio.Lock) -> None:
        reply = pb.ModelStreamInferResponse()
        try:
            self._enter()
            try:
                await self._put_answer(raw, context, reply)
            finally:
                self._leave()
        except CallError as error:
            self._refused(error, "ModelStreamInfer", context.peer())
            reply.error_message = error.message
        async with writing:
            await context.write(reply.SerializeToString())

    async def _put_answer(self, raw: bytes, context: Context, reply: pb.ModelStreamInferResponse) -> None:
        request = parse(pb.ModelInferRequest, raw)
        reply.infer_response.id = request.id
        reply.infer_response.model_name = request.model_name
        answer = await self._answer(request, context)
        answer.parameters[FINAL_TOLD].bool_param = True  # there is one answer to each request, and never an empty one
        reply.infer_response.CopyFrom(answer)


class _Counted(grpc.GenericRpcHandler):
    """Methods, of whose every call somebody is told before it begins."""

    def __init__(self, methods: grpc.GenericRpcHandler, told: Callable[[str], None]) -> None:
        self._methods = methods
        self._told = told

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """The method's handler, if it is one of these."""
        found = self._methods.service(handler_call_details)
        if found is not None:
            self._told(handler_call_details.method)
        return found


class _Unknown(grpc.GenericRpcHandler):
    """Methods that there are not."""

    def __init__(self, refused: RefusedCall) -> None:
        self._refused = refused

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """A handler that reads nothing."""
        method = _short(handler_call_details.method)

        async def refuse(_requests: object, context: Context) -> None:
            error = CallError(
                grpc.StatusCode.UNIMPLEMENTED, f"there is no method {method!r}; {NAME} has the protocol's"
            )
            self._refused(error, method, context.peer())
            await context.abort(error.status, error.message)

        return grpc.stream_stream_rpc_method_handler(refuse)


def _short(method: str) -> str:
    """A method as it is logged: by its own name where it is of the protocol's service, and not at any length."""
    return method.removeprefix(f"/{NAME}/")[:METHOD_LENGTH_MAX]


def _left_us(context: Context) -> int | None:
    """How long the client still waits, as it has told gRPC; None where it has not."""
    left_s = cast("float | None", context.time_remaining())
    return None if left_s is None else int(left_s * S // US)


def _shown(context: Context) -> Shown:
    """What the client shows of its rights and its trace. Raises CallError for what the server could not even read."""
    found = {}
    for name, content in context.invocation_metadata() or ():
        if name in ("authorization", "traceparent"):
            text = content if isinstance(content, str) else content.decode("latin-1")
            if len(text) <= SHOWN_LENGTH_MAX and text.isascii() and text.isprintable():
                found[name] = text
            elif name == "authorization":
                raise bad("the metadata `authorization` holds what no header can hold; show `Bearer TOKEN`")
    return Shown(**found, peer=context.peer()[:PEER_LENGTH_MAX])
