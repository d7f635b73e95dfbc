"""The policy that is like INFaaS: which batches and how many copies it answers load with, and when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pytest

from slotwise.facts.actions import Action, Load, Unload
from slotwise.facts.events import Event
from slotwise.facts.profile import Profile
from slotwise.facts.units import MS, S
from slotwise.policy.presets import PresetError, build_controller
from slotwise.policy.schedulers.infaas_loads import rows_for
from tests.sim.systems import Log, copies, feed, system

FLAT = Profile(rows=(1, 16), run_ns=(4 * MS, 64 * MS), load_ns=8 * MS, memory_bytes=7 << 24)
"""A model whose batches save nothing."""
PERIOD_NS = 500 * MS


class Holders:
    """A recorder of which executors hold each model, loads under way included."""

    def __init__(self) -> None:
        self.of: defaultdict[str, list[str]] = defaultdict(list)

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        for action in actions:
            if type(action) is Load:
                self.of[action.model].append(action.executor)
            elif type(action) is Unload:
                self.of[action.model].remove(action.executor)


@pytest.mark.parametrize(
    ("slo_ms", "crowding", "rows"),
    [(100, 0.5, 1), (100, 1.3, 2), (100, 1.5, 4), (100, 9.0, 16), (10, 9.0, 8), (5, 9.0, 2), (1, 9.0, 1)],
)
def test_a_batch_is_the_smallest_that_carries_the_load_of_those_within_the_slo(
    slo_ms: int, crowding: float, rows: int
) -> None:
    (spec,) = copies(1)
    assert rows_for(spec, slo_ms * MS, crowding) == rows


def test_batches_that_save_nothing_are_not_made() -> None:
    (spec,) = copies(1, profile=FLAT)
    assert rows_for(spec, 1 * S, 2.0) == 1


def test_batches_grow_a_period_after_the_load_and_shrink_a_period_after_it() -> None:
    models, log = copies(1), Log()
    world = system("infaas", models, recorders=[log])
    feed(world, {"m0": 500.0}, 3.0, 100 * MS)
    world.run(3 * S)
    assert {run.rows for at_ns, run in log.runs if at_ns < PERIOD_NS} == {1}
    assert max(run.rows for at_ns, run in log.runs if at_ns > 2 * S) == 4, "twos do 529 a second, more than 0.8 of it"
    feed(world, {"m0": 50.0}, 3.0, 100 * MS, start_s=4.0)
    world.run(8 * S)
    assert {run.rows for at_ns, run in log.runs if at_ns > 5 * S} == {1}


def test_a_model_is_loaded_at_one_executor_when_it_is_asked_for_and_models_are_spread() -> None:
    models, log, holders = copies(4), Log(), Holders()
    world = system("infaas", models, executors=2, recorders=[log, holders])
    world.run(1 * S)
    assert log.loads == [], "nothing was asked for"
    feed(world, {spec.id: 20.0 for spec in models}, 5.0, 100 * MS, start_s=1.0)
    world.run(8 * S)
    assert len(log.loads) == 4
    assert sorted(holders.of[spec.id][0] for spec in models) == ["e0", "e0", "e1", "e1"]


def test_a_model_whose_executors_have_too_much_to_do_gets_one_copy_more_each_period() -> None:
    models, log, holders = copies(1, profile=FLAT), Log(), Holders()
    world = system("infaas", models, executors=4, recorders=[log, holders])
    feed(world, {"m0": 480.0}, 4.0, 100 * MS)
    world.run(4 * S)
    began_ns = [at_ns for at_ns, _ in log.loads]
    assert [at_ns // PERIOD_NS for at_ns in began_ns] == [0, 1, 2], "three executors do 750 a second"
    assert began_ns[1:] == [began_ns[0] + PERIOD_NS, began_ns[0] + 2 * PERIOD_NS]
    assert len(holders.of["m0"]) == 3


def test_a_copy_that_is_not_needed_goes_after_some_quiet_periods_and_the_last_one_stays() -> None:
    models, holders = copies(1, profile=FLAT), Holders()
    world = system("infaas", models, executors=3, recorders=[holders], settings={"calm_periods": 4})
    feed(world, {"m0": 480.0}, 3.0, 100 * MS)
    world.run(4 * S)
    assert len(holders.of["m0"]) == 3
    feed(world, {"m0": 50.0}, 8.0, 100 * MS, start_s=5.0)
    world.run(5 * S)
    assert len(holders.of["m0"]) == 3
    world.run(14 * S)
    assert len(holders.of["m0"]) == 1


def test_no_copy_is_made_where_another_model_would_have_to_go() -> None:
    models, log = copies(2, profile=FLAT), Log()
    world = system("infaas", models, executors=2, resident=1, recorders=[log])
    feed(world, {"m0": 500.0, "m1": 5.0}, 4.0, 100 * MS)
    world.run(10 * S)
    assert [load.model for _, load in log.loads] == ["m0", "m1"]


def test_a_share_that_makes_no_sense_is_an_error_that_says_so() -> None:
    with pytest.raises(PresetError, match=r"policy infaas: idle_share is 0.9; it must be from 0 to below full_share"):
        build_controller("infaas", settings={"idle_share": 0.9})
