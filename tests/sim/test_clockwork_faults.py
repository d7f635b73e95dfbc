"""What becomes of requests when batches overrun, miss their windows, or die with their executor."""

from __future__ import annotations

import pytest

from slotwise.facts.types import Outcome, Reason
from slotwise.facts.units import MS, S
from slotwise.sim.fleet import Noise
from tests.sim.systems import Log, ask, copies, feed, system, warm

OVERRUNS = Noise(overrun_share=0.01, overrun_factor=10.0)


def test_overruns_do_not_cost_others_their_deadlines_and_missed_windows_are_tried_again() -> None:
    models, log = copies(4), Log()
    world = system("clockwork", models, executors=2, noise=OVERRUNS, recorders=[log])
    feed(world, {spec.id: 75.0 for spec in models}, 30.0, 250 * MS)
    world.run(32 * S)
    tally = world.front.tally()
    overruns = sum(event.ended_ns - event.started_ns > 20 * MS for _, event in log.done)
    again = [reply for _, reply in log.replies.values() if reply.timing is not None and reply.timing.attempts > 1]
    assert overruns > 50
    assert again, "some batches behind an overrun missed their window"
    assert tally.in_time >= 0.999 * tally.offered


def test_the_published_code_gives_up_what_missed_its_window() -> None:
    models, log = copies(4), Log()
    world = system("clockwork-published", models, executors=2, noise=OVERRUNS, recorders=[log])
    feed(world, {spec.id: 75.0 for spec in models}, 30.0, 250 * MS)
    world.run(32 * S)
    lost = [reply for _, reply in log.replies.values() if reply.outcome is Outcome.DROPPED]
    assert lost
    assert {reply.reason for reply in lost} == {Reason.EXPIRED}
    assert all(reply.timing is None or reply.timing.attempts == 1 for _, reply in log.replies.values())


def test_a_batch_that_died_with_its_executor_runs_elsewhere() -> None:
    models, log = copies(1), Log()
    world = system("clockwork", models, executors=2, recorders=[log])
    for _ in range(200):
        ask(world, "m0", slo_ns=2 * S)
    world.run(400 * MS)
    request = ask(world, "m0", slo_ns=1 * S)
    world.run(world.clock.now_ns() + 1 * MS)
    [holder] = {run.executor for _, run in log.runs if request.id in {member.id for member in run.requests}}
    world.fleet.kill(holder)
    world.run(world.clock.now_ns() + 1 * S)
    timing = log.replies[request.id][1].timing
    assert timing is not None
    assert timing.attempts == 2


@pytest.mark.parametrize("policy", ["clockwork", "clockwork-published"])
def test_goodput_follows_the_executors_that_are_there(policy: str) -> None:
    """Asked for more than three executors can do: one goes, and comes back after three seconds."""
    models = copies(6, batch_max=1)
    world = system(policy, models, executors=3, restart_ns=3 * S)
    feed(world, {spec.id: 3.6e9 / 2_610_000 / 6 for spec in models}, 12.0, 100 * MS)

    def goodput(duration_ns: int) -> float:
        before = world.front.tally().in_time
        world.run(world.clock.now_ns() + duration_ns)
        return (world.front.tally().in_time - before) / duration_ns * S

    world.run(2 * S)
    whole = goodput(2 * S)
    world.fleet.kill("e1")
    world.run(world.clock.now_ns() + 500 * MS)
    without = goodput(2 * S)
    world.run(world.clock.now_ns() + 1 * S)
    again = goodput(2 * S)
    world.run(14 * S)
    assert 0.63 * whole < without < 0.70 * whole
    assert again > 0.97 * whole
    assert world.front.unanswered() == 0


@pytest.mark.parametrize("policy", ["clockwork", "clockwork-published"])
def test_requests_outlive_the_loss_of_every_executor(policy: str) -> None:
    models = copies(2)
    world = system(policy, models, executors=1)
    warm(world, models)
    world.fleet.kill("e0")
    ask(world, "m0", slo_ns=1 * S)
    ask(world, "m1", slo_ns=50 * MS)
    world.run(world.clock.now_ns() + 2 * S)
    assert world.front.tally("m0").in_time == 2
    assert world.front.tally("m1").outcomes == {Outcome.IN_TIME: 1, Outcome.DROPPED: 1}
