"""Models are added, replaced and removed under load, in virtual time: others do not notice, and nobody is forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slotwise.facts.events import ModelAdded, ModelRemoved
from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, Outcome, Reason
from slotwise.facts.units import MS, S
from slotwise.policy.presets import build_controller
from slotwise.policy.schedulers import SCHEDULERS
from slotwise.sim.checks import Checks
from slotwise.sim.fleet import FleetSettings, SimSlice
from slotwise.sim.world import World
from slotwise.workload.arrivals import arrivals
from slotwise.workload.values import Arrival, Phase, Stream, Workload

POLICIES = list(SCHEDULERS)
RUN_S = 30.0


def model(name: str, *, run_ms: float = 5.0, digest: str = "") -> ModelSpec:
    return ModelSpec(
        id=f"{name}/1",
        name=name,
        version="1",
        profile=Profile(rows=(1,), run_ns=(int(run_ms * MS),), load_ns=100 * MS, memory_bytes=10),
        slo_ns=100 * MS,
        digest=digest,
    )


def world_of(policy: str, checks: Checks, models: list[ModelSpec]) -> World:
    fleet = FleetSettings(slices=(SimSlice(executor="a", memory_bytes=1000), SimSlice(executor="b", memory_bytes=1000)))
    on_offer = [spec for spec in models if spec.name == "steady"]
    return World(
        controller=build_controller(policy), models=models, believed=on_offer, fleet=fleet, seed=1, recorders=[checks]
    )


def feed(world: World, name: str, rate_per_s: float) -> None:
    stream = Stream(model=f"{name}/1", rate_per_s=rate_per_s, slo_ns=100 * MS)
    plan = Workload(streams=(stream,), phases=(Phase(duration_s=RUN_S),), seed=4)
    start_ns = world.clock.now_ns()
    world.feed(replace(arrival, at_ns=arrival.at_ns + start_ns) for arrival in arrivals(plan))


def steady_p99_ns(policy: str, *, is_joined: bool) -> int:
    """The p99 of a model under load, alone or while ten others are added and asked for now and then."""
    others = [model(f"other{index}") for index in range(10)]
    checks = Checks()
    world = world_of(policy, checks, [model("steady"), *others])
    world.run(S)
    feed(world, "steady", 100.0)
    world.run(10 * S)
    if is_joined:
        for spec in others:
            world.engine.post(ModelAdded(spec=spec))
    world.run(100 * S)
    checks.finish()
    return world.front.tally("steady/1").latency_ns_p99


@pytest.mark.parametrize("policy", POLICIES)
def test_models_added_under_load_leave_the_tail_of_others_alone(policy: str) -> None:
    alone_ns = steady_p99_ns(policy, is_joined=False)
    assert steady_p99_ns(policy, is_joined=True) <= 1.05 * alone_ns


@pytest.mark.parametrize("policy", POLICIES)
def test_a_removed_model_is_refused_and_those_that_wait_for_it_are_told(policy: str) -> None:
    checks = Checks()
    world = world_of(policy, checks, [model("steady"), model("other", run_ms=30)])
    world.engine.post(ModelAdded(spec=model("other", run_ms=30)))
    world.run(S)
    for _ in range(6):
        world.ask(Arrival(at_ns=0, model="other/1", slo_ns=5 * S, rows=1, priority=5))
    world.run(world.clock.now_ns() + 10 * MS)
    world.engine.post(ModelRemoved(model="other/1"))
    world.run(world.clock.now_ns() + MS)
    world.ask(Arrival(at_ns=0, model="other/1", slo_ns=5 * S, rows=1, priority=5))
    world.run(10 * S)
    checks.finish()
    tally = world.front.tally("other/1")
    assert tally.reasons[Reason.UNKNOWN_MODEL] == 1
    assert tally.outcomes.get(Outcome.FAILED, 0) + tally.in_time == 6
    assert tally.reasons[Reason.MODEL_REMOVED] >= 1


@pytest.mark.parametrize("policy", POLICIES)
def test_a_model_replaced_under_load_goes_on_being_answered(policy: str) -> None:
    checks = Checks()
    world = world_of(policy, checks, [model("steady")])
    world.run(S)
    feed(world, "steady", 150.0)
    world.run(10 * S)
    world.engine.post(ModelAdded(spec=model("steady", digest="new")))
    world.run(100 * S)
    checks.finish()
    tally = world.front.tally("steady/1")
    assert sum(tally.outcomes.values()) == tally.offered
    assert tally.in_time > 0.9 * tally.offered


@pytest.mark.parametrize("policy", POLICIES)
def test_a_model_removed_while_its_executor_dies_leaves_no_request_unanswered(policy: str) -> None:
    checks = Checks()
    world = world_of(policy, checks, [model("steady", run_ms=50)])
    world.run(S)
    for _ in range(4):
        world.ask(Arrival(at_ns=0, model="steady/1", slo_ns=5 * S, rows=1, priority=5))
    world.run(world.clock.now_ns() + 10 * MS)
    world.engine.post(ModelRemoved(model="steady/1"))
    world.fleet.kill("a")
    world.fleet.kill("b")
    world.run(20 * S)
    checks.finish()
    assert world.front.unanswered() == 0
