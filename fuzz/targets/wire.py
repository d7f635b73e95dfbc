"""Bytes on the HTTP door's socket. An input is what is sent; a line of `---` parts what goes in packets of its own.

After each input a request follows that asks for the end of the connection, so whatever was understood is answered
until then. The answers must be HTTP, and none of them a fault of the server.
"""

from __future__ import annotations

import gzip
import socket
from collections import deque
from contextlib import suppress

import httptools

from fuzz.server import HOST, Server
from fuzz.target import Fault

PAUSE = b"\n---\n"
PIECES_MAX = 50
LAST = b"GET /v2/health/live HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
WAIT_S_MAX = 10.0
OPEN_MAX = 64
BODY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}'
BINARY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}]}'


class HttpWire:
    """One connection for each input."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._open: deque[tuple[socket.socket, bytes]] = deque()

    def seeds(self) -> list[bytes]:
        """Requests of every kind, alone and one behind the other."""
        plain = post(b"/v2/models/plain/infer", BODY)
        binary = post(
            b"/v2/models/plain/infer", BINARY + bytes(16), b"Inference-Header-Content-Length: %d" % len(BINARY)
        )
        zipped = post(b"/v2/models/plain/infer", gzip.compress(BODY), b"Content-Encoding: gzip")
        start = b"POST /v2/models/plain/infer HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = (
            start
            + b"5;a=b\r\n"
            + BODY[:5]
            + b"\r\n%x\r\n" % (len(BODY) - 5)
            + BODY[5:]
            + b"\r\n0\r\nX-Trailer: 1\r\n\r\n"
        )
        gets = [
            get(path)
            for path in (b"/v2", b"/v2/models/plain/config", b"/v2/models/stats", b"/metrics", b"/none?a=%20b")
        ]
        index = post(b"/v2/repository/index", b'{"ready":true}')
        load = post(b"/v2/repository/models/none/load", b"{}")
        waiting = post(b"/v2/models/plain/infer", BODY, b"Expect: 100-continue").replace(
            b"\r\n\r\n", b"\r\n\r\n" + PAUSE, 1
        )
        region = post(b"/v2/systemsharedmemory/region/r/register", b'{"key":"/none","offset":0,"byte_size":16}')
        old = get(b"/v2/health/ready").replace(b"HTTP/1.1", b"HTTP/1.0")
        other = [
            b"OPTIONS * HTTP/1.1\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\n\r\n",
            b"GET http://here HTTP/1.1\r\nHost: h\r\n\r\n",
        ]
        line = plain + gets[0] + binary + index
        return [
            plain,
            binary,
            zipped,
            chunks,
            *gets,
            index,
            load,
            waiting,
            region,
            old,
            *other,
            line,
            plain[:60] + PAUSE + plain[60:],
        ]

    def run(self, data: bytes) -> None:
        """One connection; its answers are read when others have been opened, so that waiting costs little."""
        connection = socket.create_connection((HOST, self._server.http_port), WAIT_S_MAX)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):  # the server may close before all is sent
            for piece in [*data.split(PAUSE, PIECES_MAX), LAST]:
                connection.sendall(piece)
        self._open.append((connection, data))
        if len(self._open) >= OPEN_MAX:
            self._read()

    def check(self) -> None:
        """All is answered, and others are served."""
        while self._open:
            self._read()
        self._server.check()

    def close(self) -> None:
        """The end."""
        self.check()
        self._server.close()

    def _read(self) -> None:
        connection, data = self._open.popleft()
        replies = Replies()
        with connection:
            try:
                while received := connection.recv(1 << 16):
                    replies.feed(received)
            except TimeoutError as error:
                raise Fault(f"the connection is still open after {WAIT_S_MAX:g} s", data) from error
            except ConnectionResetError:
                return  # the server has closed while there was more to read, which is its right
            except Fault as fault:
                fault.data = data
                raise


class Replies:
    """Reads a stream of replies; raises Fault for one that is none, or is a fault of the server."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.statuses: list[int] = []

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise Fault(f"what comes back is no HTTP ({error}): {data[:300]!r}") from error

    def on_headers_complete(self) -> None:
        """A reply begins."""
        status = self._parser.get_status_code()
        self.statuses.append(status)
        if status == 500:
            raise Fault("the server says that the fault is its own")


def get(path: bytes) -> bytes:
    """A GET as bytes."""
    return b"GET %s HTTP/1.1\r\nHost: here\r\n\r\n" % path


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    """A POST as bytes."""
    lines = [b"POST %s HTTP/1.1" % path, b"Host: here", b"Content-Length: %d" % len(body), *headers, b"", b""]
    return b"\r\n".join(lines) + body
