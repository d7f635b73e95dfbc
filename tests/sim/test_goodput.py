"""Where goodput is won or lost: executors that differ, tight requests beside long batches, more or fewer executors."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from slotwise.facts.actions import Reply
from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, Outcome, Request
from slotwise.facts.units import MS, S
from slotwise.policy.presets import build_controller
from slotwise.sim.checks import Checks
from slotwise.sim.fleet import FleetSettings, SimSlice
from slotwise.sim.world import World
from slotwise.workload.values import Arrival
from tests.sim.systems import Log, feed
from tests.sim.test_overload import overloaded


def model(name: str, run_ms: int, slo_ms: int, batch_max: int = 1) -> ModelSpec:
    """A model of which a row more in a batch costs half of the first."""
    rows = (1, 16)
    run_ns = (run_ms * MS, run_ms * MS * 17 // 2)
    profile = Profile(rows=rows, run_ns=run_ns, load_ns=10 * MS, memory_bytes=100)
    return ModelSpec(id=name, name=name, version="1", profile=profile, slo_ns=slo_ms * MS, batch_max=batch_max)


def fleet(slownesses: tuple[float, ...]) -> FleetSettings:
    return FleetSettings(
        slices=tuple(SimSlice(executor=f"e{i}", slowness=slowness) for i, slowness in enumerate(slownesses))
    )


class Loop:
    """Clients that each have one request under way, again and again, from `begin` on until `end_ns`."""

    def __init__(self, clients: Mapping[str, int], end_ns: int, slo_ns: int) -> None:
        self._clients = clients
        self._end_ns = end_ns
        self._slo_ns = slo_ns
        self._world: World | None = None

    def begin(self, world: World) -> None:
        """Every client asks for the first time."""
        self._world = world
        for name, count in self._clients.items():
            for _ in range(count):
                self._ask(name)

    def replied(self, request: Request, _reply: Reply) -> None:
        """The client asks again."""
        if self._world is not None and request.model in self._clients and self._world.clock.now_ns() < self._end_ns:
            self._world.clock.call_at(self._world.clock.now_ns() + MS, lambda: self._ask(request.model))

    def _ask(self, name: str) -> None:
        assert self._world is not None
        self._world.ask(Arrival(at_ns=0, model=name, slo_ns=self._slo_ns, rows=1, priority=5))


def test_an_executor_twice_as_slow_as_profiled_is_found_out_and_used_for_what_it_can_do() -> None:
    models = [model("tight", 10, 18), model("loose", 10, 200)]
    log = Log()
    world = World(
        controller=build_controller("slotwise"),
        models=models,
        fleet=fleet((1.0, 2.0)),
        seed=1,
        recorders=[Checks({spec.id: spec for spec in models}), log],
    )
    feed(world, {"tight": 20.0, "loose": 80.0}, duration_s=10.0, slo_ns=18 * MS, start_s=1.0)
    world.run(5 * S)
    settled = len(log.done)
    world.run(20 * S)
    busy_ns = {"e0": 0, "e1": 0}
    for _, event in log.done[settled:]:
        busy_ns[event.executor] += event.ended_ns - event.started_ns
    tally = world.front.tally()
    # At 18 ms the slow one, which takes 20, is of no use to anybody; it is tried now and then all the same.
    assert tally.outcomes.get(Outcome.LATE, 0) <= 0.02 * tally.offered
    assert busy_ns["e1"] < 0.05 * busy_ns["e0"]
    assert tally.in_time >= 0.6 * tally.offered


def test_a_slow_executor_does_its_part_where_there_is_time_enough() -> None:
    models = [model("loose", 10, 200)]
    log = Log()
    world = World(
        controller=build_controller("slotwise"),
        models=models,
        fleet=fleet((1.0, 2.0)),
        seed=1,
        recorders=[Checks({spec.id: spec for spec in models}), log],
    )
    # Two executors as profiled could do 200 a second, these two can do 150.
    feed(world, {"loose": 300.0}, duration_s=10.0, slo_ns=200 * MS, start_s=1.0)
    world.run(20 * S)
    tally = world.front.tally()
    assert tally.in_time >= 0.95 * 10 * 150
    assert tally.outcomes.get(Outcome.LATE, 0) <= 0.01 * tally.in_time
    assert sum(event.executor == "e1" for _, event in log.done) >= 0.8 * 10 * 50


def test_a_tight_tenant_beside_batch_tenants_keeps_its_word_and_they_fill_the_rest() -> None:
    executors, end_ns = 6, 8 * S
    tenants = {f"batch{i}": 8 for i in range(6)}
    models = [model("tight", 2, 10), *(model(name, 10, 2_000, batch_max=16) for name in tenants)]
    log = Log()
    loop = Loop(tenants, end_ns, slo_ns=2 * S)
    world = World(
        controller=build_controller("slotwise"),
        models=models,
        fleet=fleet((1.0,) * executors),
        seed=1,
        recorders=[Checks({spec.id: spec for spec in models}), log],
        on_reply=loop.replied,
    )
    world.run(1 * S)
    loop.begin(world)
    feed(world, {"tight": 200.0}, duration_s=7.0, slo_ns=10 * MS, start_s=1.0)
    world.run(20 * S)
    tight = world.front.tally("tight")
    busy_ns = sum(event.ended_ns - event.started_ns for at_ns, event in log.done if 2 * S <= at_ns <= end_ns)
    assert tight.in_time >= 0.95 * tight.offered
    assert busy_ns >= 0.85 * executors * (end_ns - 2 * S)


def goodput_beside_long_batches(can_preempt: bool) -> tuple[float, float]:
    """What a tight model and a long one without hurry reach on one executor that has time for both, as shares."""
    models = [model("tight", 4, 12), model("long", 40, 4_000)]
    world = World(
        controller=build_controller("slotwise", settings={"can_preempt": can_preempt}),
        models=models,
        fleet=fleet((1.0,)),
        seed=1,
        recorders=[Checks({spec.id: spec for spec in models})],
    )
    world.run(1 * S)
    feed_by_turns(world)
    world.run(40 * S)
    tight, long = world.front.tally("tight"), world.front.tally("long")
    return tight.in_time / tight.offered, long.in_time / long.offered


def feed_by_turns(world: World) -> None:
    """Every 50 ms one of the tight, and a long one every 100: together half of an executor."""
    arrivals = [
        Arrival(at_ns=1 * S + i * 50 * MS, model="tight", slo_ns=12 * MS, rows=1, priority=5) for i in range(200)
    ]
    arrivals += [
        Arrival(at_ns=1 * S + i * 100 * MS + 30 * MS, model="long", slo_ns=4 * S, rows=1, priority=5)
        for i in range(100)
    ]
    world.feed(sorted(arrivals, key=lambda arrival: arrival.at_ns))


def test_stopping_a_long_run_without_hurry_lets_the_tight_ones_through() -> None:
    tight, long = goodput_beside_long_batches(can_preempt=True)
    tight_without, _ = goodput_beside_long_batches(can_preempt=False)
    assert tight >= tight_without + 0.2
    assert tight >= 0.95
    assert long >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("executors", [1, 4, 8])
@pytest.mark.parametrize("multiples", ["2x", "mixed"])
def test_slotwise_answers_no_fewer_than_the_others_on_any_number_of_executors(executors: int, multiples: str) -> None:
    duration_s = 6.0 / executors
    ours = overloaded("slotwise", 2.0, multiples, executors, duration_s)
    others = [overloaded("bounded", 2.0, multiples, executors, duration_s, queue_max) for queue_max in (1, 4, 16)]
    assert ours >= max(*others, overloaded("clockwork", 2.0, multiples, executors, duration_s))
