"""The ways over gRPC and over the local channel."""

from __future__ import annotations

import asyncio
import time

import grpc
import numpy as np

from slotwise.client import (
    Array,
    AsyncLocalClient,
    BadRequest,
    ClientError,
    ModelNotFound,
    NoRoom,
    Question,
    Refused,
    TooLate,
)
from slotwise.client.wire import DTYPES, packed
from slotwise.edges.oip.grpc import inference_pb2 as pb
from slotwise.facts.units import S
from soak.questions import Asked, Flaw
from soak.tally import End, Outcome, tells_removed
from soak.web import ANSWER_S_MAX, judged_answer

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", 64 << 20),
)
SERVER_MADE = frozenset({"slotwise-reason", "retry-after-ms"})
"""Metadata that tells a status of the server's from one that the client's own library made up."""
KILL_NOTICED_NS = 1 * S
"""A call that was begun so shortly after a kill may still have gone to the dead."""
ENDS = {
    grpc.StatusCode.UNAVAILABLE: End.REFUSED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: End.REFUSED,
    grpc.StatusCode.DEADLINE_EXCEEDED: End.TOO_LATE,
}
DESERVED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
LOCAL_CLIENTS = 2


class GrpcWay:
    """Asks over one channel, which waits for a door that is being replaced."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL)
        self._infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(METHOD)
        self.killed_ns: list[int] = []
        """When the door was killed, on this machine's monotonic clock."""

    async def ask(self, asked: Asked) -> Outcome:
        """How it ended."""
        began_ns = time.monotonic_ns()
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                raw = await self._infer(message(asked), wait_for_ready=True)
        except TimeoutError:
            return self._lost(began_ns, f"no reply within {ANSWER_S_MAX:g} s")
        except grpc.aio.AioRpcError as error:
            return self._judged(asked, began_ns, error)
        return judged_answer(asked, _outputs(pb.ModelInferResponse.FromString(raw)))

    async def abandon(self, asked: Asked, after_s: float) -> None:
        """Ask, and take it back after a while."""
        call = self._infer(message(asked), wait_for_ready=True)
        await asyncio.sleep(after_s)
        call.cancel()

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    def _judged(self, asked: Asked, began_ns: int, error: grpc.aio.AioRpcError) -> Outcome:
        code, told = error.code(), f"{error.code().name}: {error.details()}"
        is_told = any(name in SERVER_MADE for name, _ in error.trailing_metadata() or ())
        if code in LOST and not is_told:
            return self._lost(began_ns, told)
        if code in DESERVED:
            return Outcome(_deserved(asked, told), told)
        return Outcome(ENDS.get(code, End.WRONG), told)

    def _lost(self, began_ns: int, told: str) -> Outcome:
        was_killed = any(killed_ns >= began_ns - KILL_NOTICED_NS for killed_ns in self.killed_ns)
        return Outcome(End.DOOR_KILLED if was_killed else End.UNANSWERED, told)


class LocalWay:
    """Asks over the local channel, on a few connections in turn; one that was lost is made anew."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._clients: list[AsyncLocalClient] = []
        self._opening = asyncio.Lock()
        self._turn = 0

    async def ask(self, asked: Asked) -> Outcome:
        """How it ended."""
        try:
            client = await self._client()
            answer = await client.ask(Question(model=asked.model, inputs=asked.inputs, timeout_us=asked.timeout_us))
        except Refused as error:
            return Outcome(End.REFUSED, str(error))
        except TooLate as error:
            return Outcome(End.TOO_LATE, str(error))
        except (BadRequest, ModelNotFound) as error:
            return Outcome(_deserved(asked, f"{error} {error.reason}"), str(error))
        except NoRoom as error:
            return Outcome(End.REFUSED, f"by the client itself: {error}")
        except ClientError as error:
            end = End.UNANSWERED if error.status is None else End.WRONG
            return Outcome(end, f"{type(error).__name__}: {error}")
        outcome = judged_answer(asked, answer.outputs)
        answer.release()
        return outcome

    def close(self) -> None:
        """Close every connection, and forget the memory that came with it."""
        for client in self._clients:
            client.close()
        self._clients.clear()

    async def _client(self) -> AsyncLocalClient:
        async with self._opening:
            for client in [client for client in self._clients if not client.is_open]:
                self._clients.remove(client)
                client.close()
            while len(self._clients) < LOCAL_CLIENTS:
                made = AsyncLocalClient(self.path, answer_s_max=ANSWER_S_MAX)
                self._clients.append(made)
                await made.open()
        self._turn += 1
        return self._clients[self._turn % len(self._clients)]


def _deserved(asked: Asked, told: str) -> End:
    """What it comes to when a request is told that it is at fault."""
    if asked.flaw is not None:
        return End.REJECTED
    return End.REMOVED if tells_removed(told) else End.WRONG


def message(asked: Asked) -> bytes:
    """A request as gRPC has it."""
    if asked.flaw is Flaw.GARBAGE:
        return b"\xff" * 40
    request = pb.ModelInferRequest(model_name=asked.model)
    if asked.timeout_us is not None:
        request.parameters["timeout"].int64_param = asked.timeout_us
    for name, array in asked.inputs.items():
        datatype, content = packed(name, array)
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(content)
    return request.SerializeToString()


def _outputs(answer: pb.ModelInferResponse) -> dict[str, Array]:
    """The outputs of an answer, which are all numbers here."""
    return {
        output.name: np.frombuffer(content, DTYPES[output.datatype]).reshape(tuple(output.shape))
        for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }
