"""A model that is known and not on offer is 503, whoever asks for it, in whatever way and however early."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import tritonclient.grpc.aio as grpc
from tritonclient.utils import InferenceServerException

from slotwise.client import AsyncClient, ClientError
from tests.live.systems import client_of, put_emulated, serving, tensor, until

pytestmark = pytest.mark.live

X = np.zeros((1, 4), np.float32)
PATIENCE_US = 20_000_000
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0] * 4}]}).encode()


async def told(asking: asyncio.Future[object]) -> tuple[int | None, str]:
    with pytest.raises(ClientError) as error:
        await asking
    return error.value.status, error.value.reason


async def told_over_grpc(asking: asyncio.Future[object]) -> str:
    with pytest.raises(InferenceServerException) as error:
        await asking
    return str(error.value.status())


def test_an_unloaded_model_is_503_on_every_route_and_over_every_door(tmp_path: Path) -> None:
    put_emulated(tmp_path / "models", "model", run_ms=1)
    ways = {"grpc": True, "grpc_port": 0, "local_socket": str(tmp_path / "socket")}

    async def live() -> None:
        async with serving(tmp_path / "models", **ways) as system, aiohttp.ClientSession() as http:
            assert system.grpc is not None
            await system.registry.unload("model")
            for name, status in {"model": 503, "model/versions/1": 503, "model/versions/9": 404, "nobody": 404}.items():
                url = f"{system.url()}/v2/models/{name}"
                for route in ("", "/ready", "/config", "/stats"):
                    async with http.get(url + route) as reply:
                        assert (name, route, reply.status) == (name, route, status)
                async with http.post(f"{url}/infer", data=BODY) as reply:
                    assert (name, reply.status) == (name, status)
            async with AsyncClient(f"unix://{tmp_path}/socket") as local:
                assert await told(asyncio.ensure_future(local.infer("model", {"x": X}))) == (503, "not_ready")
            async with grpc.InferenceServerClient(system.grpc.address()) as client:
                given = grpc.InferInput("x", [1, 4], "FP32")
                given.set_data_from_numpy(X)
                asks = (client.infer("model", [given]), client.get_model_metadata("model"))
                for ask in (*asks, client.get_model_config("model"), client.get_inference_statistics("model")):
                    assert await told_over_grpc(asyncio.ensure_future(ask)) == "StatusCode.UNAVAILABLE"
                assert not await client.is_model_ready("model")

    asyncio.run(live())


def test_a_model_that_is_unloaded_while_a_request_waits_or_is_sent_is_503_too(tmp_path: Path) -> None:
    put_emulated(tmp_path / "models", "model", run_ms=300, settings="slo_ms = 20000\nbatch_max = 1")
    head = f"POST /v2/models/model/infer HTTP/1.1\r\nHost: here\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()

    async def live() -> None:
        async with serving(tmp_path / "models") as system, client_of(system) as client:
            reader, writer = await asyncio.open_connection("127.0.0.1", system.http_port)
            writer.write(head + BODY[:9])
            await writer.drain()
            asks = [client.infer("model", [tensor("x", X)], timeout=PATIENCE_US) for _ in range(10)]
            asked = [asyncio.create_task(ask) for ask in asks]
            await until(lambda: system.door.statistics().requests_in_flight == len(asked))
            await client.unload_model("model")
            ends = await asyncio.gather(*asked, return_exceptions=True)
            assert {end.status() for end in ends if isinstance(end, InferenceServerException)} == {"503"}
            writer.write(BODY[9:])
            assert await reader.readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
            writer.close()

    asyncio.run(live())
