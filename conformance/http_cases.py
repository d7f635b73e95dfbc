"""What is asked over HTTP, in order: later requests meet the state that earlier ones left."""

from __future__ import annotations

import gzip
import struct
import zlib

import msgspec

from conformance.exchange import HEAD_LENGTH, HttpCase, Json, tensor, words

KEY = "/slotwise-conformance"
KEY_BYTES = 256
COUNTS = ("ns", "last_inference")
X: dict[str, Json] = tensor("x", "FP32", (1, 4), data=[1.0, 2.0, 3.0, 4.0])
ROW = struct.pack("<4f", 1, 2, 3, 4)


def get(name: str, path: str, **more: object) -> HttpCase:
    return _case(name, "GET", path, **more)


def post(name: str, path: str, body: Json | bytes = None, **more: object) -> HttpCase:
    content = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
    return _case(name, "POST", path, body=content, **more)


def infer(name: str, model: str, *inputs: Json, **more: Json) -> HttpCase:
    return post(name, f"/v2/models/{model}/infer", {"inputs": list(inputs), **more})


def binary(name: str, model: str, head: Json, data: bytes, *, length: str | None = None) -> HttpCase:
    """A body with binary data behind its JSON; `length` is what is said of the JSON's."""
    told = b"" if head is None else msgspec.json.encode(head)
    headers = {HEAD_LENGTH: str(len(told)) if length is None else length, "Content-Type": "application/octet-stream"}
    return post(name, f"/v2/models/{model}/infer", told + data, headers=headers)


def sized(name: str, datatype: str, shape: tuple[int, ...], size: int) -> dict[str, Json]:
    return tensor(name, datatype, shape, parameters={"binary_data_size": size})


def _case(name: str, method: str, path: str, **more: object) -> HttpCase:
    return HttpCase(name=name, method=method, path=path, **more)  # type: ignore[arg-type]  # fields of the case


def _packed(name: str, coding: str, body: bytes) -> HttpCase:
    return post(name, "/v2/models/echo/infer", body, headers={"Content-Encoding": coding})


def _long(name: str, accepted: str) -> HttpCase:
    rows = tensor("i", "INT64", (400,), data=list(range(400)))
    rest = [
        tensor("b", "BOOL", (1,), data=[True]),
        tensor("o", "UINT8", (1,), data=[1]),
        tensor("d", "FP64", (1,), data=[0.5]),
    ]
    content = msgspec.json.encode({"inputs": [rows, *rest]})
    return post(name, "/v2/models/kinds/infer", content, headers={"Accept-Encoding": accepted})


KINDS = (
    tensor("b", "BOOL", (2,), data=[True, False]),
    tensor("i", "INT64", (2,), data=[-(2**62), 2**62]),
    tensor("o", "UINT8", (2,), data=[0, 255]),
    tensor("d", "FP64", (2,), data=[0.1, -1e300]),
)
IN_REGION: dict[str, Json] = {"shared_memory_region": "mine", "shared_memory_byte_size": 16}
OUT_OF_REGION: dict[str, Json] = {**IN_REGION, "shared_memory_offset": KEY_BYTES}
SYSTEM, CUDA = "/v2/systemsharedmemory", "/v2/cudasharedmemory"

SECTIONS: dict[str, tuple[HttpCase, ...]] = {
    "Server": (
        get("server metadata", "/v2"),
        get("server metadata, with a slash", "/v2/"),
        post("server metadata, wrong method", "/v2"),
        get("live", "/v2/health/live"),
        get("ready", "/v2/health/ready"),
        _case("live, HEAD", "HEAD", "/v2/health/live"),
        get("no such path", "/v2/nowhere"),
        get("root", "/"),
    ),
    "Models": (
        get("model metadata", "/v2/models/echo"),
        get("model metadata, by version", "/v2/models/echo/versions/1"),
        get("model metadata, BYTES", "/v2/models/text"),
        get("model metadata, unknown version", "/v2/models/echo/versions/9"),
        get("model metadata, version no number", "/v2/models/echo/versions/x"),
        get("model metadata, unknown model", "/v2/models/nobody"),
        get("model metadata, model that does not load", "/v2/models/broken"),
        get("model ready", "/v2/models/echo/ready"),
        get("model ready, by version", "/v2/models/echo/versions/1/ready"),
        get("model ready, unknown version", "/v2/models/echo/versions/9/ready"),
        get("model ready, unknown model", "/v2/models/nobody/ready"),
        get("model ready, model that does not load", "/v2/models/broken/ready"),
        get("model configuration", "/v2/models/echo/config"),
        get("model configuration, no batches", "/v2/models/text/config"),
        get("model configuration, unknown model", "/v2/models/nobody/config"),
        post("model metadata, wrong method", "/v2/models/echo"),
    ),
    "Inference in JSON": (
        infer("flat data", "echo", X),
        infer("nested data", "echo", tensor("x", "FP32", (2, 4), data=[[1, 2, 3, 4], [5, 6, 7, 8]])),
        post("by version", "/v2/models/echo/versions/1/infer", {"inputs": [X]}),
        infer("id, output by name", "echo", X, id="mine", outputs=[{"name": "y"}]),
        infer("empty list of outputs", "echo", X, outputs=[]),
        infer(
            "two inputs",
            "add",
            tensor("a", "FP32", (1, 4), data=[1, 2, 3, 4]),
            tensor("b", "FP32", (1, 4), data=[1, 1, 1, 1]),
        ),
        infer("every kind of number", "kinds", *KINDS),
        infer("BYTES as text", "text", tensor("t", "BYTES", (3,), data=["", "one", "zwölf"])),
        infer("no elements", "text", tensor("t", "BYTES", (0,), data=[])),
        infer("no rows", "echo", tensor("x", "FP32", (0, 4), data=[])),
        infer("parameters timeout and priority", "echo", X, parameters={"timeout": 5_000_000, "priority": 1}),
        infer("timeout that is no number", "echo", X, parameters={"timeout": "soon"}),
        infer("a parameter of one's own", "echo", X, parameters={"mine": "yes"}),
        infer("a parameter that begins with triton_", "echo", X, parameters={"triton_mine": "yes"}),
        post(
            "a form's content type",
            "/v2/models/echo/infer",
            {"inputs": [X]},
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        ),
        infer("classification", "echo", X, outputs=[{"name": "y", "parameters": {"classification": 2}}]),
    ),
    "Inference in JSON, refused": (
        infer("unknown model", "nobody", X),
        post("unknown version", "/v2/models/echo/versions/9/infer", {"inputs": [X]}),
        infer("model that does not load", "broken", X),
        post("not JSON", "/v2/models/echo/infer", b"{inputs"),
        post("empty body", "/v2/models/echo/infer"),
        post("no inputs", "/v2/models/echo/infer", {}),
        post("inputs no list", "/v2/models/echo/infer", {"inputs": {"x": 1}}),
        infer("input without a shape", "echo", {"name": "x", "datatype": "FP32", "data": [1, 2, 3, 4]}),
        infer("input without data", "echo", tensor("x", "FP32", (1, 4))),
        infer("wrong name of an input", "echo", tensor("z", "FP32", (1, 4), data=[1, 2, 3, 4])),
        infer("an input too few", "add", tensor("a", "FP32", (1, 4), data=[1, 2, 3, 4])),
        infer("an input too many", "echo", X, tensor("z", "FP32", (1, 4), data=[1, 2, 3, 4])),
        infer("the same input twice", "echo", X, X),
        infer("wrong datatype", "echo", tensor("x", "INT64", (1, 4), data=[1, 2, 3, 4])),
        infer("unknown datatype", "echo", tensor("x", "FP12", (1, 4), data=[1, 2, 3, 4])),
        infer("wrong shape", "echo", tensor("x", "FP32", (1, 5), data=[1, 2, 3, 4, 5])),
        infer("wrong rank", "echo", tensor("x", "FP32", (4,), data=[1, 2, 3, 4])),
        infer("negative shape", "echo", tensor("x", "FP32", (-1, 4), data=[1, 2, 3, 4])),
        infer("fewer data than the shape says", "echo", tensor("x", "FP32", (1, 4), data=[1, 2, 3])),
        infer("more data than the shape says", "echo", tensor("x", "FP32", (1, 4), data=[1, 2, 3, 4, 5])),
        infer("text where a number belongs", "echo", tensor("x", "FP32", (1, 4), data=["a", "b", "c", "d"])),
        infer("a number out of its datatype", "kinds", *KINDS[:2], tensor("o", "UINT8", (2,), data=[0, 256]), KINDS[3]),
        infer("FP16 in JSON", "half", tensor("h", "FP16", (1,), data=[0.5])),
        infer("more rows than a batch has", "echo", tensor("x", "FP32", (9, 4), data=[0.0] * 36)),
        infer("unknown output", "echo", X, outputs=[{"name": "z"}]),
        get("wrong method", "/v2/models/echo/infer"),
    ),
    "Inference in binary": (
        binary("binary in, JSON out", "echo", {"inputs": [sized("x", "FP32", (1, 4), 16)]}, ROW),
        binary(
            "binary in and out",
            "echo",
            {"inputs": [sized("x", "FP32", (1, 4), 16)], "parameters": {"binary_data_output": True}},
            ROW,
        ),
        post(
            "JSON in, binary out",
            "/v2/models/echo/infer",
            {"inputs": [X], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]},
        ),
        post(
            "an output's own wish wins",
            "/v2/models/echo/infer",
            {
                "inputs": [X],
                "outputs": [{"name": "y", "parameters": {"binary_data": False}}],
                "parameters": {"binary_data_output": True},
            },
        ),
        binary(
            "one input in JSON, one in binary",
            "add",
            {"inputs": [tensor("a", "FP32", (1, 4), data=[1, 1, 1, 1]), sized("b", "FP32", (1, 4), 16)]},
            ROW,
        ),
        binary(
            "FP16",
            "half",
            {"inputs": [sized("h", "FP16", (2,), 4)], "parameters": {"binary_data_output": True}},
            b"\x00\x38\x00\xbc",
        ),
        binary(
            "FP16, no elements",
            "half",
            {"inputs": [sized("h", "FP16", (0,), 0)], "parameters": {"binary_data_output": True}},
            b"",
        ),
        binary("FP16 back as JSON", "half", {"inputs": [sized("h", "FP16", (2,), 4)]}, b"\x00\x38\x00\xbc"),
        binary(
            "BYTES",
            "text",
            {"inputs": [sized("t", "BYTES", (2,), 12)], "parameters": {"binary_data_output": True}},
            words("é".encode(), b"ab"),
        ),
        binary(
            "BYTES that are no text",
            "text",
            {"inputs": [sized("t", "BYTES", (1,), 6)], "parameters": {"binary_data_output": True}},
            words(b"\xff\x00"),
        ),
        binary(
            "BYTES that are no text, back as JSON",
            "text",
            {"inputs": [sized("t", "BYTES", (1,), 6)]},
            words(b"\xff\x00"),
        ),
        binary(
            "NaN, back as JSON",
            "echo",
            {"inputs": [sized("x", "FP32", (1, 4), 16)]},
            struct.pack("<4f", float("nan"), float("inf"), 0, 1),
        ),
        binary("raw", "echo", None, ROW, length="0"),
        binary("raw, BYTES", "text", None, b"any bytes", length="0"),
        binary("raw, wrong size", "echo", None, ROW[:-1], length="0"),
        binary("raw, two inputs", "add", None, ROW, length="0"),
        binary(
            "header length beyond the body", "echo", {"inputs": [sized("x", "FP32", (1, 4), 16)]}, ROW, length="9999"
        ),
        binary("header length no number", "echo", {"inputs": [sized("x", "FP32", (1, 4), 16)]}, ROW, length="many"),
        binary("header length below 0", "echo", {"inputs": [sized("x", "FP32", (1, 4), 16)]}, ROW, length="-1"),
        binary("less binary data than said", "echo", {"inputs": [sized("x", "FP32", (1, 4), 16)]}, ROW[:-1]),
        binary("more binary data than said", "echo", {"inputs": [sized("x", "FP32", (1, 4), 16)]}, ROW + b"more"),
        binary(
            "binary data that does not fit the shape", "echo", {"inputs": [sized("x", "FP32", (1, 4), 12)]}, ROW[:12]
        ),
        binary("BYTES whose lengths lie", "text", {"inputs": [sized("t", "BYTES", (1,), 6)]}, b"\xff\x00\x00\x00ab"),
    ),
    "Compression": (
        _packed("gzip in", "gzip", gzip.compress(msgspec.json.encode({"inputs": [X]}), mtime=0)),
        _packed("deflate in", "deflate", zlib.compress(msgspec.json.encode({"inputs": [X]}))),
        _packed("gzip that is none", "gzip", b"no gzip"),
        _packed("unknown coding", "br", b"no br"),
        _long("gzip out", "gzip"),
        _long("deflate out", "deflate"),
        _long("unknown coding out", "br"),
    ),
    "Statistics": (
        get("statistics of a model", "/v2/models/add/stats", hidden=COUNTS),
        get("statistics of a version", "/v2/models/add/versions/1/stats", hidden=COUNTS),
        get(
            "statistics of all",
            "/v2/models/stats",
            hidden=(
                "inference_stats",
                "batch_stats",
                "slotwise_outcomes",
                "last_inference",
                "inference_count",
                "execution_count",
            ),
        ),
        get("statistics, unknown model", "/v2/models/nobody/stats"),
        get("statistics, unknown version", "/v2/models/add/versions/9/stats"),
    ),
    "Repository": (
        post("index", "/v2/repository/index", hidden=("reason",)),
        post("index of what is ready", "/v2/repository/index", {"ready": True}),
        post("index, not JSON", "/v2/repository/index", b"{ready"),
        get("index, wrong method", "/v2/repository/index"),
        post("load", "/v2/repository/models/echo/load"),
        post("unload", "/v2/repository/models/text/unload"),
        post(
            "unload, dependents too", "/v2/repository/models/half/unload", {"parameters": {"unload_dependents": True}}
        ),
        get("unloaded: ready", "/v2/models/text/ready"),
        infer("unloaded: infer", "text", tensor("t", "BYTES", (1,), data=["a"])),
        post("unloaded: index", "/v2/repository/index", hidden=("reason", "state")),
        post("load again", "/v2/repository/models/text/load"),
        post("load again, another", "/v2/repository/models/half/load"),
        infer("loaded again: infer", "text", tensor("t", "BYTES", (1,), data=["a"])),
        post("load, unknown model", "/v2/repository/models/nobody/load"),
        post("unload, unknown model", "/v2/repository/models/nobody/unload"),
        post("load, model that cannot be loaded", "/v2/repository/models/broken/load"),
        post("load, not JSON", "/v2/repository/models/echo/load", b"{"),
        post(
            "load with a configuration",
            "/v2/repository/models/kinds/load",
            {"parameters": {"config": '{"max_batch_size": 4}'}},
        ),
    ),
    "Shared memory": (
        get("system: status", f"{SYSTEM}/status"),
        post("system: register", f"{SYSTEM}/region/mine/register", {"key": KEY, "offset": 0, "byte_size": KEY_BYTES}),
        post(
            "system: register twice",
            f"{SYSTEM}/region/mine/register",
            {"key": KEY, "offset": 0, "byte_size": KEY_BYTES},
        ),
        get("system: status of one", f"{SYSTEM}/region/mine/status"),
        infer("input in a region", "echo", tensor("x", "FP32", (1, 4), parameters=IN_REGION)),
        infer(
            "output in a region",
            "echo",
            X,
            outputs=[{"name": "y", "parameters": {**IN_REGION, "shared_memory_offset": 16}}],
        ),
        infer("input beyond the region", "echo", tensor("x", "FP32", (1, 4), parameters=OUT_OF_REGION)),
        infer(
            "unknown region",
            "echo",
            tensor("x", "FP32", (1, 4), parameters={**IN_REGION, "shared_memory_region": "nobody"}),
        ),
        infer(
            "output too large for its place",
            "echo",
            X,
            outputs=[{"name": "y", "parameters": {**IN_REGION, "shared_memory_byte_size": 8}}],
        ),
        post(
            "system: register, no such key",
            f"{SYSTEM}/region/other/register",
            {"key": "/slotwise-nobody", "offset": 0, "byte_size": 8},
        ),
        post("system: register, no key", f"{SYSTEM}/region/other/register", {"offset": 0, "byte_size": 8}),
        post(
            "system: register, beyond the object",
            f"{SYSTEM}/region/other/register",
            {"key": KEY, "offset": 8, "byte_size": KEY_BYTES},
        ),
        get("system: status, unknown region", f"{SYSTEM}/region/nobody/status"),
        post("system: unregister", f"{SYSTEM}/region/mine/unregister"),
        post("system: unregister, unknown region", f"{SYSTEM}/region/nobody/unregister"),
        post("system: unregister all", f"{SYSTEM}/unregister"),
        get("CUDA: status", f"{CUDA}/status"),
        get("CUDA: status, unknown region", f"{CUDA}/region/nobody/status"),
        post(
            "CUDA: register",
            f"{CUDA}/region/mine/register",
            {"raw_handle": {"b64": "AAAA"}, "device_id": 0, "byte_size": 8},
        ),
        post("CUDA: unregister", f"{CUDA}/region/mine/unregister"),
        post("CUDA: unregister all", f"{CUDA}/unregister"),
    ),
    "Trace settings": (
        get("trace setting", "/v2/trace/setting"),
        get("trace setting of a model", "/v2/models/echo/trace/setting"),
        get("trace setting, unknown model", "/v2/models/nobody/trace/setting"),
        post("trace rate and count", "/v2/trace/setting", {"trace_rate": "7", "trace_count": "100"}),
        post(
            "trace level of a model",
            "/v2/models/echo/trace/setting",
            {"trace_level": ["TIMESTAMPS"], "trace_rate": "3"},
        ),
        post("trace level off", "/v2/models/echo/trace/setting", {"trace_level": ["OFF"]}),
        post("trace settings back", "/v2/models/echo/trace/setting", {"trace_level": None, "trace_rate": None}),
        post("trace level TENSORS", "/v2/trace/setting", {"trace_level": ["TENSORS"]}),
        post("unknown trace level", "/v2/trace/setting", {"trace_level": ["ALL"]}),
        post("trace rate no number", "/v2/trace/setting", {"trace_rate": "often"}),
        post("trace file", "/v2/trace/setting", {"trace_file": "spans.json"}),
        post("unknown trace setting", "/v2/trace/setting", {"trace_speed": "1"}),
        post("trace setting, not JSON", "/v2/trace/setting", b"{"),
    ),
    "Log settings": (
        get("log settings", "/v2/logging", hidden=("log_file",)),
        post("log_info off", "/v2/logging", {"log_info": False}, hidden=("log_file",)),
        post("log_info on", "/v2/logging", {"log_info": True}, hidden=("log_file",)),
        post("log_verbose_level 1", "/v2/logging", {"log_verbose_level": 1}, hidden=("log_file",)),
        post("log_verbose_level 2", "/v2/logging", {"log_verbose_level": 2}, hidden=("log_file",)),
        post("log_format", "/v2/logging", {"log_format": "ISO8601"}),
        post("log_file", "/v2/logging", {"log_file": "elsewhere.log"}),
        post("log_info no flag", "/v2/logging", {"log_info": "yes"}),
        post("unknown log setting", "/v2/logging", {"log_debug": True}),
    ),
    "Generate": (
        post("generate", "/v2/models/text/generate", {"t": "a"}),
        post("generate, as a stream", "/v2/models/text/generate_stream", {"t": "a"}),
    ),
}
