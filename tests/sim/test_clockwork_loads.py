"""Where Clockwork loads models, how often, and which of them go."""

from __future__ import annotations

import pytest

from slotwise.facts.actions import Action, Unload
from slotwise.facts.events import Event
from slotwise.facts.types import Outcome
from slotwise.facts.units import MS, S
from slotwise.sim.world import World
from tests.sim.systems import Log, ask, copies, feed, system

CLOCKWORKS = ("clockwork", "clockwork-published")
ONE_EXECUTOR_PER_S = 1e9 / 2_610_000


class Evictions:
    """A recorder that keeps what was unloaded. That no batch of it is under way is checked in every world."""

    def __init__(self) -> None:
        self.models: list[str] = []

    def record(self, now_ns: int, events: list[Event], actions: list[Action]) -> None:
        """Keep the order."""
        self.models += [action.model for action in actions if type(action) is Unload]


def ask_in_turn(world: World, *models: str) -> None:
    """One request after the other, each answered before the next."""
    for model in models:
        ask(world, model, slo_ns=1 * S)
        world.run(world.clock.now_ns() + 100 * MS)


@pytest.mark.parametrize("policy", CLOCKWORKS)
def test_a_hot_model_spreads_over_as_many_executors_as_its_load_needs(policy: str) -> None:
    models, log = copies(1, batch_max=1), Log()
    world = system(policy, models, executors=4, recorders=[log])
    feed(world, {"m0": 2.6 * ONE_EXECUTOR_PER_S}, 10.0, 100 * MS)
    world.run(11 * S)
    assert len({load.executor for _, load in log.loads}) >= 3
    late = [at_ns for at_ns, reply in log.replies.values() if reply.outcome is not Outcome.IN_TIME and at_ns > 2 * S]
    assert len(late) < 0.01 * len(log.replies)


def test_no_copy_is_made_once_demand_is_met() -> None:
    models, log = copies(1, batch_max=1), Log()
    world = system("clockwork", models, executors=4, recorders=[log])
    feed(world, {"m0": 0.5 * ONE_EXECUTOR_PER_S}, 10.0, 100 * MS)
    world.run(11 * S)
    assert len(log.loads) == 1


def test_the_published_code_copies_a_model_everywhere_though_one_executor_could_serve_it() -> None:
    models, log = copies(1, batch_max=1), Log()
    world = system("clockwork-published", models, executors=4, recorders=[log])
    feed(world, {"m0": 0.5 * ONE_EXECUTOR_PER_S}, 10.0, 100 * MS)
    world.run(11 * S)
    assert len(log.loads) == 4


@pytest.mark.parametrize("policy", CLOCKWORKS)
def test_the_idle_model_used_longest_ago_goes(policy: str) -> None:
    models, evictions = copies(5), Evictions()
    world = system(policy, models, resident=3, recorders=[evictions])
    ask_in_turn(world, "m0", "m1", "m2", "m0", "m3", "m4")
    assert evictions.models == ["m1", "m2"]


@pytest.mark.parametrize("policy", CLOCKWORKS)
def test_a_model_with_requests_stays_while_an_idle_one_can_go(policy: str) -> None:
    models, evictions = copies(4, batch_max=1), Evictions()
    world = system(policy, models, resident=3, recorders=[evictions])
    ask_in_turn(world, "m0", "m1", "m2")
    for _ in range(10):
        ask(world, "m0", slo_ns=1 * S)
    world.run(world.clock.now_ns() + 1 * MS)
    ask(world, "m3", slo_ns=1 * S)
    world.run(world.clock.now_ns() + 1 * S)
    assert evictions.models == ["m1"], "m0 was used before it, and has requests"


@pytest.mark.parametrize("policy", CLOCKWORKS)
def test_a_model_under_way_is_never_evicted_however_short_memory_is(policy: str) -> None:
    models, evictions = copies(12), Evictions()
    world = system(policy, models, resident=2, executors=2, recorders=[evictions])
    feed(world, {spec.id: 40.0 for spec in models}, 10.0, 100 * MS)
    world.run(11 * S)
    tally = world.front.tally()
    assert len(evictions.models) > 100
    assert tally.in_time > 0
    assert sum(tally.outcomes.values()) == tally.offered


@pytest.mark.parametrize("policy", CLOCKWORKS)
def test_loads_keep_the_link_busy_when_memory_is_what_is_short(policy: str) -> None:
    """Loads follow each other without a gap: a new one is sent before the last is back."""
    models, log = copies(60), Log()
    world = system(policy, models, resident=6, recorders=[log])
    feed(world, {spec.id: 5.0 for spec in models}, 10.0, 100 * MS)
    world.run(11 * S)
    busy = sum(1 for at_ns, _ in log.loads if 2 * S <= at_ns < 9 * S) * 8.33e6 / 7e9
    assert busy > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("policy", CLOCKWORKS)
def test_thousands_of_models_reach_what_loads_and_memory_allow_as_at_the_end_of_the_papers_sixth_figure(
    policy: str,
) -> None:
    """One model is asked for 200 times a second, 3,600 others 1,000 times together; 196 fit into memory.

    The others can reach 174/s: 1 s / 8.33 ms = 120 with a load each, and 1,000 x 196 / 3,600 = 54 without.
    """
    models, log = copies(3601), Log()
    world = system(policy, models, resident=196, recorders=[log])
    others = [spec.id for spec in models[1:]]
    feed(world, {"m0": 200.0} | dict.fromkeys(others, 1000 / 3600), 14.0, 100 * MS)
    world.run(4 * S)
    before = world.front.tally(*others).in_time
    world.run(14 * S)
    goodput = (world.front.tally(*others).in_time - before) / 10
    loads_per_s = sum(4 * S <= at_ns < 14 * S for at_ns, _ in log.loads) / 10
    one = world.front.tally("m0")
    assert 167 <= goodput <= 183
    assert 0.64 <= loads_per_s / goodput <= 0.72, "the share of cold starts"
    assert one.in_time > 0.99 * one.offered
    assert world.front.tally().latency_ns_max <= 100 * MS
