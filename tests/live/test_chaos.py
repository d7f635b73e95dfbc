"""Executors that die under live load: every request gets exactly one reply, and the journal replays."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException

from slotwise.app import LiveSystem, controller_of
from slotwise.engine.journal import Replayed, read_header, replay
from slotwise.engine.ports import Recorder
from slotwise.facts.types import Outcome
from slotwise.sim.checks import Checks
from tests.live.systems import client_of, put_emulated, put_network, serving, tensor, until

KILLS = 30
CLIENTS = 8
REPLIES = {"200", "503", "504"}

pytestmark = [pytest.mark.live, pytest.mark.slow]


def repository(folder: Path) -> Path:
    """A real model and two emulated ones, quick and slow."""
    root = folder / "models"
    put_network(root, "network", settings="slo_ms = 2000")
    put_emulated(root, "quick", run_ms=2, settings="slo_ms = 2000")
    put_emulated(root, "slow", run_ms=30, settings="slo_ms = 4000")
    return root


async def ask_on(client: triton.InferenceServerClient, name: str, statuses: Counter[str], stop: asyncio.Event) -> None:
    """Send request after request; each must be answered, one way or the other."""
    inputs = [tensor("x", np.ones((1, 64 if name == "network" else 4), np.float32))]
    while not stop.is_set():
        try:
            await asyncio.wait_for(client.infer(name, inputs), 60)
            statuses["200"] += 1
        except InferenceServerException as error:
            statuses[str(error.status())] += 1


async def kill_now_and_then(system: LiveSystem, rng: random.Random) -> None:
    """Kill executors at random instants, each time one that is up."""
    names = [executor.executor for executor in system.fleet.statistics().executors]
    for _ in range(KILLS):
        await asyncio.sleep(rng.uniform(0.01, 0.2))
        await kill(system, rng.choice(names))


async def kill(system: LiveSystem, name: str) -> None:
    """Kill an executor that is up, and wait until its successor has been started."""
    await until(lambda: name in system.controller.view.executors)
    before = restarts(system)
    system.fleet.kill(name)
    await until(lambda: restarts(system) > before)


def restarts(system: LiveSystem) -> int:
    return sum(executor.restarts for executor in system.fleet.statistics().executors)


async def chaos(root: Path, journal: Path, checks: Recorder) -> tuple[Counter[str], int]:
    statuses: Counter[str] = Counter()
    stop = asyncio.Event()
    async with (
        serving(root, recorders=[checks], journal=journal, fleet={"restart_s_max": 0.1}) as system,
        client_of(system) as client,
    ):
        clients = [
            asyncio.create_task(ask_on(client, ("network", "quick", "slow")[index % 3], statuses, stop))
            for index in range(CLIENTS)
        ]
        await kill_now_and_then(system, random.Random(7))
        stop.set()
        await asyncio.gather(*clients)
        return statuses, restarts(system)


def test_every_request_gets_exactly_one_reply_through_thirty_kills(tmp_path: Path) -> None:
    root, journal = repository(tmp_path), tmp_path / "journal"
    checks = Checks()
    statuses, restarted = asyncio.run(chaos(root, journal, checks))
    checks.finish()
    assert restarted == KILLS
    assert set(statuses) <= REPLIES
    assert statuses["200"] > KILLS, "the server went on answering"
    assert sum(statuses.values()) == sum(checks.replies.values()), "what clients saw is what the engine said"
    assert checks.replies[Outcome.IN_TIME] == statuses["200"]
    with journal.open("rb") as lines:
        controller = controller_of(read_header(lines.readline()))
        assert replay(lines, controller) == Replayed(turns=checks.turns)
