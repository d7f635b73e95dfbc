"""What a busy executor costs others: the rules that its price keeps."""

from __future__ import annotations

import pytest

from slotwise.facts.units import MS, S
from slotwise.policy.reserve import Bid, Reserve, ReserveSettings


def learned(*asked: tuple[int, int, int], executors: int = 1, settings: ReserveSettings | None = None) -> Reserve:
    """A reserve after two seconds of requests, each (gap, slack, run), that no executor has a place for."""
    reserve = Reserve(settings or ReserveSettings())
    names = [f"e{i}" for i in range(executors)]
    for name in names:
        reserve.add(name)
    for now_ns in range(0, 8 * S, MS):
        for gap_ns, slack_ns, run_ns in asked:
            if now_ns % gap_ns == 0:
                reserve.note(shut(names, slack_ns, run_ns), 1.0)
        reserve.settle(now_ns)
    return reserve


def shut(names: list[str], slack_ns: int, run_ns: int) -> list[Bid]:
    return [Bid(executor=name, slack_ns=slack_ns, run_ns=run_ns, surplus=0.0) for name in names]


def test_time_costs_nothing_where_nobody_asked() -> None:
    reserve = learned()
    assert reserve.at("e0").cost(1 * S) == 0.0


def test_a_long_run_costs_those_with_less_slack_and_a_short_one_hardly() -> None:
    pressure = learned((2 * MS, 1 * MS, 1 * MS)).at("e0")
    # 500 a second of 1 ms: while a run of 20 ms lasts about ten come, and most of them could have been answered.
    assert 4.0 < pressure.cost(20 * MS) < 10.0
    assert pressure.cost(1 * MS) < 0.5


def test_a_run_costs_more_the_longer_it_is_and_the_longer_the_backlog_before_it() -> None:
    pressure = learned((2 * MS, 4 * MS, 1 * MS), (4 * MS, 8 * MS, 2 * MS)).at("e0")
    by_length = [pressure.cost(run_ms * MS) for run_ms in (1, 2, 5, 10, 20)]
    by_backlog = [pressure.cost(2 * MS, after_ms * MS) for after_ms in (0, 1, 2, 4, 8)]
    assert by_length == sorted(by_length)
    # In the flat part the last digits are those of sums that have nearly settled.
    assert [round(cost, 3) for cost in by_backlog] == sorted(round(cost, 3) for cost in by_backlog)


def test_time_never_costs_more_than_the_best_use_of_it() -> None:
    pressure = learned((1 * MS, 4 * MS, 2 * MS)).at("e0")
    for run_ms in (1, 5, 20):
        assert pressure.cost(run_ms * MS, 20 * MS) <= 1.1 * run_ms / 2


def test_nothing_depends_on_an_executor_where_another_has_an_equal_place() -> None:
    reserve = Reserve(ReserveSettings())
    reserve.add("e0")
    reserve.add("e1")
    for now_ns in range(0, S, MS):
        reserve.note([Bid(executor=name, slack_ns=MS, run_ns=MS, surplus=1.0) for name in ("e0", "e1")], 1.0)
        reserve.settle(now_ns)
    assert reserve.at("e0").cost(20 * MS) == reserve.at("e1").cost(20 * MS) == 0.0


def test_all_depends_on_the_only_executor_with_a_place() -> None:
    reserve = Reserve(ReserveSettings())
    reserve.add("e0")
    reserve.add("e1")
    for now_ns in range(0, S, MS):
        reserve.note([Bid(executor=f"e{i}", slack_ns=MS, run_ns=MS, surplus=1.0 - i) for i in range(2)], 1.0)
        reserve.settle(now_ns)
    assert reserve.at("e0").cost(20 * MS) > 5.0
    assert reserve.at("e1").cost(20 * MS) == 0.0


def test_of_what_nobody_has_a_place_for_one_executor_bears_most() -> None:
    reserve = learned((2 * MS, 1 * MS, 1 * MS), executors=3)
    costs = sorted(reserve.at(f"e{i}").cost(10 * MS) for i in range(3))
    assert costs[2] > 1.5 * costs[1] > 0.0


def test_what_was_asked_long_ago_is_forgotten() -> None:
    reserve = learned((2 * MS, 1 * MS, 1 * MS))
    before = reserve.at("e0").cost(20 * MS)
    for now_ns in range(2 * S, 40 * S, 50 * MS):
        reserve.settle(now_ns)
    assert reserve.at("e0").cost(20 * MS) <= 0.01 * before


def test_slacks_beyond_the_limit_never_count() -> None:
    settings = ReserveSettings(slack_max_ns=0)
    assert learned((2 * MS, 1 * MS, 1 * MS), settings=settings).at("e0").cost(20 * MS) == 0.0


@pytest.mark.parametrize("factor", [1, 1_000])
def test_costs_are_the_same_in_any_unit_of_time(factor: int) -> None:
    slow = learned((2 * MS, 1 * MS, 1 * MS)).at("e0").cost(20 * MS)
    settings = ReserveSettings(memory_ns=2 * S * factor, period_ns=S // 20 * factor, slack_max_ns=S * factor)
    reserve = Reserve(settings)
    reserve.add("e0")
    for now_ns in range(0, 8 * S, MS):
        if now_ns % (2 * MS) == 0:
            reserve.note(shut(["e0"], MS * factor, MS * factor), 1.0)
        reserve.settle(now_ns * factor)
    assert reserve.at("e0").cost(20 * MS * factor) == pytest.approx(slow, rel=0.15)
