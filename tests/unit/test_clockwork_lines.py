"""Clockwork's batch queues and its trackers of availability, without a system around them."""

from __future__ import annotations

from slotwise.facts.profile import Profile
from slotwise.facts.types import FOREVER_NS, ModelSpec, Request
from slotwise.policy.estimates import Estimates, EstimateSettings
from slotwise.policy.schedulers.clockwork_lines import Line, Tracker, Waiting, line_name
from slotwise.policy.view import Ticket

PROFILE = Profile(rows=(1, 2, 4), run_ns=(10, 16, 24), load_ns=1, memory_bytes=1)
SPEC = ModelSpec(id="m", name="m", version="1", profile=PROFILE, slo_ns=100, batch_max=4)
ESTIMATES = Estimates(EstimateSettings())


def waiting(line: Line, serial: int, due_ns: int) -> Waiting:
    request = Request(id=serial, model="m", arrival_ns=0, deadline_ns=due_ns)
    entry = Waiting(Ticket(request), line, serial, due_ns)
    line.put(entry)
    return entry


def line_of(*dues_ns: int) -> tuple[Line, list[Waiting]]:
    head = Request(id=0, model="m", arrival_ns=0, deadline_ns=0)
    line = Line((0, 1, 0), head, (1, 2, 4))
    return line, [waiting(line, serial, due_ns) for serial, due_ns in enumerate(dues_ns)]


def take(line: Line, level: int, start_ns: int = 0) -> list[int]:
    return [entry.serial for entry in line.take(level, start_ns, "e", SPEC, ESTIMATES)]


def test_the_largest_size_that_can_be_filled_is_taken_from_the_head() -> None:
    line, _ = line_of(100, 100, 100, 100, 100)
    assert line.level() == 3
    assert take(line, 1) == [0, 1, 2, 3]
    assert line.level() == 1


def test_a_size_that_cannot_be_filled_is_not_taken() -> None:
    line, _ = line_of(100, 100, 100)
    assert take(line, 1) == [0, 1], "three make a batch of two"


def test_a_head_in_a_hurry_stays_for_the_sizes_that_are_quick_enough() -> None:
    line, _ = line_of(20, 100, 100, 100)
    assert take(line, 1) == [0, 1], "four take 24, and it is due in 20"


def test_who_arrived_before_the_last_one_taken_leaves_all_queues() -> None:
    line, _ = line_of(20, 100, 100, 100, 100)
    assert take(line, 3) == [1, 2, 3, 4]
    assert len(line) == 0


def test_nothing_is_taken_when_only_smaller_sizes_are_in_time() -> None:
    line, _ = line_of(20, 20, 20, 20)
    assert take(line, 3) == []
    assert line.level() == 2


def test_one_that_is_withdrawn_leaves_the_queues_that_it_still_stands_in() -> None:
    line, entries = line_of(20, 100, 100, 100)
    assert take(line, 3) == []
    line.remove(entries[0])
    line.remove(entries[2])
    assert take(line, 1) == [1, 3]


def test_the_latest_start_is_that_of_the_head_in_a_full_batch() -> None:
    line, _ = line_of(100, 40)
    assert line.latest_ns(2, "e", SPEC, ESTIMATES) == 100 - 16


def test_one_that_must_run_alone_has_a_line_of_its_own() -> None:
    ticket = Ticket(Request(id=7, model="m", arrival_ns=0, deadline_ns=1, form=3))
    assert line_name(ticket) == (3, 1, 0)
    ticket.alone = True
    assert line_name(ticket) == (3, 1, 7)


def test_an_idle_executor_is_free_after_the_way_there() -> None:
    assert Tracker(future_ns=2, lag_ns=10).free_ns(100) == 102


def test_availability_counts_what_was_sent_and_moves_with_what_came_back() -> None:
    tracker = Tracker(future_ns=2, lag_ns=10)
    tracker.sent(1, 20, 100)
    tracker.sent(2, 30, 105)
    assert tracker.free_ns(110) == 150
    tracker.done(1, 117)
    assert tracker.free_ns(118) == 147
    tracker.failed(2, 130)
    assert tracker.free_ns(131) == 133


def test_a_result_out_of_turn_is_taken_off_without_moving_the_end() -> None:
    tracker = Tracker(future_ns=2, lag_ns=10)
    tracker.sent(1, 20, 100)
    tracker.sent(2, 30, 100)
    tracker.done(2, 110)
    assert tracker.free_ns(112) == 150


def test_an_executor_that_falls_silent_is_committed_to_no_more_than_the_lag_and_the_bound() -> None:
    tracker, now_ns, ahead_ns, sent_ns = Tracker(future_ns=1, lag_ns=10), 100, 5, 0
    tracker.sent(0, 20, now_ns)
    for number in range(1, 1000):
        now_ns += 1
        if tracker.free_ns(now_ns) < now_ns + ahead_ns:
            tracker.sent(number, 2, now_ns)
            sent_ns += 2
    assert 10 <= sent_ns <= 10 + ahead_ns + 2
    assert tracker.room_ns(ahead_ns) == FOREVER_NS


def test_the_instant_with_room_is_the_first_at_which_more_may_be_sent() -> None:
    tracker = Tracker(future_ns=1, lag_ns=10)
    tracker.sent(1, 20, 100)
    at_ns = tracker.room_ns(5)
    assert tracker.free_ns(at_ns) < at_ns + 5
    assert tracker.free_ns(at_ns - 1) >= at_ns - 1 + 5
