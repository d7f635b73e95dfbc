"""Calls on the gRPC door's port: messages of every method as bytes, and bytes that are no HTTP/2."""

from __future__ import annotations

import socket
from contextlib import suppress

import grpc

from fuzz.server import HOST, Server
from fuzz.target import Fault
from fuzz.targets.messages import message_seeds, method_of
from slotwise.edges.oip.grpc import inference_pb2 as pb

SERVICE = "inference.GRPCInferenceService"
CALL_S_MAX = 10.0
RAW = 255
"""The first byte of an input that goes to the socket as it is."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
ALLOWED = frozenset(grpc.StatusCode) - {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS}


class Calls:
    """One call for each input."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._channel = grpc.insecure_channel(f"{HOST}:{server.grpc_port}")

    def seeds(self) -> list[bytes]:
        """A message of each method, and the beginning of a connection."""
        raw = (
            PREFACE + SETTINGS,
            PREFACE + SETTINGS + b"\x00\x00\x05\x01\x05\x00\x00\x00\x01\x83\x86\x84\x41\x00",
            b"GET / HTTP/1.1\r\n\r\n",
        )
        return [*message_seeds(), *[bytes([RAW]) + one for one in raw]]

    def run(self, data: bytes) -> None:
        """One call, or one connection."""
        if data[:1] == bytes([RAW]):
            self._connect(data[1:])
            return
        method, raw = method_of(data)
        if method in ("RepositoryModelUnload", "RepositoryModelLoad") and b"plain" in raw:
            return  # it would be carried out
        try:
            self._call(method, raw)
        except grpc.RpcError as error:
            if error.code() not in ALLOWED:  # type: ignore[attr-defined]  # such an error is a call as well
                raise Fault(f"{method} ends as {error}") from error

    def check(self) -> None:
        """A good request is answered right over gRPC."""
        request = pb.ModelInferRequest(model_name="text", raw_input_contents=[b"\x01\x00\x00\x00a"])
        request.inputs.add(name="x", datatype="BYTES", shape=[1])
        request.parameters["timeout"].int64_param = 10_000_000
        answer = pb.ModelInferResponse.FromString(self._call("ModelInfer", request.SerializeToString()))
        if answer.raw_output_contents[0] != b"\x01\x00\x00\x00a":
            raise Fault(f"a good request is answered with {answer}")
        self._server.check()

    def close(self) -> None:
        """The end."""
        self._channel.close()
        self._server.close()

    def _call(self, method: str, raw: bytes) -> bytes:
        call = self._channel.unary_unary(f"/{SERVICE}/{method}", request_serializer=None, response_deserializer=None)
        answer: bytes = call(raw, timeout=CALL_S_MAX)
        return answer

    def _connect(self, data: bytes) -> None:
        with socket.create_connection((HOST, self._server.grpc_port), CALL_S_MAX) as connection:
            connection.settimeout(0.02)
            with suppress(OSError):  # closed, or waiting for more: both are its right
                connection.sendall(data)
                connection.recv(1 << 16)
