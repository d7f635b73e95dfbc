"""Requests that leave their inputs to be made: the same answers as zeros that are sent, whoever makes them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
import tritonclient.grpc.aio as grpc
import tritonclient.http.aio as http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from slotwise.edges.fleets.nodes.joined import JoinedFleet
from tests.live.nodes import hosting, program
from tests.live.systems import client_of, put_network, serving, tensor

pytestmark = pytest.mark.live

PATIENCE_US = 30_000_000
ALLOWED = {"door": {"generated_inputs": True}}
ROWS = 3
Client = http.InferenceServerClient | grpc.InferenceServerClient


async def made_by(client: Client, who: str) -> NDArray[np.float32]:
    """The answer to a request that names its input and brings nothing of it."""
    kind = http if isinstance(client, http.InferenceServerClient) else grpc
    options = {"timeout": PATIENCE_US, "parameters": {"slotwise_inputs": who}}
    answer = await client.infer("net", [kind.InferInput("x", [ROWS, 64], "FP32")], **options)
    return np.array(answer.as_numpy("y"))


async def sent(client: http.InferenceServerClient) -> NDArray[np.float32]:
    """The answer to zeros that are sent."""
    answer = await client.infer("net", [tensor("x", np.zeros((ROWS, 64), np.float32))], timeout=PATIENCE_US)
    return np.array(answer.as_numpy("y"))


def test_inputs_made_by_server_or_executor_are_answered_as_those_that_are_sent(tmp_path: Path) -> None:
    put_network(tmp_path / "models", "net")

    async def ask() -> tuple[NDArray[np.float32], Mapping[tuple[str, str], NDArray[np.float32]]]:
        async with (
            serving(tmp_path / "models", grpc=True, grpc_port=0, **ALLOWED) as system,
            client_of(system) as plain,
        ):
            assert system.grpc is not None
            # Ones first, so that zeros are no leftovers.
            await plain.infer("net", [tensor("x", np.ones((ROWS, 64), np.float32))], timeout=PATIENCE_US)
            async with grpc.InferenceServerClient(system.grpc.address()) as other:
                clients: dict[str, Client] = {"HTTP": plain, "gRPC": other}
                made = {
                    (name, who): await made_by(client, who)
                    for name, client in clients.items()
                    for who in ("server", "executor")
                }
            expected = await sent(plain)
            assert system.arena.regions == 0
            return expected, made

    expected, made = asyncio.run(ask())
    assert expected.any()
    assert len(made) == 4
    for answer in made.values():
        np.testing.assert_array_equal(answer, expected)


def test_a_server_that_makes_inputs_says_so_once_and_takes_them_with_and_without_a_head_length(tmp_path: Path) -> None:
    put_network(tmp_path / "models", "net")
    given = {"name": "x", "datatype": "FP32", "shape": [1, 64]}
    body = json.dumps({"inputs": [given], "parameters": {"slotwise_inputs": "executor"}}).encode()
    words = ("serve", tmp_path / "models", "--http-port", 0, "--no-grpc", "--generated-inputs")
    errors = tmp_path / "errors"
    with errors.open("w") as file, program(*words, errors=file) as server:
        url = f"{server.address}/v2/models/net/infer"
        asks = [Request(url, body), Request(url, body, {"Inference-Header-Content-Length": str(len(body))})]
        answers = [json.load(urlopen(ask, timeout=PATIENCE_US / 1e6))["outputs"][0]["data"] for ask in asks]
    assert answers[0] == answers[1] != []
    told = [line for line in errors.read_text().splitlines() if line.startswith("generated inputs: ")]
    assert len(told) == 1
    assert '`slotwise_inputs`: "client", "server", "executor"' in told[0]


def test_executors_of_a_node_make_inputs_too(tmp_path: Path) -> None:
    put_network(tmp_path / "models", "net")

    async def ask(address: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        nodes = {"addresses": [f"far={address}"], "only": True}
        async with serving(tmp_path / "models", nodes=nodes, **ALLOWED) as system, client_of(system) as client:
            assert isinstance(system.fleet, JoinedFleet)
            return await sent(client), await made_by(client, "executor")

    with hosting(tmp_path / "node", "--cores", min(os.sched_getaffinity(0))) as node:
        expected, made = asyncio.run(ask(node.address))
    np.testing.assert_array_equal(made, expected)


def test_inputs_are_made_only_where_the_operator_allows_it(tmp_path: Path) -> None:
    put_network(tmp_path / "models", "net")

    async def refusal() -> InferenceServerException:
        async with serving(tmp_path / "models") as system, client_of(system) as client:
            with pytest.raises(InferenceServerException, match="inputs are not made here") as refused:
                await made_by(client, "executor")
            return refused.value

    assert asyncio.run(refusal()).status() == "400"
