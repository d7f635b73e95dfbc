"""Who is taken where much more is asked than can be done: batches that fill, and tenants of very different patience."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from slotwise.facts.actions import Reply
from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, Outcome, Request
from slotwise.facts.units import MS, S
from slotwise.policy.presets import build_controller
from slotwise.sim.checks import Checks
from slotwise.sim.fleet import FleetSettings, SimSlice
from slotwise.sim.world import World
from slotwise.workload.arrivals import arrivals
from slotwise.workload.values import Arrival, Phase, Stream, Workload

RESNET50 = Profile(
    rows=(1, 2, 4, 8, 16),
    run_ns=tuple(int(ms * MS) for ms in (2.61, 3.78, 5.61, 9.13, 15.67)),
    load_ns=int(8.33 * MS),
    memory_bytes=100,
)
"""Of Clockwork's table 1."""
LINK_NS = 500_000
DAY_NS = 86_400 * S


def resnet50(name: str, slo_ns: int) -> ModelSpec:
    return ModelSpec(id=name, name=name, version="1", profile=RESNET50, slo_ns=slo_ns, batch_max=16)


def world(policy: str, specs: list[ModelSpec], executors: int, on_reply: Callable[[Request, Reply], None]) -> World:
    return World(
        controller=build_controller(policy),
        models=specs,
        fleet=FleetSettings(slices=tuple(SimSlice(executor=f"g{i}") for i in range(executors)), link_ns=LINK_NS),
        seed=1,
        recorders=[Checks({spec.id: spec for spec in specs})],
        on_reply=on_reply,
    )


def insistent(policy: str, slo_ms: int, again_ms: int) -> float:
    """Answers in time per second, of fifteen models with sixteen clients each that ask again `again_ms` after a no."""
    slo_ns, end_ns = slo_ms * MS, 4 * S
    specs = [resnet50(f"m{serial}", slo_ns) for serial in range(15)]
    answers = 0

    def again(request: Request, reply: Reply) -> None:
        nonlocal answers
        is_in_time = reply.outcome is Outcome.IN_TIME
        answers += is_in_time and made.clock.now_ns() > 2 * S
        if made.clock.now_ns() < end_ns:
            ask_at(made.clock.now_ns() + (1 if is_in_time else again_ms) * MS, request.model)

    def ask_at(at_ns: int, model: str) -> None:
        arrival = Arrival(at_ns=at_ns, model=model, slo_ns=slo_ns, rows=1, priority=5)
        made.clock.call_at(at_ns, lambda: made.ask(arrival))

    made = world(policy, specs, 1, again)
    rng = random.Random(1)
    for spec in specs:
        for _ in range(16):
            ask_at(S + int(rng.random() * S // 2), spec.id)
    made.run(end_ns + S)
    return answers / ((end_ns - 2 * S) / S)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slo_ms", "least_per_s"),
    [
        pytest.param(10, 560, id="batches of four are the largest in time: 713/s at most, batches of one 383"),
        pytest.param(25, 800, id="one batch of sixteen at a time"),
        pytest.param(100, 970, id="batches of sixteen back to back: 1,021/s at most"),
    ],
)
def test_batches_grow_where_much_more_is_asked_than_can_be_done(slo_ms: int, least_per_s: int) -> None:
    assert insistent("slotwise", slo_ms, again_ms=10) >= least_per_s


def beside_batch_tenants(policy: str, slo_ms: float, tenants: int, clients: int) -> tuple[float, float]:
    """The share of six tight models that is answered in time, and what tenants with a day to wait get a second."""
    specs = [resnet50(f"m{serial}", int(slo_ms * MS)) for serial in range(6)]
    patient = [resnet50(f"b{serial}", DAY_NS) for serial in range(tenants)]
    start_ns, end_ns = 4 * S, 7 * S
    tight, batch, asked = 0, 0, 0

    def again(request: Request, reply: Reply) -> None:
        nonlocal tight, batch, asked
        now_ns = made.clock.now_ns()
        is_in_time = reply.outcome is Outcome.IN_TIME
        if request.model.startswith("m"):
            is_counted = start_ns <= request.arrival_ns < end_ns
            asked += is_counted
            tight += is_counted and is_in_time
            return
        batch += is_in_time and start_ns <= now_ns < end_ns
        if now_ns < end_ns:
            ask_at(now_ns + MS, request.model)

    def ask_at(at_ns: int, model: str) -> None:
        arrival = Arrival(at_ns=at_ns, model=model, slo_ns=DAY_NS, rows=1, priority=5)
        made.clock.call_at(at_ns, lambda: made.ask(arrival))

    made = world(policy, specs + patient, 6, again)
    rng = random.Random(2)
    for spec in patient:
        for _ in range(clients):
            ask_at(S + int(rng.random() * S), spec.id)
    streams = tuple(Stream(model=spec.id, rate_per_s=200, slo_ns=spec.slo_ns) for spec in specs)
    phases = (Phase(duration_s=2, scale=0.0), Phase(duration_s=5.5))
    made.feed(arrivals(Workload(streams=streams, phases=phases, seed=1)))
    made.run(end_ns + S)
    return tight / asked, batch / ((end_ns - start_ns) / S)


@pytest.mark.slow
@pytest.mark.parametrize(("tenants", "clients"), [(12, 16), (48, 4)])
@pytest.mark.parametrize(("slo_ms", "least"), [(6.5, 0.9), (10, 0.97), (33, 0.98)])
def test_tight_tenants_are_served_beside_those_with_a_day_to_wait(
    slo_ms: float, least: float, tenants: int, clients: int
) -> None:
    share, batch_per_s = beside_batch_tenants("slotwise", slo_ms, tenants, clients)
    assert share >= least
    assert batch_per_s >= 1_500
