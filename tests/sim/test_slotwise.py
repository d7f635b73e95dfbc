"""Slotwise's promises, in small systems in virtual time: what it takes in it answers, and what not it says at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slotwise.facts.actions import Reply
from slotwise.facts.events import ModelAdded
from slotwise.facts.types import Outcome, Reason, Request
from slotwise.facts.units import MS, S
from slotwise.sim.fleet import Noise
from slotwise.workload.values import Arrival
from tests.sim.systems import ask, copies, feed, system, warm


def test_one_that_comes_to_an_idle_system_in_time_is_never_refused() -> None:
    models = copies(3, batch_max=1)
    world = system("slotwise", models, executors=2)
    warm(world, models)
    feed(world, {model.id: 2.0 for model in models}, duration_s=10.0, slo_ns=9 * MS, start_s=1.0)
    world.run(20 * S)
    tally = world.front.tally()
    assert tally.in_time == tally.offered


def test_a_refusal_is_told_at_once_and_its_retry_after_is_honest() -> None:
    replies: list[Reply] = []
    models = copies(1, batch_max=1)
    world = system("slotwise", models, on_reply=lambda _, reply: replies.append(reply))
    warm(world, models)
    replies.clear()
    for _ in range(12):
        ask(world, models[0].id, slo_ns=10 * MS)
    world.run(world.clock.now_ns() + 1)
    refused = [reply for reply in replies if reply.outcome is Outcome.REFUSED]
    assert refused
    assert world.front.tally().refusal_ns_p50 == 0
    world.run(world.clock.now_ns() + refused[-1].retry_after_ns)
    again = ask(world, models[0].id, slo_ns=10 * MS)
    world.run(world.clock.now_ns() + S)
    assert [reply.outcome for reply in replies if reply.request_id == again.id] == [Outcome.IN_TIME]


def test_a_model_that_is_replaced_while_requests_wait_is_loaded_again_and_answers_them() -> None:
    models = copies(1, batch_max=1)
    world = system("slotwise", models)
    warm(world, models)
    for _ in range(20):
        ask(world, models[0].id, slo_ns=500 * MS)
    world.run(world.clock.now_ns() + 5 * MS)
    world.engine.post(ModelAdded(spec=replace(models[0], digest="another")))
    world.run(world.clock.now_ns() + 2 * S)
    tally = world.front.tally()
    assert tally.in_time == tally.offered
    assert world.front.unanswered() == 0


def test_requests_that_wait_for_a_load_are_told_at_their_deadline_when_it_does_not_come() -> None:
    replies: list[tuple[Request, Reply]] = []
    models = copies(1, batch_max=1)
    world = system("slotwise", models, on_reply=lambda request, reply: replies.append((request, reply)))
    world.run(MS)
    world.fleet.hang("e0")
    ask(world, models[0].id, slo_ns=50 * MS)
    world.run(51 * MS)
    assert [(reply.outcome, reply.reason) for _, reply in replies] == [(Outcome.DROPPED, Reason.EXPIRED)]


def test_what_a_lost_executor_was_promised_to_is_answered_by_the_other() -> None:
    models = copies(2, batch_max=1)
    world = system("slotwise", models, executors=2)
    warm(world, models)
    for _ in range(20):
        ask(world, models[0].id, slo_ns=200 * MS)
    world.run(world.clock.now_ns() + 5 * MS)
    world.fleet.kill("e0")
    world.run(world.clock.now_ns() + 2 * S)
    tally = world.front.tally()
    assert tally.in_time == tally.offered


def test_runs_that_vary_are_answered_in_time_all_the_same() -> None:
    models = copies(4, batch_max=1)
    world = system("slotwise", models, executors=2, noise=Noise(spread=0.1))
    warm(world, models)
    feed(world, {model.id: 300.0 for model in models}, duration_s=5.0, slo_ns=25 * MS, start_s=1.0)
    world.run(20 * S)
    tally = world.front.tally()
    assert tally.outcomes.get(Outcome.LATE, 0) <= 0.01 * tally.in_time


def test_an_overrun_now_and_then_makes_few_others_late() -> None:
    models = copies(4, batch_max=1)
    world = system("slotwise", models, executors=2, noise=Noise(overrun_share=0.01))
    warm(world, models)
    feed(world, {model.id: 100.0 for model in models}, duration_s=5.0, slo_ns=60 * MS, start_s=1.0)
    world.run(20 * S)
    tally = world.front.tally()
    assert tally.in_time >= 0.99 * tally.offered


def test_a_flood_of_the_lowest_priority_does_not_touch_the_highest() -> None:
    models = copies(1, batch_max=1)
    goodputs = []
    for flood in (0, 4):
        ends: list[Outcome] = []

        def note(request: Request, reply: Reply, ends: list[Outcome] = ends) -> None:
            if request.priority == 1:
                ends.append(reply.outcome)

        world = system("slotwise", models, on_reply=note)
        warm(world, models)
        start_ns = world.clock.now_ns()
        highest = [
            Arrival(at_ns=start_ns + i * 10 * MS, model="m0", slo_ns=20 * MS, rows=1, priority=1) for i in range(300)
        ]
        lowest = [
            Arrival(at_ns=start_ns + i * 10 * MS // max(1, flood), model="m0", slo_ns=100 * MS, rows=1, priority=9)
            for i in range(300 * flood)
        ]
        world.feed(sorted(highest + lowest, key=lambda arrival: arrival.at_ns))
        world.run(start_ns + 10 * S)
        goodputs.append(ends.count(Outcome.IN_TIME))
    assert goodputs[0] == 300
    assert goodputs[1] >= 0.99 * goodputs[0]


@pytest.mark.slow
def test_many_models_share_little_memory_and_the_popular_ones_stay() -> None:
    models = copies(200, batch_max=1)
    world = system("slotwise", models, executors=1, resident=20)
    rates = {model.id: 60.0 / (1 + rank) ** 1.2 for rank, model in enumerate(models)}
    feed(world, rates, duration_s=10.0, slo_ns=200 * MS, start_s=1.0)
    world.run(20 * S)
    tally = world.front.tally()
    assert tally.in_time >= 0.95 * tally.offered
