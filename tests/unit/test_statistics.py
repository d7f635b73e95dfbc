"""Statistics count what every turn brings, and keep nothing of what has ended."""

from __future__ import annotations

from slotwise.engine.statistics import Statistics
from slotwise.facts.actions import Reply, RunBatch
from slotwise.facts.events import Arrived, BatchDone, BatchFailed, ExecutorLost, Loaded, ModelRemoved
from slotwise.facts.statistics import BUCKETS_NS
from slotwise.facts.types import Failure, Outcome, Reason, Request, Timing
from slotwise.facts.units import MS, S


def request(number: int, rows: int = 1) -> Arrived:
    return Arrived(request=Request(id=number, model="m/1", arrival_ns=100, deadline_ns=900, rows=rows))


def answered(number: int, outcome: Outcome = Outcome.IN_TIME, reason: Reason = Reason.NONE) -> Reply:
    timing = Timing(
        arrival_ns=100, sent_ns=130, started_ns=140, ended_ns=190, executor="e", rows=3, attempts=1, predicted_ns=185
    )
    return Reply(request_id=number, outcome=outcome, reason=reason, timing=timing)


def batch(number: int, rows: int) -> RunBatch:
    return RunBatch(
        executor="e",
        batch_id=number,
        model="m/1",
        requests=(),
        rows=rows,
        earliest_ns=0,
        latest_ns=0,
        expected_ns=0,
    )


def test_statistics_count_rows_runs_and_durations() -> None:
    statistics = Statistics()
    statistics.record(130, [request(1), request(2, rows=2)], [batch(1, 3)])
    done = BatchDone(executor="e", batch_id=1, started_ns=140, ended_ns=190)
    statistics.record(200, [done], [answered(1), answered(2)])
    found = statistics.model("m/1")
    assert (found.rows_in_time, found.batches_run, found.last_inference_ns) == (3, 1, 190)
    assert (found.success.count, found.success.ns, found.fail.count) == (2, 200, 0)
    assert (found.queue.ns, found.execution.ns, found.returning.ns) == (60, 100, 20)
    assert [(one.rows, one.count, one.ns) for one in found.batches] == [(3, 1, 50)]


def test_statistics_tell_every_ending_apart() -> None:
    statistics = Statistics()
    refused = Reply(request_id=1, outcome=Outcome.REFUSED, reason=Reason.OVERLOADED)
    statistics.record(100, [request(1), request(2), request(3)], [refused])
    statistics.record(300, [], [answered(2, Outcome.LATE, Reason.OVERRAN), answered(3)])
    found = statistics.model("m/1")
    assert {(one.outcome, one.reason): one.count for one in found.outcomes} == {
        ("in_time", "none"): 1,
        ("late", "overran"): 1,
        ("refused", "overloaded"): 1,
    }
    assert (found.success.count, found.fail.count, found.fail.ns) == (1, 2, 200)


def test_statistics_keep_nothing_of_what_has_ended() -> None:
    statistics = Statistics()
    statistics.record(0, [request(1)], [batch(1, 1), batch(2, 1)])
    failed = BatchFailed(executor="e", batch_id=1, failure=Failure.STOPPED)
    statistics.record(0, [failed, ExecutorLost(executor="e")], [answered(1)])
    late_news = BatchDone(executor="e", batch_id=2, started_ns=0, ended_ns=1)
    statistics.record(0, [late_news, ModelRemoved(model="m/1")], [])
    assert statistics.model("m/1").batches_run == 0
    assert statistics.model("m/1").success.count == 0
    assert statistics.model("never heard of").outcomes == ()


def test_durations_fall_into_the_bucket_that_bounds_them() -> None:
    statistics = Statistics()
    for number, took_ns in enumerate([1 * MS, 1 * MS + 1, 60 * S]):
        ask = Request(id=number, model="m/1", arrival_ns=0, deadline_ns=90 * S)
        statistics.record(0, [Arrived(request=ask)], [])
        statistics.record(took_ns, [], [Reply(request_id=number, outcome=Outcome.IN_TIME)])
    counts = statistics.model("m/1").success.counts
    assert [BUCKETS_NS[place] for place, count in enumerate(counts[:-1]) if count] == [1 * MS, 2 * MS]
    assert counts[-1] == 1


def test_attainment_is_of_the_last_minute_and_leaves_out_who_went_away() -> None:
    statistics = Statistics()
    endings = [Outcome.IN_TIME, Outcome.IN_TIME, Outcome.REFUSED, Outcome.CANCELLED]
    statistics.record(100, [request(number) for number in range(4)], [])
    replies = [Reply(request_id=number, outcome=outcome) for number, outcome in enumerate(endings)]
    statistics.record(100, [], replies)
    assert statistics.models(30 * S)[0].attainment == 2 / 3
    assert statistics.models(30 * S)[0].arriving_per_s == 3 / 60
    assert statistics.models(61 * S)[0].attainment is None


def test_executors_are_told_by_what_they_did() -> None:
    statistics = Statistics()
    statistics.record(0, [Loaded(executor="e", model="m/1", load_id=1, started_ns=0, ended_ns=5)], [batch(1, 2)])
    done = BatchDone(executor="e", batch_id=1, started_ns=140, ended_ns=190, cpu_ns=30)
    stopped = BatchFailed(executor="e", batch_id=2, failure=Failure.STOPPED)
    statistics.record(200, [done, stopped], [])
    (use,) = statistics.executors()
    assert (use.executor, use.loads, use.batches, use.failures, use.busy_ns, use.cpu_ns) == ("e", 1, 1, 1, 50, 30)
