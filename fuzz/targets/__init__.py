"""Every target by its name. Those of `IN_PROCESS` run by the million, the others before a server that is alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.target import Target

if TYPE_CHECKING:
    from fuzz.server import Server

IN_PROCESS = ("http-body", "grpc-messages", "local-frames", "config")
LIVE = ("http-wire", "grpc", "local", "regions", "models")
_PROTOCOL = (
    *(b"shared_memory_region", b"shared_memory_byte_size", b"shared_memory_offset", b"binary_data_size", b"timeout"),
    *(
        b"binary_data_output",
        b"slotwise_inputs",
        b"binary_data",
        b"classification",
        b"priority",
        b"parameters",
        b"outputs",
        b"inputs",
    ),
    *(b'"data":[', b'"shape":[', b'"datatype":"', b"FP32", b"FP16", b"BF16", b"BYTES", b"BOOL", b"INT64", b"UINT8"),
    *(b"NaN", b"1e999", b"-0", b"null", b"true", b'"\\ud800"', b"\\u0000", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00"),
)
_HTTP = (
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"\x00",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"GET ",
        b"POST ",
        b"CONNECT ",
    ),
    *(b"Content-Length: 5\r\n", b"Content-Length: +5\r\n", b"Content-Length: 0x5\r\n", b"Content-Length: 5, 5\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: x, chunked\r\n", b"Transfer-Encoding: chunked, x\r\n"),
    *(b"Transfer-Encoding : chunked\r\n", b" folded\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n"),
    *(
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Host: [\r\n",
        b"Host: \xff\r\n",
    ),
    *(
        b"Inference-Header-Content-Length: 0\r\n",
        b"Inference-Header-Content-Length: 99\r\n",
        b"0\r\n\r\n",
        b"5;a=b\r\n",
    ),
    *(
        b"ffffffffffffffff\r\n",
        b"/v2/models/plain/infer",
        b"/v2/repository/models/..%2f../load",
        b"/%ff",
        b"/\xff",
        b"?\xff",
    ),
    *(b"http://", b"*", b"//", b"%00", b"Authorization: Bearer x\r\n", b"\n---\n"),
)
_FILES = (
    *(
        b"[[",
        b"]]",
        b"[policy_settings]\n",
        b"[door]\n",
        b"[[token]]\n",
        b"batch_max = ",
        b"versions = ",
        b"examples = {",
    ),
    *(
        b"priority = ",
        b"inf",
        b"nan",
        b"9223372036854775808",
        b'"""',
        b"'''",
        b"input [{",
        b"}]",
        b"dims: [",
        b"TYPE_FP32",
    ),
    *(
        b'["Arrived",{',
        b'["BatchDone",{',
        b'["ModelAdded",{',
        b'["ExecutorUp",{',
        b'["Woke",{}]',
        b"[" * 2000,
        b"{" * 2000,
    ),
    *(b"a=[" * 500, b"max_batch_size: ", b"version_policy { latest { num_versions: ", b"\\377", b"2026-01-01"),
)
WORDS: dict[str, tuple[bytes, ...]] = {
    "http-body": _PROTOCOL,
    "grpc-messages": _PROTOCOL,
    "local-frames": _PROTOCOL,
    "config": _FILES,
    "http-wire": (*_HTTP, *_PROTOCOL),
    "grpc": _PROTOCOL,
    "local": (),
    "regions": (),
    "models": _FILES,
}


def make(name: str) -> Target:
    """A target, ready to run; the live ones have a server of their own."""
    if name in LIVE:
        from fuzz.server import Server

        return make_live(name, Server())
    match name:
        case "http-body":
            from fuzz.targets.body import Body

            return Body()
        case "grpc-messages":
            from fuzz.targets.messages import Messages

            return Messages()
        case "local-frames":
            from fuzz.targets.frames import Frames

            return Frames()
        case _:
            from fuzz.targets.files import Files

            return Files()


def make_live(name: str, server: Server) -> Target:
    """A target before a server."""
    match name:
        case "http-wire":
            from fuzz.targets.wire import HttpWire

            return HttpWire(server)
        case "grpc":
            from fuzz.targets.calls import Calls

            return Calls(server)
        case "local":
            from fuzz.targets.channel import Channel

            return Channel(server)
        case "regions":
            from fuzz.targets.regions import Regions

            return Regions(server)
        case _:
            from fuzz.targets.models import Models

            return Models(server)
