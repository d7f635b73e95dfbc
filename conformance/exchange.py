"""A request, how it is asked of a server over HTTP or gRPC, and the answer as it came.

A case holds everything that goes over the wire; both servers get the same bytes. What differs by nature between two
servers or two runs (times, pointers) is hidden by its key before answers are compared, and kept in the raw answers.
"""

from __future__ import annotations

import contextlib
import http.client
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import grpc
import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2_grpc

if TYPE_CHECKING:
    from conformance.servers import Server

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
ASK_S_MAX = 20.0
HEAD_LENGTH = "Inference-Header-Content-Length"
HEADERS = ("Content-Type", "Content-Encoding", HEAD_LENGTH, "Allow", "Retry-After")
"""Those that say something to a client."""
TEXT_LEN_MAX = 400
ANY_HEADER = 32 + zlib.MAX_WBITS
"""Tells zlib to take gzip and deflate."""


class HttpCase(msgspec.Struct, frozen=True, kw_only=True):
    """A request over HTTP."""

    name: str
    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    hidden: Sequence[str] = ()
    """Keys whose values differ by nature."""

    def described(self) -> str:
        """The request in a line."""
        return f"{self.method} {self.path}"

    def ask(self, server: Server) -> Answer:
        """The server's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=ASK_S_MAX)
        with contextlib.closing(connection):
            connection.request(self.method, self.path, self.body, dict(self.headers))
            reply = connection.getresponse()
            content = reply.read()
        headers = {name: reply.headers[name] for name in HEADERS if name in reply.headers}
        return _answer(str(reply.status), headers, content)


class GrpcCase(msgspec.Struct, frozen=True, kw_only=True):
    """A call over gRPC."""

    name: str
    method: str
    message: Message
    hidden: Sequence[str] = ()

    def described(self) -> str:
        """The call in a line."""
        return self.method

    def ask(self, server: Server) -> Answer:
        """The server's answer; of a stream, the first."""
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            call = getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), self.method)
            try:
                if self.method == "ModelStreamInfer":
                    reply = next(call(iter([self.message]), timeout=ASK_S_MAX))
                else:
                    reply = call(self.message, timeout=ASK_S_MAX)
            except grpc.RpcError as error:
                return Answer(status=error.code().name, body=error.details())
        return Answer(status="OK", body=json_format.MessageToDict(reply, preserving_proto_field_name=True))


Case = HttpCase | GrpcCase


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came back. `body` is JSON or a text; `binary` holds what follows it, in hexadecimal digits."""

    status: str
    headers: Mapping[str, str] = {}
    body: object = None
    binary: str = ""

    def is_done(self) -> bool:
        """Whether the request was answered and not refused."""
        return self.status in ("200", "OK")


def tensor(name: str, datatype: str, shape: Sequence[int], **more: Json) -> dict[str, Json]:
    """An input as JSON has it."""
    return {"name": name, "datatype": datatype, "shape": list(shape), **more}


def words(*texts: bytes) -> bytes:
    """BYTES as they go over the wire."""
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _answer(status: str, headers: dict[str, str], content: bytes) -> Answer:
    length = headers.get(HEAD_LENGTH)
    if "Content-Encoding" in headers:
        content = zlib.decompress(content, ANY_HEADER)
    head = content if length is None else content[: int(length)]
    try:
        body: Json = msgspec.json.decode(head) if head else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = head[:TEXT_LEN_MAX].decode("latin-1")
    return Answer(status, headers, body, "" if length is None else content[int(length) :].hex())
