"""What is done to the server: every model asked once, the machine's speed found out, three phases, one kill.

The speed is measured closed loop: a few askers, each with one question under way, draw models from the mix and allow
any time. The phases are open loop: Poisson arrivals at multiples of that speed, whatever comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import statistics
import time
from collections.abc import Mapping, Sequence

from slotwise.client import Array, HttpClient, InferResult, Refused, TooLate, encode_infer
from slotwise.demo.mix import Exhibit, is_as_expected, shares, streams
from slotwise.demo.server import DemoError, Server, status
from slotwise.facts.units import S
from slotwise.facts.value import value
from slotwise.load.sender import Played, Sender
from slotwise.workload.player import player_of
from slotwise.workload.values import Phase, Workload

LOADS = (0.5, 1.0, 3.0)
KILL_LOAD = 1.0
"""In the middle of this phase an executor is killed."""
TRIALS = 3
"""Questions to each model alone, to learn its cost; the median counts."""
CALIBRATION_S = 5.0
WARM_UP_S = 1.0
"""The first part of the calibration, which does not count."""
ASKERS_PER_EXECUTOR = 2
PATIENCE_US = 30_000_000
"""The deadline of questions that are asked to measure."""
ANSWER_S_MAX = 20.0
"""How long a model asked alone may refuse."""
RETURN_S_MAX = 30.0
"""How long an executor may take to come back."""
POLL_S = 0.1
SEED = 7
US_PER_S = 1_000_000


@value
class Plan:
    """What is asked, and how often at a load of 1."""

    exhibits: list[Exhibit]
    rates: dict[str, float]
    executors: int
    wrong: tuple[str, ...]
    """Models that did not answer as expected."""

    @property
    def rate_per_s(self) -> float:
        """All models together."""
        return sum(self.rates.values())


@value
class Kill:
    """An executor that was killed. `killed_ns` is on this machine's monotonic clock."""

    executor: str
    pid: int
    killed_ns: int
    restarts: int
    """How often it had been replaced at the end; 0 where it did not come back."""


@value
class Act:
    """One phase as played. `cpu_s` is this process's processor time during it."""

    load: float
    duration_s: float
    rate_per_s: float
    played: Played
    cpu_s: float


async def look_at(client: HttpClient, exhibits: Sequence[Exhibit]) -> Plan:
    """Ask every model alone; the mix that follows from what they cost. Raises DemoError or ClientError."""
    executors = len((await status(client)).executors)
    costs, wrong = {}, []
    for exhibit in exhibits:
        costs[exhibit.model], is_right = await _try(client, exhibit)
        if not is_right:
            wrong.append(exhibit.model)
    return Plan(exhibits=list(exhibits), rates=shares(costs, executors), executors=executors, wrong=tuple(wrong))


async def calibrated(client: HttpClient, server: Server, plan: Plan, seconds: float = CALIBRATION_S) -> Plan:
    """The plan with rates that the machine has just sustained. Raises DemoError or ClientError."""
    models = [exhibit.model for exhibit in plan.exhibits]
    weights = [plan.rates[model] for model in models]
    requests = encoded(server, plan.exhibits, timeout_us=PATIENCE_US)
    start_s = time.monotonic()
    counts_s: list[float] = []

    async def ask(rng: random.Random) -> None:
        while time.monotonic() < start_s + seconds:
            with contextlib.suppress(Refused, TooLate):
                await client.infer_encoded(requests[rng.choices(models, weights)[0]])
                counts_s.append(time.monotonic())

    askers = ASKERS_PER_EXECUTOR * plan.executors
    await asyncio.gather(*(ask(random.Random(SEED + number)) for number in range(askers)))
    counted = [at_s for at_s in counts_s if start_s + WARM_UP_S <= at_s <= start_s + seconds]
    if not counted:
        raise DemoError(f"the server gave no answer in {seconds:g} s of calibration; this machine is too busy")
    factor = len(counted) / (seconds - WARM_UP_S) / plan.rate_per_s
    return Plan(
        exhibits=plan.exhibits,
        rates={model: rate * factor for model, rate in plan.rates.items()},
        executors=plan.executors,
        wrong=plan.wrong,
    )


async def play(sender: Sender[bytes], plan: Plan, load: float, seconds: float, number: int) -> Act:
    """One phase. `number` keeps the arrivals of phases apart."""
    await sender.open()
    workload = Workload(
        streams=streams(plan.exhibits, plan.rates, load), phases=(Phase(duration_s=seconds),), seed=SEED + number
    )
    cpu_s = time.process_time()
    played = await sender.record(player_of(workload), round(seconds * S))
    return Act(
        load=load,
        duration_s=seconds,
        rate_per_s=plan.rate_per_s * load,
        played=played,
        cpu_s=time.process_time() - cpu_s,
    )


async def kill_one(client: HttpClient, after_s: float) -> Kill:
    """Kill an executor after a while, and wait until another process is in its place."""
    await asyncio.sleep(after_s)
    victim = next((one for one in (await status(client)).executors if one.pid is not None), None)
    if victim is None or victim.pid is None:
        raise DemoError("the server names no executor to kill")
    killed_ns = time.monotonic_ns()
    os.kill(victim.pid, signal.SIGKILL)
    restarts = await _wait_for_return(client, victim.executor, victim.pid)
    return Kill(executor=victim.executor, pid=victim.pid, killed_ns=killed_ns, restarts=restarts)


def encoded(server: Server, exhibits: Sequence[Exhibit], timeout_us: int | None = None) -> dict[str, bytes]:
    """A request to each model, as it goes over the wire; its own SLO holds where no timeout is given."""
    host = f"{server.host}:{server.port}"
    return {
        exhibit.model: encode_infer(host, exhibit.model, exhibit.inputs, timeout_us=timeout_us) for exhibit in exhibits
    }


async def _try(client: HttpClient, exhibit: Exhibit) -> tuple[float, bool]:
    """Seconds that the model takes alone, and whether it answers as expected."""
    times, outputs = [], dict[str, Array]()
    for _ in range(TRIALS):
        answer = await _answer(client, exhibit)
        outputs = answer.outputs
        if answer.timing is None or not answer.timing.execution_us:
            raise DemoError(f"the server did not say how long {exhibit.model} ran")
        times.append(answer.timing.execution_us / US_PER_S)
    return statistics.median(times), is_as_expected(exhibit, outputs)


async def _answer(client: HttpClient, exhibit: Exhibit) -> InferResult:
    """An answer, asked for again where the server wants to be asked later."""
    end_s = time.monotonic() + ANSWER_S_MAX
    while True:
        try:
            return await client.infer(exhibit.model, exhibit.inputs, PATIENCE_US, has_timing=True)
        except Refused:
            if time.monotonic() > end_s:
                raise
            await asyncio.sleep(POLL_S)


async def _wait_for_return(client: HttpClient, executor: str, pid: int) -> int:
    end_s = time.monotonic() + RETURN_S_MAX
    while time.monotonic() < end_s:
        await asyncio.sleep(POLL_S)
        for one in (await status(client)).executors:
            if one.executor == executor and one.pid not in (None, pid) and one.restarts and one.state == "up":
                return one.restarts
    return 0


def describe(rates: Mapping[str, float]) -> str:
    """The mix in words."""
    dearest, cheapest = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
    return f"from {rates[dearest]:.2g}/s of {dearest} to {rates[cheapest]:.2g}/s of {cheapest}"
