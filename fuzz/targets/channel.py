"""The local channel's sockets, with descriptors: that for clients, and the one that is the gRPC door's.

An input is a short program: what kind of memory, which socket, and which frames.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
from contextlib import suppress

from fuzz.mutate import Mutator
from fuzz.reader import Reader
from fuzz.server import Server
from fuzz.target import Fault
from fuzz.targets.frames import TRACE, frame_seeds
from slotwise.edges.local import frames

MEMORY_BYTES = 1 << 16
WAIT_S_MAX = 10.0
LISTEN_S = 0.05
FRAMES_MAX = 20
READ_BYTES = 1 << 18
DATATYPES = ("FP32", "BYTES", "BOOL", "FP64", "")
MODELS = (("plain", "FP32", (1, 4), 16), ("text", "BYTES", (1,), 9), ("flags", "BOOL", (4,), 4))


class Channel:
    """One client for each input."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._mutator = Mutator(frame_seeds(), ())

    def seeds(self) -> list[bytes]:
        """Programs that say hello and ask, and others."""
        source = random.Random(5)
        start, asked, relayed = bytes([0, 0, 0, 0, 0]), bytes([7, 0, 0, 1, 0, 0, 0]), bytes([8, 0, 1, 0, 0, 0, 0])
        gate = bytes([0, 1, 0, 0, 0])
        return [
            start + asked,
            start + asked * 3,
            gate + relayed,
            gate + relayed * 3,
            *[source.randbytes(60) for _ in range(20)],
        ]

    def run(self, data: bytes) -> None:
        """One client."""
        reader = Reader(data)
        memory = _memory(reader.byte())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                client.settimeout(WAIT_S_MAX)
                client.connect(reader.choice((self._server.local, self._server.gate)))
                with suppress(BrokenPipeError, ConnectionResetError):  # it has been let go of
                    self._say(client, reader, memory)
        finally:
            os.close(memory)

    def check(self) -> None:
        """Others are served."""
        self._server.check()
        self._server.check_local()

    def close(self) -> None:
        """The end."""
        self._server.close()

    def _say(self, client: socket.socket, reader: Reader, memory: int) -> None:
        """Hello, mostly; then frames. What is answered must be frames."""
        count = reader.choice((1, 1, 1, 0, 2, 5))
        first = frames.encode(frames.Hello()) if reader.choice((0, 0, 0, 1)) == 0 else reader.bytes()
        socket.send_fds(client, [first or b"x"], [memory] * count)
        is_patient = reader.byte() % 8 == 0
        for _ in range(FRAMES_MAX):
            if reader.is_done:
                break
            client.send(self._frame(reader) or b"x")
            _shake(memory, reader.byte())
        if is_patient:
            self._listen(client)
        client.shutdown(socket.SHUT_WR)
        try:
            while data := _receive(client):
                frames.decode_server(data)
        except TimeoutError as error:
            raise Fault("the connection is still open") from error
        except frames.FrameError as error:
            raise Fault(f"what comes back is no frame: {error}") from error

    def _listen(self, client: socket.socket) -> None:
        """Hear the answers, which one who leaves at once never does."""
        client.settimeout(LISTEN_S)
        with suppress(TimeoutError):
            while data := _receive(client):
                frames.decode_server(data)
        client.settimeout(WAIT_S_MAX)

    def _frame(self, reader: Reader) -> bytes:
        kind = reader.byte() % 12
        if kind == 0:
            return reader.bytes()
        if kind == 1:
            return self._mutator.draw(random.Random(reader.bytes()))[:10_000]
        if kind == 2:
            return frames.encode(frames.Release((reader.count(), reader.count())))
        if kind == 3:
            return frames.encode(frames.Cancel(reader.count()))
        if kind >= 8:
            return self._relay(reader, kind)
        model, datatype, shape, nbytes = reader.choice(MODELS)
        if kind == 4:
            datatype, shape, nbytes = reader.choice(DATATYPES), (reader.count(), reader.count()), reader.count()
        offset = reader.count() * (1 if kind == 5 else 64) % (1 << 62)
        tensor = frames.Tensor("x", datatype, shape, offset, nbytes)
        ask = frames.Ask(reader.count(), model, "", (tensor,), timeout_us=reader.count(), priority=reader.byte() % 12)
        ask.released = (reader.count(),) if kind == 6 else ()
        return frames.encode(ask)

    def _relay(self, reader: Reader, kind: int) -> bytes:
        """A request of another's: its head is right, broken, or speaks of shared memory and of values in itself."""
        model, datatype, shape, nbytes = reader.choice(MODELS)
        told = {"binary_data_size": nbytes}
        if kind == 9:
            told = {"shared_memory_region": "r", "shared_memory_byte_size": nbytes}
        tensor = {"name": "x", "datatype": datatype, "shape": shape, "parameters": told}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": kind != 10}}).encode()
        if kind == 11:
            head = self._mutator.draw(random.Random(reader.bytes()))[:4000]
        relay = frames.Relay(reader.count(), model, "", head, 64 * reader.count() % (1 << 62), nbytes)
        relay.timeout_us = reader.count()
        relay.authorization, relay.traceparent = reader.choice((("", ""), ("Bearer a", TRACE), ("\x00", "00-" * 9)))
        relay.released = (reader.count(),) if relay.timeout_us % 4 == 3 else ()
        return frames.encode(relay)


def _receive(client: socket.socket) -> bytes:
    data, descriptors, _, _ = socket.recv_fds(client, READ_BYTES, 4)
    for descriptor in descriptors:
        os.close(descriptor)
    return data


def _memory(kind: int) -> int:
    """A descriptor: mostly such as it should be, else one that is not safe to map."""
    match kind % 8:
        case 4:
            return os.open(os.devnull, os.O_RDWR)
        case 5:
            read, write = os.pipe()
            os.close(write)
            return read
        case _:
            fd = os.memfd_create("fuzz", os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, (0, MEMORY_BYTES, MEMORY_BYTES, 1 << 40)[kind % 8 % 4] if kind % 8 > 5 else MEMORY_BYTES)
            os.pwrite(fd, b"\x01\x00\x00\x00a\x02\x00\x00\x00" * 20, 0)
            if kind % 8 != 3:
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            return fd


def _shake(memory: int, kind: int) -> None:
    """Change memory while the server may be reading it: other bytes, a hole, another size where no seal forbids it."""
    with suppress(OSError):
        if kind % 4 == 1:
            os.pwrite(memory, bytes([kind]) * 64, 0)
        elif kind % 4 == 2:
            os.ftruncate(memory, kind)
