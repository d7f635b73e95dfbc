"""tritonclient, unchanged: every call that its clients for HTTP and gRPC have for a server without a GPU."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from types import ModuleType

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
import tritonclient.http.aio as http_aio
from attempts import attempt, ports, same
from tritonclient.utils import InferenceServerException, shared_memory

HTTP_PORT, GRPC_PORT = ports()
ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
STREAMED = 50
S_MAX = 30.0


def client_of(kind: ModuleType) -> object:
    port = GRPC_PORT if kind in (grpc, grpc_aio) else HTTP_PORT
    return kind.InferenceServerClient(f"127.0.0.1:{port}")


def given(kind: ModuleType, name: str, array: np.ndarray, datatype: str) -> object:
    found = kind.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


def rows(kind: ModuleType) -> list[object]:
    return [given(kind, "x", ROWS, "FP32")]


def check(answer: object) -> None:
    same(answer.as_numpy("y").tolist(), ROWS.tolist())


def health(kind: ModuleType) -> None:
    with client_of(kind) as client:
        same([client.is_server_live(), client.is_server_ready(), client.is_model_ready("echo")], [True] * 3)
        same([client.is_model_ready("nobody"), client.is_model_ready("echo", "9")], [False] * 2)


def pages(kind: ModuleType) -> None:
    with client_of(kind) as client:
        as_json = {"as_json": True} if kind is grpc else {}
        same(client.get_server_metadata(**as_json)["name"], "slotwise")
        same(client.get_model_metadata("echo", **as_json)["inputs"][0]["datatype"], "FP32")
        config = client.get_model_config("echo", **as_json)
        same(config.get("config", config)["max_batch_size"], 8)
        same(client.get_inference_statistics("echo", **as_json)["model_stats"][0]["name"], "echo")


def repository(kind: ModuleType) -> None:
    with client_of(kind) as client:
        client.unload_model("half")
        same([client.is_model_ready("half")], [False])
        client.load_model("half")
        same([client.is_model_ready("half")], [True])
        index = client.get_model_repository_index()
        lines = index.models if kind is grpc else index
        names = [line.name if kind is grpc else line["name"] for line in lines]
        same([name for name in names if name == "half"], ["half"])


def infer(kind: ModuleType, **more: object) -> None:
    with client_of(kind) as client:
        check(client.infer("echo", rows(kind), **more))


def infer_json() -> None:
    with client_of(http) as client:
        made = http.InferInput("x", list(ROWS.shape), "FP32")
        made.set_data_from_numpy(ROWS, binary_data=False)
        check(client.infer("echo", [made], outputs=[http.InferRequestedOutput("y", binary_data=False)]))


def infer_later(kind: ModuleType) -> None:
    with client_of(kind) as client:
        if kind is http:
            check(client.async_infer("echo", rows(kind)).get_result())
            return
        came: queue.Queue[tuple[object, object]] = queue.Queue()
        client.async_infer("echo", rows(kind), lambda result, error: came.put((result, error)))
        result, error = came.get(timeout=S_MAX)
        same(error, None)
        check(result)


def other_datatypes(kind: ModuleType) -> None:
    words, halves = np.array([b"one", "zwölf".encode()], dtype=object), np.array([0.5, -1], np.float16)
    with client_of(kind) as client:
        same(client.infer("text", [given(kind, "t", words, "BYTES")]).as_numpy("u").tolist(), words.tolist())
        same(client.infer("half", [given(kind, "h", halves, "FP16")]).as_numpy("g").tolist(), halves.tolist())


def errors(kind: ModuleType) -> str:
    with client_of(kind) as client:
        try:
            client.infer("nobody", rows(kind))
        except InferenceServerException as error:
            return f"{error.status()}: {error.message()}"
    raise AssertionError("no error")


def trace_settings(kind: ModuleType) -> None:
    with client_of(kind) as client:
        as_json = {"as_json": True} if kind is grpc else {}
        told = client.update_trace_settings("echo", {"trace_rate": "5"}, **as_json)
        same(told["settings"]["trace_rate"]["value"][0] if kind is grpc else told["trace_rate"], "5")
        client.update_trace_settings("echo", {"trace_rate": None})


def log_settings(kind: ModuleType) -> None:
    with client_of(kind) as client:
        as_json = {"as_json": True} if kind is grpc else {}
        client.update_log_settings({"log_info": False})
        told = client.get_log_settings(**as_json)
        same([told["settings"]["log_info"].get("bool_param") if kind is grpc else told["log_info"]], [False])
        client.update_log_settings({"log_info": True})


def regions(kind: ModuleType) -> None:
    key, size = f"/slotwise-{kind.__name__.replace('.', '-')}", ROWS.nbytes
    memory = shared_memory.create_shared_memory_region("mine", key, 2 * size)
    try:
        shared_memory.set_shared_memory_region(memory, [ROWS])
        with client_of(kind) as client:
            client.register_system_shared_memory("mine", key, 2 * size)
            made, wanted = kind.InferInput("x", list(ROWS.shape), "FP32"), kind.InferRequestedOutput("y")
            made.set_shared_memory("mine", size)
            wanted.set_shared_memory("mine", size, offset=size)
            client.infer("echo", [made], outputs=[wanted])
            there = shared_memory.get_contents_as_numpy(memory, ROWS.dtype, list(ROWS.shape), offset=size)
            same(there.tolist(), ROWS.tolist())
            client.unregister_system_shared_memory("mine")
    finally:
        shared_memory.destroy_shared_memory_region(memory)


def stream(*, has_final: bool) -> str:
    came: queue.Queue[tuple[object, object]] = queue.Queue()
    with client_of(grpc) as client:
        client.start_stream(lambda result, error: came.put((result, error)))
        for number in range(STREAMED):
            client.async_stream_infer("echo", rows(grpc), request_id=str(number), enable_empty_final_response=has_final)
        answers = [came.get(timeout=S_MAX) for _ in range(STREAMED)]
        client.stop_stream()
    for result, error in answers:
        same(error, None)
        check(result)
    ends = [result.get_response().parameters["triton_final_response"].bool_param for result, _ in answers]
    same(ends, [True] * STREAMED)
    return f"{STREAMED} answers"


async def infer_aio(kind: ModuleType) -> None:
    async with client_of(kind) as client:
        same([await client.is_server_ready()], [True])
        check(await client.infer("echo", rows(http if kind is http_aio else grpc)))


def main() -> None:
    for name, kind in {"http": http, "grpc": grpc}.items():
        steps: dict[str, Callable[[ModuleType], object]] = {
            "health": health,
            "metadata, configuration, statistics": pages,
            "unload, load, index": repository,
            "infer": infer,
            "infer, asynchronously": infer_later,
            "BYTES and FP16": other_datatypes,
            "an error is told with its status": errors,
            "trace settings": trace_settings,
            "log settings": log_settings,
            "system shared memory, in and out": regions,
        }
        for what, step in steps.items():
            attempt(f"{name}: {what}", lambda step=step, kind=kind: step(kind))
    attempt("http: infer in JSON", infer_json)
    for coding in ("gzip", "deflate"):
        packed = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
        attempt(f"http: infer, {coding} both ways", lambda packed=packed: infer(http, **packed))
    attempt("grpc: infer, gzip", lambda: infer(grpc, compression_algorithm="gzip"))
    attempt("grpc: infer with a deadline", lambda: infer(grpc, client_timeout=S_MAX))
    attempt("grpc: a stream", lambda: stream(has_final=False))
    attempt("grpc: a stream that asks for final marks", lambda: stream(has_final=True))
    attempt("http.aio: infer", lambda: asyncio.run(infer_aio(http_aio)))
    attempt("grpc.aio: infer", lambda: asyncio.run(infer_aio(grpc_aio)))


if __name__ == "__main__":
    main()
