"""What is read of the server's own pages, and what is asked of its repository."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from slotwise.demo.server import ExecutorStatus
from soak.web import Connections, NoReply

STATUS_PATH = "/v2/slotwise/status"


class GrpcDoor(msgspec.Struct, frozen=True):
    """The gRPC door as the server tells of it."""

    address: str
    pid: int | None
    restarts: int


class Status(msgspec.Struct, frozen=True):
    """The server as it stands."""

    executors: tuple[ExecutorStatus, ...]
    grpc: GrpcDoor


class Indexed(msgspec.Struct, frozen=True):
    """A model as the index has it."""

    name: str
    state: str = ""


async def status(connections: Connections) -> Status:
    """How the server stands. Raises NoReply."""
    reply = await connections.get(STATUS_PATH)
    if reply.status != HTTPStatus.OK:
        raise NoReply(f"{STATUS_PATH} answered {reply.status}")
    return msgspec.json.decode(reply.body, type=Status)


async def models_ready(connections: Connections) -> set[str]:
    """The models that can be asked. Raises NoReply."""
    reply = await connections.post("/v2/repository/index")
    index = msgspec.json.decode(reply.body, type=list[Indexed])
    return {line.name for line in index if line.state == "READY"}
