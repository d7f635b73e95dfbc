"""A gRPC door in its own process, before a system that echoes in this one."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import msgspec
import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from slotwise.edges.oip.access import Grant
from slotwise.edges.oip.grpc.keeper import DoorKeeper
from slotwise.edges.oip.grpc.limits import DoorSettings, GrpcLimits, gate_limits
from slotwise.edges.oip.grpc.service import NAME
from slotwise.edges.oip.http import NO_RECORDING
from slotwise.edges.oip.limits import Limits
from slotwise.edges.oip.recording import Recording
from slotwise.engine.ports import Refusal
from tests.edges.echo import HOST, WAIT_S_MAX, System, serving
from tests.edges.wire import LIMITS

GRPC_LIMITS = GrpcLimits(message_bytes_max=2 << 20, stream_requests_max=64, requests_max=80, restart_s_min=0.01)
"""Small ones, so that reaching them takes little; a message may be longer than the body that the server takes."""
PATIENCE_S = 20.0
ROW = np.array([[1, 2, 3, 4]], dtype=np.float32)
Request = service_pb2.ModelInferRequest
Reply = service_pb2.ModelStreamInferResponse


@dataclass
class Door:
    """The door, what it leads to, and where it is."""

    system: System
    keeper: DoorKeeper
    refused: list[Refusal]
    """By the door itself."""

    @property
    def address(self) -> str:
        return f"{HOST}:{self.keeper.port}"

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.keeper.stop(), self.system.loop).result(WAIT_S_MAX)


@contextmanager
def opened(
    limits: GrpcLimits = GRPC_LIMITS,
    server_limits: Limits = LIMITS,
    grants: Sequence[Grant] | None = None,
    recording: Recording = NO_RECORDING,
    **changes: object,
) -> Iterator[Door]:
    """A door that listens, with settings of its own."""
    settings = DoorSettings(host=HOST, port=0, upstream_idle_s=10.0, patience_s=PATIENCE_S, limits=limits)
    refused: list[Refusal] = []
    keeper = DoorKeeper(msgspec.structs.replace(settings, **changes), refused.append)
    with serving(
        server_limits,
        arena_bytes=512 << 20,
        local_path=keeper.upstream,
        gate_path=keeper.channel,
        gate_limits=gate_limits(limits),
        grants=grants,
        recording=recording,
    ) as system:
        door = Door(system, keeper, refused)
        try:
            asyncio.run_coroutine_threadsafe(keeper.start(), system.loop).result(WAIT_S_MAX)
            yield door
        finally:
            system.loop.call_soon_threadsafe(system.controller.silent.clear)
            door.stop()


class Stream:
    """A stream by bytes, written to and read from at one's own pace."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._requests: queue.Queue[bytes | None] = queue.Queue()
        call = channel.stream_stream(f"/{NAME}/ModelStreamInfer", response_deserializer=Reply.FromString)
        self.call = call(iter(self._requests.get, None))

    def send(self, model: str, name: str, *, is_final_asked: bool = False) -> None:
        request = Request(model_name=model, id=name, raw_input_contents=[ROW.tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=ROW.shape)
        if is_final_asked:
            request.parameters["triton_enable_empty_final_response"].bool_param = True
        self._requests.put(request.SerializeToString())

    def send_garbage(self) -> None:
        self._requests.put(b"\xff\xff")

    def read(self, count: int) -> list[Reply]:
        return [next(self.call) for _ in range(count)]

    def end(self) -> None:
        self._requests.put(None)


def tensor(name: str, datatype: str, array: NDArray[np.generic]) -> triton.InferInput:
    """An input in the client's form."""
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made
