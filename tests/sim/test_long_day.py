"""A day of virtual time with everything that goes wrong, for twenty seeds: no invariant breaks, no request is lost."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

import pytest

from slotwise.engine.journal import Journal, read_header, replay
from slotwise.engine.ports import Recorder
from slotwise.facts.profile import Profile
from slotwise.facts.types import PRIORITY_DEFAULT, PRIORITY_HIGHEST, PRIORITY_LOWEST, ModelSpec, Outcome, Reason
from slotwise.facts.units import MS, S
from slotwise.policy.controller import Limits
from slotwise.policy.presets import build_controller
from slotwise.policy.schedulers import SCHEDULERS
from slotwise.sim.checks import Checks
from slotwise.sim.faults import Faults, Injector
from slotwise.sim.fleet import FleetSettings, Noise, SimSlice
from slotwise.sim.front import Tally
from slotwise.sim.world import World
from slotwise.workload.arrivals import arrivals
from slotwise.workload.values import Bursty, Phase, Poisson, Stream, Workload

DAY_S = 86_400.0
SEEDS = range(20)
EXECUTORS = ("a", "b", "c")
FAULTS = Faults(kill_s=1_800.0, hang_s=7_200.0, cancelled_share=0.05)


def model(name: str, run_ms: float, slo_ms: float, *, batch_max: int = 1, per_row: float = 1.0) -> ModelSpec:
    rows = (1, 8) if batch_max > 1 else (1,)
    run_ns = tuple(int(run_ms * MS * (1 if size == 1 else per_row * size)) for size in rows)
    return ModelSpec(
        id=f"{name}/1",
        name=name,
        version="1",
        profile=Profile(rows=rows, run_ns=run_ns, load_ns=80 * MS, memory_bytes=40),
        slo_ns=int(slo_ms * MS),
        batch_max=batch_max,
        batchable=batch_max > 1,
    )


MODELS = (
    model("tiny", 1, 5),
    model("batched", 6, 60, batch_max=8, per_row=0.5),
    model("tight", 10, 18),
    model("loose", 40, 4_000),
    model("rare", 25, 400),
)


@cache
def workload(seed: int, day_s: float) -> Workload:
    """Quiet for most of the day, with bursts far beyond what three executors can do."""
    burst = Bursty(mean_burst_s=0.5, mean_idle_s=600.0)
    streams = (
        Stream(model="tiny/1", rate_per_s=0.15, slo_ns=5 * MS, process=burst),
        Stream(model="batched/1", rate_per_s=0.15, slo_ns=60 * MS, process=burst, priority=PRIORITY_HIGHEST),
        Stream(model="tight/1", rate_per_s=0.05, slo_ns=18 * MS, process=Poisson()),
        Stream(model="loose/1", rate_per_s=0.1, slo_ns=4 * S, process=burst, priority=PRIORITY_LOWEST),
        Stream(model="rare/1", rate_per_s=0.01, slo_ns=400 * MS, process=Poisson(), priority=PRIORITY_DEFAULT),
    )
    return Workload(streams=streams, phases=(Phase(duration_s=day_s),), seed=seed)


def live_through(policy: str, seed: int, day_s: float, recorders: list[Recorder]) -> tuple[World, Injector]:
    """A day under one policy, with room for three of the five models on each executor, until all is quiet."""
    fleet = FleetSettings(
        slices=tuple(
            SimSlice(executor=name, memory_bytes=120, slowness=1.0 + index) for index, name in enumerate(EXECUTORS)
        ),
        noise=Noise(spread=0.05, overrun_share=0.01, overrun_factor=10.0),
    )
    controller = build_controller(policy, limits=Limits(requests_max=60))
    world = World(controller=controller, models=MODELS, fleet=fleet, seed=seed, recorders=recorders)
    injector = Injector(world, FAULTS, EXECUTORS, seed)
    injector.run(int(day_s * S))
    # On a grid of milliseconds several requests often come in one turn of the loop, as they do live.
    world.feed(replace(a, at_ns=S + a.at_ns // MS * MS) for a in arrivals(workload(seed, day_s)))
    world.run(int((day_s + 3_600) * S))
    return world, injector


@dataclass(frozen=True)
class Day:
    """How a day ended."""

    tally: Tally
    unanswered: int
    kills: int
    hangs: int


def day_of(seed: int) -> Day:
    """Live through it. A breach of an invariant is an AssertionError."""
    checks = Checks()
    world, injector = live_through("slotwise", seed, DAY_S, [checks])
    checks.finish()
    return Day(world.front.tally(), world.front.unanswered(), injector.kills, injector.hangs)


@pytest.fixture(scope="module")
def days(request: pytest.FixtureRequest) -> Iterator[dict[int, Future[Day]]]:
    """The days of all seeds that are to be tested, lived through on all cores."""
    calls = [item.callspec for item in request.session.items if hasattr(item, "callspec")]
    seeds = {call.params["seed"] for call in calls if "seed" in call.params}
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        yield {seed: pool.submit(day_of, seed) for seed in sorted(seeds & set(SEEDS))}
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_day_of_faults_breaks_no_invariant_and_loses_no_request(seed: int, days: dict[int, Future[Day]]) -> None:
    day = days[seed].result()
    tally = day.tally
    assert day.unanswered == 0
    assert sum(tally.outcomes.values()) == tally.offered > 20_000
    assert day.kills > 20
    assert day.hangs > 3
    assert tally.outcomes[Outcome.CANCELLED] > 0
    assert tally.reasons[Reason.QUEUE_FULL] > 0, "the day was hard enough to fill the queue"
    assert tally.outcomes[Outcome.IN_TIME] > 0.3 * tally.offered


@pytest.mark.parametrize("policy", SCHEDULERS)
def test_every_policy_lives_through_an_hour_of_faults(policy: str) -> None:
    checks = Checks()
    world, _ = live_through(policy, 3, 3_600.0, [checks])
    checks.finish()
    assert world.front.unanswered() == 0


@pytest.mark.parametrize("policy", ["slotwise", "clockwork", "fifo"])
def test_the_same_seed_writes_the_same_journal_and_it_replays(policy: str) -> None:
    journals = []
    for _ in range(2):
        file = io.BytesIO()
        live_through(policy, 5, 1_800.0, [Journal(file, {"policy": policy})])
        journals.append(file.getvalue())
    assert journals[0] == journals[1]
    lines = io.BytesIO(journals[0])
    read_header(lines.readline())
    replayed = replay(lines, build_controller(policy, limits=Limits(requests_max=60)))
    assert (replayed.difference, replayed.torn_line) == (None, None)
    assert replayed.turns > 100
