"""Many more models than memory holds: who is loaded, who is served, and who is told no, and when."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest

from slotwise.facts.types import ModelSpec, Outcome, Reason
from slotwise.facts.units import MS, S
from slotwise.sim.front import Tally
from slotwise.workload.values import Arrival
from tests.sim.systems import Log, ask, copies, feed, system

HOT_PER_S = 200.0
DURATION_S = 3.0


def rates(models: Sequence[ModelSpec], others_per_s: float, skew: float) -> dict[str, float]:
    """One hot model, and the others in a Zipf distribution; all alike without skew."""
    weights = {spec.id: rank**-skew for rank, spec in enumerate(models[1:], start=1)}
    total = sum(weights.values())
    return {models[0].id: HOT_PER_S} | {name: others_per_s * weight / total for name, weight in weights.items()}


@cache
def serve(
    policy: str,
    count: int,
    resident: int,
    slo_ms: int,
    skew: float = 0.0,
    executors: int = 1,
    others_per_s: float = 1e3,
) -> tuple[Tally, Tally]:
    """What becomes of all requests, and of those for the hot model."""
    models = copies(count, batch_max=8)
    world = system(policy, models, executors=executors, resident=resident)
    feed(world, rates(models, others_per_s, skew), DURATION_S, slo_ms * MS, start_s=1.0)
    world.run(int((DURATION_S + 5.0) * S))
    assert world.front.unanswered() == 0
    return world.front.tally(), world.front.tally(models[0].id)


CELLS = {
    "as Clockwork's sixth figure, in small": (361, 20, 100),
    "half a second": (361, 20, 500),
    "hardly time for a load": (361, 20, 25),
    "twice too little": (50, 20, 100),
    "room for five": (361, 5, 100),
    "time is short too": (361, 100, 100),
}


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_slotwise_answers_more_than_clockwork_where_memory_is_short(cell: str) -> None:
    ours, theirs = serve("slotwise", *CELLS[cell])[0], serve("clockwork", *CELLS[cell])[0]
    assert ours.in_time >= 1.01 * theirs.in_time


@pytest.mark.slow
def test_so_it_does_where_some_models_are_asked_for_more_than_others() -> None:
    ours, theirs = (serve(policy, 361, 20, 100, skew=1.0)[0] for policy in ("slotwise", "clockwork"))
    assert ours.in_time >= 1.03 * theirs.in_time


@pytest.mark.slow
def test_so_it_does_on_several_executors() -> None:
    ours, theirs = (serve(policy, 361, 20, 100, executors=2)[0] for policy in ("slotwise", "clockwork"))
    assert ours.in_time >= 1.02 * theirs.in_time


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_a_hot_model_keeps_its_goodput_whatever_is_asked_of_cold_ones(cell: str) -> None:
    hot = serve("slotwise", *CELLS[cell])[1]
    assert hot.in_time >= 0.95 * hot.offered


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_hardly_any_answer_is_late(cell: str) -> None:
    tally = serve("slotwise", *CELLS[cell])[0]
    assert tally.outcomes.get(Outcome.LATE, 0) <= 0.01 * tally.in_time


def test_refused_demand_pulls_a_load_when_memory_idles() -> None:
    models, log = copies(1, batch_max=1), Log()
    world = system("slotwise", models, recorders=[log], settings={"placement": {"spread": False}})
    world.run(MS)
    first = ask(world, "m0", slo_ns=10 * MS)
    world.run(world.clock.now_ns() + 20 * MS)
    second = ask(world, "m0", slo_ns=10 * MS)
    world.run(world.clock.now_ns() + 20 * MS)
    assert log.replies[first.id][1].outcome is Outcome.REFUSED, "its load alone takes nearly all of its allowance"
    assert log.replies[second.id][1].outcome is Outcome.IN_TIME


def test_refused_demand_takes_the_place_of_what_nobody_asks_for() -> None:
    models = copies(3, batch_max=1)
    world = system("slotwise", models, resident=2)
    for name in ("m0", "m1"):
        ask(world, name)
    world.run(S)
    feed(world, {"m2": 50.0}, duration_s=4.0, slo_ns=10 * MS, start_s=1.0)
    world.run(7 * S)
    tally = world.front.tally("m2")
    assert tally.in_time >= 0.8 * tally.offered


@pytest.mark.parametrize("policy", ["slotwise", "fifo", "edf"])
def test_a_wanted_load_that_finds_no_victim_is_tried_again_when_one_frees(policy: str) -> None:
    models, log = copies(2, batch_max=16), Log()
    world = system(policy, models, resident=1, recorders=[log])
    ask(world, "m0")
    world.run(S)
    for _ in range(16):
        ask(world, "m0")
    world.run(world.clock.now_ns() + 1 * MS)
    asked_ns = world.clock.now_ns()
    other = ask(world, "m1")
    world.run(asked_ns + 5 * MS)
    assert len(log.loads) == 1, "the only model there is in use"
    world.run(asked_ns + S)
    assert log.replies[other.id][1].outcome is Outcome.IN_TIME


def test_all_who_wait_for_one_load_are_served_by_it_together() -> None:
    models, log = copies(2, batch_max=8), Log()
    world = system("slotwise", models, resident=1, recorders=[log])
    ask(world, "m0")
    world.run(S)
    asked = [ask(world, "m1").id for _ in range(6)]
    world.run(2 * S)
    assert [load.model for _, load in log.loads] == ["m0", "m1"]
    assert [len(run.requests) for _, run in log.runs] == [1, 6]
    assert all(log.replies[request_id][1].outcome is Outcome.IN_TIME for request_id in asked)


def test_the_load_that_serves_more_goes_first() -> None:
    models, log = copies(6, batch_max=8), Log()
    world = system("slotwise", models, resident=1, recorders=[log])
    world.run(MS)
    ask(world, "m0")
    world.run(world.clock.now_ns() + 1 * MS)
    for name in ("m1", "m2", "m2", "m2", "m3"):
        ask(world, name)
    world.run(S)
    assert [load.model for _, load in log.loads][:2] == ["m0", "m2"]


def test_who_bids_in_vain_is_told_before_the_deadline_that_there_is_too_little() -> None:
    models, log = copies(40, batch_max=1), Log()
    world = system("slotwise", models, resident=1, recorders=[log])
    world.run(MS)
    asked = [ask(world, spec.id, slo_ns=50 * MS) for spec in models]
    world.run(S)
    told = [(request, *log.replies[request.id]) for request in asked]
    outbid = [(request, at_ns) for request, at_ns, reply in told if reply.outcome is Outcome.DROPPED]
    assert {reply.reason for _, _, reply in told} == {Reason.NONE, Reason.OVERLOADED}
    assert len(outbid) > 30
    assert all(at_ns <= request.deadline_ns - models[0].profile.load_ns for request, at_ns in outbid)


def test_an_executor_that_dies_takes_no_bid_with_it() -> None:
    models = copies(30, batch_max=4)
    world = system("slotwise", models, resident=3, executors=2, restart_ns=100 * MS)
    feed(world, {spec.id: 10.0 for spec in models}, duration_s=3.0, slo_ns=100 * MS)
    for at_s in (1, 2):
        world.run(at_s * S)
        world.fleet.kill("e0")
    world.run(5 * S)
    tally = world.front.tally()
    assert world.front.unanswered() == 0
    assert sum(tally.outcomes.values()) == tally.offered


def test_priority_outweighs_number_in_the_contest_for_loads() -> None:
    models, log = copies(3, batch_max=8), Log()
    world = system("slotwise", models, resident=1, recorders=[log])
    world.run(MS)
    ask(world, "m0")
    world.run(world.clock.now_ns() + 1 * MS)
    for _ in range(4):
        ask(world, "m1")
    world.ask(Arrival(at_ns=0, model="m2", slo_ns=100 * MS, rows=1, priority=1))
    world.run(S)
    assert [load.model for _, load in log.loads][:2] == ["m0", "m2"]
