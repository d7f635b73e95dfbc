"""The grounds on which Clockwork's paper shows itself: equal models, insistent clients, batch tenants, cold loads."""

from __future__ import annotations

import pytest

from slotwise.facts.actions import Reply
from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, Outcome, Reason, Request
from slotwise.facts.units import MS, S
from slotwise.policy.presets import build_controller
from slotwise.sim.checks import Checks
from slotwise.sim.fleet import FleetSettings, SimSlice
from slotwise.sim.front import Tally
from slotwise.sim.world import World
from slotwise.workload.player import player_of
from slotwise.workload.values import Clients, Phase, Stream, Workload
from tests.sim.systems import PAGE_BYTES, RESNET50, copies

FAR_NS = 500_000
DAY_NS = 86_400 * S
BATCHES_PER_S = 1_021
"""Answers a second of batches of sixteen back to back."""
SETTINGS = {"clockwork-published": {"batch_max": 16}}


def play(
    policy: str, models: list[ModelSpec], workload: Workload, executors: int = 1, resident: int = 200
) -> tuple[World, list[str]]:
    """A workload to its end, on executors of other machines, and whose requests were answered meanwhile."""
    answers: list[str] = []

    def note(request: Request, reply: Reply) -> None:
        if reply.outcome is Outcome.IN_TIME and world.clock.now_ns() <= S // 2 + workload.duration_s * S:
            answers.append(request.model)

    pages = resident * RESNET50.memory_bytes
    slices = tuple(SimSlice(executor=f"e{i}", memory_bytes=pages, page_bytes=PAGE_BYTES) for i in range(executors))
    world = World(
        controller=build_controller(policy, settings=SETTINGS.get(policy, {})),
        models=models,
        fleet=FleetSettings(slices=slices, link_ns=FAR_NS, is_far=True),
        seed=1,
        recorders=[Checks({spec.id: spec for spec in models})],
        on_reply=note,
    )
    world.play(player_of(workload), start_ns=S // 2)
    world.run(S // 2 + int(workload.duration_s * S) + S)
    return world, answers


def insisting(policy: str, count: int, slo_ms: int, pause_ms: int, heeds: bool = False) -> list[str]:
    """Whose requests were answered: of equal models with sixteen clients each, which ask again soon after a no.

    Where they heed what they are told, they ask again when they are told to.
    """
    models = copies(count, slo_ms * MS)
    clients = tuple(
        Clients(
            models=(spec.id,),
            concurrency=16,
            slo_ns=slo_ms * MS,
            pause_ns=pause_ms * MS,
            heeds_retry_after=heeds,
            start_within_s=0.3,
        )
        for spec in models
    )
    workload = Workload(streams=(), phases=(Phase(duration_s=2.0),), seed=1, clients=clients)
    return play(policy, models, workload)[1]


def crowd(policy: str, count: int, seconds: float = 4.0) -> tuple[Tally, Tally]:
    """A thousand requests a second for some models, and two hundred for one more; what becomes of all, and of these."""
    models = copies(count + 1, batch_max=8)
    rates = {spec.id: 1_000.0 / count for spec in models[1:]} | {"m0": 200.0}
    streams = tuple(Stream(model=name, rate_per_s=rate, slo_ns=100 * MS) for name, rate in rates.items())
    workload = Workload(streams=streams, phases=(Phase(duration_s=seconds),), seed=1)
    world, _ = play(policy, models, workload, resident=196)
    return world.front.tally(), world.front.tally("m0")


def test_models_that_are_alike_are_served_alike() -> None:
    answers = insisting("slotwise", count=4, slo_ms=25, pause_ms=4)
    shares = [answers.count(f"m{i}") / len(answers) for i in range(4)]
    assert min(shares) >= 0.15, "a quarter each would be fair"


@pytest.mark.slow
def test_batches_fill_however_soon_clients_ask_again() -> None:
    answers = insisting("slotwise", count=8, slo_ms=50, pause_ms=2)
    assert len(answers) >= 0.9 * BATCHES_PER_S * 2.0


def test_those_who_come_again_when_they_are_told_to_come_in_turn() -> None:
    answers = insisting("slotwise", count=15, slo_ms=50, pause_ms=1, heeds=True)
    assert len(answers) >= 0.8 * BATCHES_PER_S * 2.0


def test_those_who_are_told_to_come_again_come_as_whole_batches() -> None:
    answers = insisting("slotwise", count=15, slo_ms=10, pause_ms=1, heeds=True)
    assert len(answers) >= 600 * 2.0, "batches of four come to 713 a second, requests alone to 383"


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 20])
def test_more_is_answered_than_by_clockwork_where_too_much_is_asked_of_some_models(count: int) -> None:
    ours, theirs = crowd("slotwise", count)[0], crowd("clockwork-published", count)[0]
    assert ours.in_time >= 0.98 * theirs.in_time


def test_a_kind_that_was_dear_once_is_tried_again() -> None:
    hot = crowd("slotwise", 20)[1]
    assert hot.in_time >= 0.8 * hot.offered, "its batches fill best, once they are given time"


def test_a_load_at_another_machine_is_not_begun_too_late_for_those_who_wait_for_it() -> None:
    tally = crowd("slotwise", 800)[0]
    assert tally.reasons.get(Reason.EXPIRED, 0) <= 0.1 * tally.in_time


def beside_tenants(policy: str, slo_ms: int) -> tuple[float, int]:
    """Six tight models beside twelve tenants with a day: the share of the tight answered, and all answers."""
    tight, patient = copies(6, slo_ms * MS), [f"b{serial}" for serial in range(12)]
    models = [*tight, *(_tenant(name) for name in patient)]
    streams = tuple(Stream(model=spec.id, rate_per_s=200.0, slo_ns=slo_ms * MS) for spec in tight)
    clients = tuple(
        Clients(models=(name,), concurrency=16, slo_ns=DAY_NS, pause_ns=MS, start_within_s=0.3) for name in patient
    )
    workload = Workload(streams=streams, phases=(Phase(duration_s=3.0),), seed=1, clients=clients)
    world, answers = play(policy, models, workload, executors=6)
    tally = world.front.tally(*(spec.id for spec in tight))
    return tally.in_time / tally.offered, len(answers)


def _tenant(name: str) -> ModelSpec:
    return ModelSpec(id=name, name=name, version="1", profile=RESNET50, slo_ns=DAY_NS, batch_max=16)


@pytest.mark.slow
def test_batches_of_the_tight_fill_while_those_with_a_day_wait() -> None:
    share, answers = beside_tenants("slotwise", 33)
    assert share >= 0.98
    assert answers >= 1.08 * beside_tenants("clockwork-published", 33)[1], "these gather company while others run"


@pytest.mark.slow
def test_batches_without_hurry_are_stopped_for_the_tight_however_much_they_answer() -> None:
    assert beside_tenants("slotwise", 7)[0] >= 0.9


def test_dear_models_are_served_beside_cheap_ones_while_there_is_time_though_memory_is_short() -> None:
    cheap = Profile(rows=(1, 8), run_ns=(MS, 3 * MS), load_ns=5 * MS, memory_bytes=7 * PAGE_BYTES)
    dear = Profile(rows=(1, 8), run_ns=(8 * MS, 50 * MS), load_ns=5 * MS, memory_bytes=7 * PAGE_BYTES)
    models = [_model(f"cheap{i}", cheap) for i in range(10)] + [_model(f"dear{i}", dear) for i in range(10)]
    streams = tuple(
        Stream(model=spec.id, rate_per_s=15.0 if spec.profile is cheap else 5.0, slo_ns=100 * MS) for spec in models
    )
    workload = Workload(streams=streams, phases=(Phase(duration_s=5.0),), seed=1)
    tally = play("slotwise", models, workload, resident=15)[0].front.tally()
    assert tally.in_time >= 0.97 * tally.offered


def _model(name: str, profile: Profile) -> ModelSpec:
    return ModelSpec(id=name, name=name, version="1", profile=profile, slo_ns=100 * MS, batch_max=8)
