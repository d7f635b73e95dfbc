"""What a simulation holds does not grow with the time that it simulates, so that a day fits where an hour does."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from slotwise.engine.statistics import Statistics
from slotwise.facts.units import MS, S
from slotwise.sim.world import World
from slotwise.workload.player import player_of
from slotwise.workload.values import Clients, Phase, Stream, Workload
from tests.sim.systems import copies, system

MODELS = copies(6)
RATE_PER_S = 60.0
PERIOD_S = 4
BYTES_A_REQUEST_MAX = 16
"""Of growth: a latency alone that was kept would take 40."""
OBJECTS_A_REQUEST_MAX = 0.05


def busy_world(policy: str, resident: int) -> World:
    world = system(policy, MODELS, executors=2, resident=resident, recorders=[Statistics()])
    streams = tuple(Stream(model=spec.id, rate_per_s=RATE_PER_S, slo_ns=100 * MS) for spec in MODELS[1:])
    clients = (Clients(models=(MODELS[0].id,), concurrency=2, slo_ns=100 * MS, pause_ns=20 * MS),)
    day = Workload(streams=streams, clients=clients, phases=(Phase(duration_s=86_400.0),), seed=1)
    world.play(player_of(day))
    return world


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "resident"), [("slotwise", len(MODELS)), ("slotwise", 2), ("clockwork", 2)])
def test_twice_the_time_takes_no_more_memory(policy: str, resident: int) -> None:
    world = busy_world(policy, resident)
    held: list[tuple[int, int, int]] = []
    tracemalloc.start()
    try:
        for periods in (1, 2, 3):
            world.run(periods * PERIOD_S * S)
            gc.collect()
            held.append((world.front.tally().offered, tracemalloc.get_traced_memory()[0], len(gc.get_objects())))
    finally:
        tracemalloc.stop()
    (asked, nbytes, objects), (asked_then, nbytes_then, objects_then) = held[1:]
    assert asked_then - asked > 1_200
    assert nbytes_then - nbytes < BYTES_A_REQUEST_MAX * (asked_then - asked)
    assert objects_then - objects < OBJECTS_A_REQUEST_MAX * (asked_then - asked)
