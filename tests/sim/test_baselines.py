"""The schedulers that ours is compared with: each by its name, and true to what it stands for."""

from __future__ import annotations

import pytest

from slotwise.facts.profile import Profile
from slotwise.facts.types import Outcome, Reason
from slotwise.facts.units import MS, S
from slotwise.policy.presets import build_controller
from slotwise.policy.schedulers import SCHEDULERS
from tests.sim.systems import Log, ask, copies, feed, system, warm

REFUSE_NOTHING = ("clockwork", "clockwork-published", "fifo", "edf", "deferred", "clipper", "infaas")
FLAT = Profile(rows=(1, 16), run_ns=(4 * MS, 64 * MS), load_ns=8 * MS, memory_bytes=7 << 24)
"""A model whose batches save nothing."""


@pytest.mark.parametrize("policy", SCHEDULERS)
def test_schedulers_are_swapped_by_name_and_all_serve_a_load_that_fits(policy: str) -> None:
    models = copies(4)
    world = system(policy, models, executors=2)
    warm(world, models)
    feed(world, {spec.id: 50.0 for spec in models}, 5.0, 100 * MS, start_s=4.0)
    world.run(12 * S)
    tally = world.front.tally()
    assert tally.offered > 900
    assert tally.in_time >= 0.99 * tally.offered


@pytest.mark.parametrize("policy", SCHEDULERS)
def test_a_cold_model_is_loaded_when_it_is_asked_for_though_memory_is_full(policy: str) -> None:
    models = copies(6)
    world = system(policy, models, resident=2)
    for spec in 3 * models:
        world.run(world.clock.now_ns() + 200 * MS)
        ask(world, spec.id, slo_ns=1 * S)
    world.run(10 * S)
    assert world.front.tally().outcomes == {Outcome.IN_TIME: 18}


@pytest.mark.parametrize("policy", REFUSE_NOTHING)
def test_these_refuse_nobody_however_much_is_asked(policy: str) -> None:
    models = copies(3)
    world = system(policy, models)
    feed(world, {spec.id: 1000.0 for spec in models}, 2.0, 50 * MS)
    world.run(60 * S)
    assert Outcome.REFUSED not in world.front.tally().outcomes


@pytest.mark.parametrize("policy", ["fifo", "clipper", "infaas"])
def test_these_answer_everybody_however_late(policy: str) -> None:
    models = copies(3)
    world = system(policy, models)
    feed(world, {spec.id: 1000.0 for spec in models}, 2.0, 50 * MS)
    world.run(60 * S)
    tally = world.front.tally()
    assert set(tally.outcomes) == {Outcome.IN_TIME, Outcome.LATE}
    assert tally.outcomes[Outcome.LATE] > 0.9 * tally.offered


def test_fifo_answers_in_the_order_of_arrival() -> None:
    models, log = copies(3, batch_max=1), Log()
    world = system("fifo", models, recorders=[log])
    warm(world, models)
    requests = [ask(world, f"m{i % 3}", slo_ns=(100 - i) * S) for i in range(30)]
    world.run(world.clock.now_ns() + 10 * S)
    ends = [log.replies[request.id][0] for request in requests]
    assert ends == sorted(ends)


def test_edf_answers_in_the_order_of_deadlines() -> None:
    models, log = copies(3, batch_max=1), Log()
    world = system("edf", models, recorders=[log])
    warm(world, models)
    requests = [ask(world, f"m{i % 3}", slo_ns=(100 - i) * S) for i in range(30)]
    world.run(world.clock.now_ns() + 10 * S)
    ends = [log.replies[request.id][0] for request in reversed(requests)]
    assert ends[:-1] == sorted(ends[:-1]), "but for the one that was sent before the others came"


def test_edf_gives_up_what_is_late_when_its_turn_comes() -> None:
    models, log = copies(1, batch_max=1), Log()
    world = system("edf", models, recorders=[log])
    warm(world, models)
    requests = [ask(world, "m0", slo_ns=30 * MS) for _ in range(30)]
    world.run(world.clock.now_ns() + 10 * S)
    replies = [log.replies[request.id] for request in requests]
    dropped = [(at_ns, reply) for at_ns, reply in replies if reply.outcome is Outcome.DROPPED]
    assert len(dropped) > 15
    assert {reply.reason for _, reply in dropped} == {Reason.EXPIRED}
    assert all(at_ns >= requests[0].deadline_ns for at_ns, _ in dropped)


def test_deferred_batches_wait_while_that_can_make_them_larger_and_no_longer() -> None:
    models, log = copies(1), Log()
    world = system("deferred", models, recorders=[log])
    warm(world, models)
    began_ns = world.clock.now_ns()
    requests = []
    for _ in range(4):
        requests.append(ask(world, "m0", slo_ns=100 * MS))
        world.run(world.clock.now_ns() + 5 * MS)
    world.run(began_ns + 1 * S)
    ((sent_ns, run),) = [sent for sent in log.runs if sent[0] >= began_ns]
    assert run.rows == 4
    one_more_ns = models[0].profile.expected_ns(5)
    assert requests[0].deadline_ns - one_more_ns - 2 * MS <= sent_ns <= requests[0].deadline_ns - one_more_ns
    assert {log.replies[request.id][1].outcome for request in requests} == {Outcome.IN_TIME}


def test_deferred_sends_a_full_batch_at_once() -> None:
    models, log = copies(1), Log()
    world = system("deferred", models, recorders=[log])
    warm(world, models)
    began_ns = world.clock.now_ns()
    for _ in range(models[0].batch_max):
        ask(world, "m0", slo_ns=10 * S)
    world.run(began_ns + 1 * S)
    assert [(at_ns, run.rows) for at_ns, run in log.runs if at_ns >= began_ns] == [(began_ns, models[0].batch_max)]


def test_bounded_refuses_what_finds_its_queue_full_and_nothing_else() -> None:
    models, log = copies(2, batch_max=1), Log()
    world = system("bounded", models, settings={"queue_max": 5}, recorders=[log])
    warm(world, models)
    crowd = [ask(world, "m0", slo_ns=1 * S) for _ in range(20)]
    other = ask(world, "m1", slo_ns=1 * S)
    world.run(world.clock.now_ns() + 2 * S)
    outcomes = [log.replies[request.id][1].outcome for request in crowd]
    refused = [log.replies[request.id][1] for request in crowd if log.replies[request.id][1].outcome is Outcome.REFUSED]
    assert outcomes.count(Outcome.IN_TIME) == 5
    assert {reply.reason for reply in refused} == {Reason.QUEUE_FULL}
    assert log.replies[other.id][1].outcome is Outcome.IN_TIME


def test_bounded_answers_more_in_time_than_fifo_under_overload() -> None:
    in_time = {}
    for policy in ("bounded", "fifo"):
        models = copies(3, batch_max=1)
        world = system(policy, models)
        feed(world, {spec.id: 200.0 for spec in models}, 5.0, 100 * MS)
        world.run(30 * S)
        in_time[policy] = world.front.tally().in_time
    assert in_time["bounded"] > 5 * in_time["fifo"]


def test_clippers_batches_grow_while_they_keep_the_slo_and_back_off_when_they_miss() -> None:
    """A batch takes 4 ms for each row and may wait for one: sizes stay about what 40 ms allow."""
    models, log = copies(1, profile=FLAT), Log()
    world = system("clipper", models, recorders=[log])
    feed(world, {"m0": 600.0}, 5.0, 40 * MS)
    world.run(5 * S)
    sizes = [run.rows for _, run in log.runs]
    assert sizes[:6] == sorted(sizes[:6])
    assert max(sizes) in {10, 11}
    assert set(sizes[-20:]) <= {8, 9, 10, 11}
    assert min(sizes[-20:]) < max(sizes[-20:])


def test_clippers_batches_reach_the_models_largest_when_the_slo_is_long() -> None:
    models, log = copies(1, batch_max=8), Log()
    world = system("clipper", models, recorders=[log])
    feed(world, {"m0": 2000.0}, 2.0, 5 * S)
    world.run(2 * S)
    assert {run.rows for _, run in log.runs[-10:]} == {8}


@pytest.mark.parametrize("policy", SCHEDULERS)
def test_an_executor_that_hangs_keeps_its_share_from_being_answered_at_worst(policy: str) -> None:
    models = copies(2)
    world = system(policy, models, executors=3)
    warm(world, models)
    world.fleet.hang("e1")
    feed(world, {spec.id: 50.0 for spec in models}, 3.0, 200 * MS, start_s=3.0)
    world.run(60 * S)
    tally = world.front.tally()
    assert world.front.unanswered() == 0
    assert tally.in_time > 0.6 * tally.offered


def test_every_policy_says_what_it_is() -> None:
    assert all(preset.summary for preset in SCHEDULERS.values())
    assert len({preset.summary for preset in SCHEDULERS.values()}) == len(SCHEDULERS)
    assert all(build_controller(name) for name in SCHEDULERS)
