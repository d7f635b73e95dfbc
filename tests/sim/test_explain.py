"""A journal tells of any request what it met and why it ended so; each kind of ending has a sentence of its own."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from slotwise.engine.journal import Journal, JournalError
from slotwise.explain.journal import explanations
from slotwise.explain.words import Explanation
from slotwise.facts.types import Request
from slotwise.facts.units import MS, S
from slotwise.sim.fleet import Noise
from slotwise.sim.world import World
from tests.sim.systems import QUIET, ask, copies, feed, system, warm

Told = Callable[[Request], Explanation]


class Journaled:
    """A system whose journal can be asked about its requests."""

    def __init__(self, folder: Path, policy: str = "slotwise", *, noise: Noise = QUIET, executors: int = 1) -> None:
        self._path = folder / "journal"
        self._file = io.BytesIO()
        models = copies(2)
        journal = Journal(self._file, {"policy": policy})
        self.world: World = system(policy, models, executors=executors, noise=noise, recorders=[journal])
        warm(self.world, models)

    def run(self, duration_ns: int = 5 * S) -> None:
        self.world.run(self.world.clock.now_ns() + duration_ns)

    def path(self) -> Path:
        self._path.write_bytes(self._file.getvalue())
        return self._path

    def told(self, request: Request) -> Explanation:
        return explanations(self.path(), request=request.id)[0]


def test_one_in_time_is_told_with_its_batch_and_what_was_expected(tmp_path: Path) -> None:
    made = Journaled(tmp_path)
    first, second = ask(made.world, "m0"), ask(made.world, "m0")
    made.run()
    told = made.told(second)
    assert told.why.endswith("ms before its deadline")
    assert (told.outcome, told.reason, told.waiting, told.waiting_all) == ("in_time", "none", 1, 1)
    assert [(one.executor, one.holds_model, one.batches) for one in told.executors] == [("e0", True, 0)]
    batch = told.batches[-1]
    assert (batch.executor, batch.rows, batch.company, batch.trouble) == ("e0", 2, (first.id,), "")
    assert batch.run_ms == batch.expected_run_ms == 3.78
    assert batch.sent_ms <= (batch.start_ms or 0)
    assert told.missed_by_ms is None


def test_a_refusal_says_what_it_was_predicted_and_what_stood_before_it(tmp_path: Path) -> None:
    made = Journaled(tmp_path)
    alone = ask(made.world, "m0", slo_ns=1 * MS)
    made.run(1 * S)
    for _ in range(40):
        ask(made.world, "m0")
    made.run(1 * MS)
    behind = ask(made.world, "m1", slo_ns=3 * MS)
    made.run()
    told = made.told(alone)
    assert (told.outcome, told.reason, told.batches) == ("refused", "infeasible", ())
    assert "its run alone was expected to take 2." in told.why
    assert "of 1.000 ms allowed" in told.why
    assert told.missed_by_ms == pytest.approx((told.predicted_ms or 0) - 1.0)
    crowded = made.told(behind)
    assert f"; {crowded.waiting_all} requests waited, and every executor with its model was busy for" in crowded.why
    assert crowded.waiting_all > 0
    assert crowded.executors[0].busy_ms > 1


def test_a_late_one_names_the_batch_that_took_too_long(tmp_path: Path) -> None:
    made = Journaled(tmp_path, "fifo", noise=Noise(overrun_share=1.0, overrun_factor=2.0))
    request = ask(made.world, "m0", slo_ns=4 * MS)
    made.run()
    told = made.told(request)
    assert told.outcome == "late"
    assert "its batch took" in told.why
    assert (told.batches[0].run_ms or 0) == pytest.approx(5.22)


def test_a_late_one_names_what_ran_before_it(tmp_path: Path) -> None:
    made = Journaled(tmp_path, "fifo")
    for _ in range(20):
        ask(made.world, "m0", slo_ns=10 * S)
    request = ask(made.world, "m1", slo_ns=5 * MS)
    made.run()
    told = made.told(request)
    assert (told.outcome, told.waiting, told.waiting_all) == ("late", 0, 20)
    assert told.why.startswith("late by ")
    assert told.missed_by_ms == pytest.approx((told.latency_ms or 0) - 5.0)


def test_one_lost_with_its_executor_says_so_and_lists_both_tries(tmp_path: Path) -> None:
    made = Journaled(tmp_path, executors=2)
    request = ask(made.world, "m0", slo_ns=1 * S)
    made.world.run(made.world.clock.now_ns() + 1 * MS)
    made.world.fleet.kill("e0")
    made.world.fleet.kill("e1")
    made.run()
    told = made.told(request)
    assert [one.trouble for one in told.batches] == ["executor_lost", ""]
    assert told.outcome == "in_time"
    assert {one.executor for one in told.loads} <= {"e0", "e1"}
    assert len(told.loads) >= 1


def test_one_given_up_after_its_executor_died_says_so(tmp_path: Path) -> None:
    made = Journaled(tmp_path)
    request = ask(made.world, "m0", slo_ns=10 * MS)
    made.world.run(made.world.clock.now_ns() + 1 * MS)
    made.world.fleet.kill("e0")
    made.run()
    told = made.told(request)
    assert told.outcome in ("dropped", "failed")
    assert "its executor was lost with it (e0)" in told.why


def test_one_whose_client_went_and_one_without_a_reply_are_told_apart(tmp_path: Path) -> None:
    made = Journaled(tmp_path)
    gone, open_one = ask(made.world, "m0"), ask(made.world, "m1")
    made.world.cancel(gone.id)
    made.world.run(made.world.clock.now_ns() + MS // 10)
    assert made.told(gone).why.startswith("its client went away")
    told = made.told(open_one)
    assert (told.outcome, told.latency_ms, told.why) == (None, None, "it had no reply when the journal ended")


def test_the_worst_are_those_that_missed_by_most_in_order(tmp_path: Path) -> None:
    made = Journaled(tmp_path, noise=Noise(spread=0.2))
    feed(made.world, {"m0": 400.0, "m1": 400.0}, 3.0, 5 * MS, start_s=1.0)
    made.run(10 * S)
    worst = explanations(made.path(), worst=20)
    missed = [one.missed_by_ms or 0.0 for one in worst]
    assert len(worst) == 20
    assert missed == sorted(missed, reverse=True)
    every = explanations(made.path(), worst=100_000)
    assert [one.request for one in every[:20]] == [one.request for one in worst]
    assert all(one.outcome not in ("in_time", "cancelled") for one in every)


def test_a_request_that_the_journal_does_not_know_is_an_error_that_says_so(tmp_path: Path) -> None:
    made = Journaled(tmp_path)
    with pytest.raises(JournalError, match="has no request 4711"):
        explanations(made.path(), request=4711)


@pytest.mark.parametrize("damage", [b"[12, 3\n", b"\xff\n", b'[1,[["Arrived",{}]],[]]\n'])
def test_a_damaged_line_is_named_and_a_torn_end_is_left_out(tmp_path: Path, damage: bytes) -> None:
    made = Journaled(tmp_path)
    request = ask(made.world, "m0")
    made.run()
    path = made.path()
    whole = path.read_bytes()
    path.write_bytes(whole + b"[1, [], [")
    assert explanations(path, request=request.id)[0].outcome == "in_time"
    path.write_bytes(whole + damage)
    with pytest.raises(JournalError, match=f"line {whole.count(bytes([10])) + 1}"):
        explanations(path, request=request.id)
