"""A client that sees bytes: sends what it is told, in the pieces it is told, and reads replies as they stand."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from slotwise.edges.oip.limits import Limits

TIMEOUT_S = 20.0
VALUES = [1.0, 2.0, 3.0, 4.0]
LIMITS = Limits(body_bytes_max=1 << 20, stream_bytes_min=4096, head_bytes_max=4096)
"""Small ones, so that reaching them takes little."""


def infer_body(*values: float, **more: object) -> bytes:
    """A JSON request of one row."""
    given = {"name": "x", "datatype": "FP32", "shape": [1, len(values)], "data": values}
    return json.dumps({"inputs": [given], **more}).encode()


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A POST as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def infer(model: str = "echo", body: bytes | None = None, *headers: str) -> bytes:
    """An inference as bytes."""
    return post(f"/v2/models/{model}/infer", infer_body(1, 2, 3, 4) if body is None else body, *headers)


def binary_request(model: str, tensor: dict[str, object], data: bytes, *headers: str) -> bytes:
    given_input = {**tensor, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [given_input], "parameters": {"binary_data_output": True}}).encode()
    return infer(model, head + data, f"Inference-Header-Content-Length: {len(head)}", *headers)


def wide(data: bytes, *headers: str) -> bytes:
    return binary_request("wide", {"name": "w", "datatype": "UINT8", "shape": [len(data)]}, data, *headers)


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def chunked(body: bytes, size: int) -> bytes:
    """A body in chunks."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@dataclass
class Answer:
    """A reply as it stood on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    text: dict[str, object] = field(default_factory=dict)

    @property
    def values(self) -> object:
        return self.text["outputs"][0]["data"]  # type: ignore[index]  # as the protocol says


class Wire:
    """One connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """Send, each piece by a call of its own."""
        for piece in pieces:
            self.socket.sendall(piece)

    def ask(self, *pieces: bytes) -> Answer:
        """Send, and read one reply."""
        self.send(*pieces)
        return self.read()

    def read(self) -> Answer:
        """The next reply."""
        head = self._until(b"\r\n\r\n").decode("latin-1")
        status_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): text for name, text in (line.split(": ", 1) for line in lines)}
        status = int(status_line.split(" ")[1])
        body = b"" if status == 100 else self._exactly(int(headers["content-length"]))
        if "content-encoding" in headers:
            body = {"gzip": gzip.decompress, "deflate": zlib.decompress}[headers["content-encoding"]](body)
        is_json = body and headers.get("content-type") == "application/json"
        return Answer(status, headers, body, json.loads(body) if is_json else {})

    def is_closed(self) -> bool:
        """Whether the server has closed, once everything sent has been read."""
        return not self._rest and not self._receive()

    def _until(self, end: bytes) -> bytes:
        while end not in self._rest:
            piece = self._receive()
            assert piece, f"closed after {self._rest!r}"
            self._rest += piece
        head, _, self._rest = self._rest.partition(end)
        return head + end

    def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = self._receive()
            assert piece, f"closed after {self._rest!r}"
            self._rest += piece
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(1 << 16)
        except ConnectionResetError:
            return b""
