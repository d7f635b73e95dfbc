"""The logs of requests and actions add up: with each other, with the statistics, and with what clients were told."""

from __future__ import annotations

from collections import Counter

import pytest

from slotwise.edges.logs.recorder import LogRecorder
from slotwise.edges.logs.rows import EVICT, INFER, LOAD, LOST, OK, ActionRow, RequestRow
from slotwise.engine.statistics import Statistics
from slotwise.facts.units import MS, S
from slotwise.sim.fleet import Noise
from slotwise.sim.world import World
from tests.sim.systems import QUIET, ask, copies, feed, system, warm

WILD = Noise(spread=0.1, overrun_share=0.02, overrun_factor=8.0)


class Logged:
    """A system that was overloaded, and lost executors, with the rows of both logs."""

    def __init__(self, policy: str, *, resident: int | None = None, noise: Noise = WILD) -> None:
        self.requests: list[RequestRow] = []
        self.actions: list[ActionRow] = []
        self.statistics = Statistics()
        self.models = copies(4)
        recorder = LogRecorder(self.requests.append, self.actions.append)
        self.world = system(
            policy,
            self.models,
            executors=2,
            resident=resident,
            noise=noise,
            recorders=[recorder, self.statistics],
        )

    def wound(self) -> World:
        feed(self.world, dict.fromkeys([spec.id for spec in self.models], 300.0), 4.0, 25 * MS, start_s=1.0)
        for second in (2, 3):
            self.world.run(second * S)
            self.world.fleet.kill("e0")
        request = ask(self.world, "m1")
        self.world.cancel(request.id)
        self.world.run(60 * S)
        return self.world


@pytest.fixture(scope="module", params=["slotwise", "clockwork", "fifo", "edf"])
def logged(request: pytest.FixtureRequest) -> Logged:
    made = Logged(request.param)
    made.wound()
    return made


def test_every_request_has_one_row_with_the_outcome_that_it_was_told(logged: Logged) -> None:
    tally = logged.world.front.tally()
    assert Counter(row.result for row in logged.requests) == {
        outcome.value: count for outcome, count in tally.outcomes.items()
    }
    assert len({row.request_id for row in logged.requests}) == len(logged.requests) == tally.offered > 1_000


def test_the_log_of_requests_counts_as_the_statistics_do(logged: Logged) -> None:
    counted = Counter((row.model_id, row.result, row.reason) for row in logged.requests)
    assert counted == {
        (model.model, one.outcome, one.reason): one.count
        for model in logged.statistics.models(0)
        for one in model.outcomes
    }


def test_the_answers_of_both_logs_are_the_same(logged: Logged) -> None:
    in_time = {row.request_id for row in logged.requests if row.result == "in_time"}
    answered = in_time | {row.request_id for row in logged.requests if row.result == "late"}
    done = [row for row in logged.actions if row.action_type == INFER and row.status == OK]
    assert sum(row.requests_in_time for row in done) == len(in_time)
    assert sum(row.requests_in_time for row in logged.actions) == len(in_time)
    carried = {int(number) for row in done for number in row.request_ids.split()}
    assert answered <= carried
    assert all(row.request_count == len(row.request_ids.split()) for row in logged.actions)


def test_run_times_of_the_log_are_those_of_the_statistics(logged: Logged) -> None:
    done = [row for row in logged.actions if row.action_type == INFER and row.status == OK]
    used = logged.statistics.executors()
    assert sum(row.worker_exec_duration or 0 for row in done) == sum(use.busy_ns for use in used)
    assert len(done) == sum(use.batches for use in used)
    assert all(0 <= row.goodput <= (row.worker_exec_duration or 0) for row in logged.actions)


def test_what_was_lost_with_an_executor_has_a_row_that_says_so(logged: Logged) -> None:
    lost = [row for row in logged.actions if row.status == LOST]
    assert {row.worker_id for row in lost} <= {"e0"}
    assert all((row.goodput, row.worker_exec_duration) == (0, None) for row in lost)


def test_queues_and_copies_of_the_log_are_never_negative_and_empty_at_the_end(logged: Logged) -> None:
    assert all(row.requests_queued >= 0 for row in logged.actions)
    assert all(0 <= row.copies_loaded <= 2 for row in logged.actions)
    assert max(row.requests_queued for row in logged.actions) > 0


def test_a_cold_start_is_one_whose_model_nobody_held() -> None:
    made = Logged("slotwise", resident=1)
    feed(made.world, dict.fromkeys([spec.id for spec in made.models], 20.0), 4.0, 400 * MS)
    made.world.run(60 * S)
    assert all(row.is_coldstart == (row.arrival_count == 0) for row in made.requests)
    assert {row.is_coldstart for row in made.requests} == {0, 1}
    types = Counter(row.action_type for row in made.actions if row.status == OK)
    loads = {row.action_id for row in made.actions if row.action_type == LOAD}
    assert types[LOAD] == sum(use.loads for use in made.statistics.executors())
    assert {row.action_id for row in made.actions if row.action_type == EVICT} <= loads


def test_loads_are_expected_to_end_one_after_the_other() -> None:
    made = Logged("slotwise", noise=QUIET)
    made.world.run(1 * S)
    load_ns = made.models[0].profile.load_ns
    loads = [row for row in made.actions if row.action_type == LOAD and row.worker_id == "e0"]
    assert len(loads) == 4
    assert {row.expected_exec_complete for row in loads} == {load_ns}, "one at a time was sent"
    assert {(row.worker_exec_complete or 0) - load_ns for row in loads} == {50_000}, "it knows of no link"


def test_loads_of_a_simulation_are_spread_as_it_says() -> None:
    made = Logged("slotwise", noise=Noise(load_spread=0.1))
    made.world.run(1 * S)
    took_ns = {row.worker_exec_duration or 0 for row in made.actions if row.action_type == LOAD}
    load_ns = made.models[0].profile.load_ns
    assert len(took_ns) == 8
    assert 0.5 * load_ns < min(took_ns) < load_ns < max(took_ns) < 2 * load_ns


def test_a_quiet_run_has_the_times_of_its_profile_in_the_log() -> None:
    made = Logged("slotwise", noise=QUIET)
    warm(made.world, made.models)
    ask(made.world, "m0", slo_ns=50 * MS)
    made.world.run(2 * S)
    request, action = made.requests[-1], made.actions[-1]
    assert (request.t - request.latency, request.deadline) == (1 * S, 50 * MS)
    assert request.slo_factor == pytest.approx(50 / 2.61, abs=0.001)
    assert action.worker_exec_duration == action.goodput == 2_610_000
    assert action.controller_action_duration == request.latency
    assert (action.worker_exec_complete or 0) - (action.worker_exec_start or 0) == 2_610_000
