"""KServe's inference clients, unchanged: REST in JSON and in binary, gRPC, and the questions for health."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
from attempts import attempt, ports, same
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

HTTP_PORT, GRPC_PORT = ports()
URL = f"http://127.0.0.1:{HTTP_PORT}"
ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


def request(*, is_binary: bool) -> InferRequest:
    """Two rows, in and out in the same form."""
    given = InferInput("x", list(ROWS.shape), "FP32")
    given.set_data_from_numpy(ROWS, binary_data=is_binary)
    wanted = RequestedOutput("y", parameters={"binary_data": is_binary})
    return InferRequest("echo", [given], request_id="mine", request_outputs=[wanted])


async def rest_health(client: InferenceRESTClient) -> None:
    answers = [await client.is_server_live(URL), await client.is_server_ready(URL)]
    same([*answers, await client.is_model_ready(URL, "echo")], [True] * 3)


async def rest_infer(client: InferenceRESTClient, *, is_binary: bool) -> None:
    answer = await client.infer(URL, request(is_binary=is_binary), model_name="echo")
    same(answer.outputs[0].as_numpy().tolist(), ROWS.tolist())
    same(answer.id, "mine")


async def grpc_health(client: InferenceGRPCClient) -> None:
    same(
        [await client.is_server_live(), await client.is_server_ready(), await client.is_model_ready("echo")], [True] * 3
    )


async def grpc_infer(client: InferenceGRPCClient) -> None:
    given = InferInput("x", list(ROWS.shape), "FP32")
    given.set_data_from_numpy(ROWS, binary_data=True)
    answer = await client.infer(InferRequest("echo", [given], request_id="mine"))
    same(answer.outputs[0].as_numpy().tolist(), ROWS.tolist())


def over_rest(step: Callable[[InferenceRESTClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            await step(client)

    asyncio.run(run())


def over_grpc(step: Callable[[InferenceGRPCClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with InferenceGRPCClient(f"127.0.0.1:{GRPC_PORT}") as client:
            await step(client)

    asyncio.run(run())


def main() -> None:
    attempt("REST: server live and ready, model ready", lambda: over_rest(rest_health))
    attempt("REST: infer in JSON", lambda: over_rest(lambda client: rest_infer(client, is_binary=False)))
    attempt("REST: infer in binary", lambda: over_rest(lambda client: rest_infer(client, is_binary=True)))
    attempt("gRPC: server live and ready, model ready", lambda: over_grpc(grpc_health))
    attempt("gRPC: infer", lambda: over_grpc(grpc_infer))


if __name__ == "__main__":
    main()
