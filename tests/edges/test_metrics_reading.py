"""A scrape is read back as it was told, and two of them are subtracted."""

from __future__ import annotations

import pytest

from slotwise.edges.metrics.prometheus import ExecutorNow, Snapshot, scrape
from slotwise.edges.metrics.reading import MetricsError, Reading, Spread, read_scrape
from slotwise.engine.statistics import Statistics
from slotwise.facts.actions import Reply
from slotwise.facts.events import Arrived
from slotwise.facts.statistics import BUCKETS_NS, Histogram, LogUse
from slotwise.facts.types import Outcome, Reason, Request
from slotwise.facts.units import MS, S

NOTHING = Histogram(counts=(0,) * (len(BUCKETS_NS) + 1), ns=0)


def scraped(statistics: Statistics, uptime_ns: int) -> Reading:
    now = ExecutorNow(executor="core0", is_up=True, restarts=2, in_flight=1, models=("m/1",), memory_bytes=5_000_000)
    snapshot = Snapshot(
        policy="slotwise",
        version="9",
        models=statistics.models(uptime_ns),
        executors=statistics.executors(),
        executors_now=[now],
        turns=1,
        lag=NOTHING,
        uptime_ns=uptime_ns,
        refusals={},
        logs=[LogUse(log="requests", rows=1, rows_behind=2, rows_unwritable=3)],
        front_memory_bytes=7,
        requests_in_flight=4,
        connections=3,
        replies={},
    )
    return read_scrape(scrape(snapshot, "")[0].decode())


def end(statistics: Statistics, number: int, took_ns: int, outcome: Outcome, reason: Reason = Reason.NONE) -> None:
    request = Request(id=number, model="m/1", arrival_ns=0, deadline_ns=1 * S)
    statistics.record(took_ns, [Arrived(request=request)], [Reply(request_id=number, outcome=outcome, reason=reason)])


def test_what_was_told_is_read_back() -> None:
    statistics = Statistics()
    end(statistics, 1, 3 * MS, Outcome.IN_TIME)
    end(statistics, 2, 1 * MS, Outcome.REFUSED, Reason.INFEASIBLE)
    reading = scraped(statistics, 10 * S)
    model, executor = reading.models["m/1"], reading.executors["core0"]
    assert (reading.seconds, reading.policy, reading.version) == (10.0, "slotwise", "9")
    assert (reading.in_flight, reading.connections, reading.memory_bytes, reading.rows_lost) == (4, 3, 7, 5)
    assert model.ended == {("in_time", "none"): 1, ("refused", "infeasible"): 1}
    assert model.attainment == 0.5
    assert 0.002 <= (model.latency.quantile(0.5) or 0) <= 0.005
    assert (executor.is_up, executor.restarts, executor.in_flight, executor.models) == (True, 2, 1, ["m/1"])


def test_of_two_scrapes_only_what_came_between_is_left() -> None:
    statistics = Statistics()
    end(statistics, 1, 3 * MS, Outcome.IN_TIME)
    before = scraped(statistics, 10 * S)
    end(statistics, 2, 400 * MS, Outcome.IN_TIME)
    between = scraped(statistics, 12 * S).since(before)
    assert between.seconds == 2.0
    assert between.models["m/1"].ended == {("in_time", "none"): 1}
    assert 0.2 <= (between.models["m/1"].latency.quantile(0.99) or 0) <= 0.5
    assert between.executors["core0"].models == ["m/1"]


def test_a_model_that_is_new_is_told_in_full() -> None:
    statistics = Statistics()
    before = scraped(statistics, 1 * S)
    end(statistics, 1, 3 * MS, Outcome.IN_TIME)
    assert scraped(statistics, 2 * S).since(before).models["m/1"].ended == {("in_time", "none"): 1}


@pytest.mark.parametrize(
    ("upto", "share", "expected"),
    [
        ({}, 0.5, None),
        ({1.0: 0, float("inf"): 0}, 0.5, None),
        ({1.0: 10, float("inf"): 10}, 0.5, 0.5),
        ({1.0: 0, 2.0: 10, float("inf"): 10}, 0.1, 1.1),
        ({1.0: 5, 2.0: 10, float("inf"): 10}, 0.75, 1.5),
        ({1.0: 5, 2.0: 5, float("inf"): 10}, 0.99, 2.0),
    ],
)
def test_a_quantile_lies_within_its_bucket(upto: dict[float, float], share: float, expected: float | None) -> None:
    found = Spread(upto).quantile(share)
    assert found == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("text", ["", "python_info 1\n", "# TYPE\n{{{"])
def test_the_metrics_of_something_else_are_told_apart(text: str) -> None:
    with pytest.raises(MetricsError, match="metrics"):
        read_scrape(text)
