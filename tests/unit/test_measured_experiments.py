"""Experiments that measure, and those on whole days and fleets: their files load, and claims come of a few rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from slotwise.edges.logs.rows import INFER, LOAD, OK, ActionRow
from slotwise.laboratory import live
from slotwise.laboratory.azure import day
from slotwise.laboratory.finding import find
from slotwise.laboratory.values import Claim, Experiment
from tests.repo.tree import ROOT

MEASURED = ("clockwork-fig2", "clockwork-fig10", "live-against-virtual")
NAMES = (*MEASURED, "clockwork-fig9", "clockwork-fig11")


def experiment(name: str) -> Experiment[Any, Any]:
    return find(ROOT / "experiments", name).experiment


def rows(name: str, *changes: dict[str, Any]) -> list[Any]:
    """Rows with these fields; every other number is 1, and every other word is empty."""
    kind = experiment(name).row
    plain = {field.name: {str: "", bool: True}.get(field.type, 1) for field in msgspec.structs.fields(kind)}
    return [msgspec.convert({**plain, **change}, kind) for change in changes]


def judged(name: str, *changes: dict[str, Any]) -> dict[str, Claim]:
    return {f"{claim.id} {claim.policy}": claim for claim in experiment(name).claims(rows(name, *changes))}


@pytest.mark.parametrize("name", NAMES)
def test_quick_cases_are_no_more_than_full_ones_and_each_has_an_id_of_its_own(name: str) -> None:
    quick, full = (experiment(name).cases(is_quick) for is_quick in (True, False))
    assert 0 < len(quick) <= len(full)
    for cases in (quick, full):
        assert len({case.id for case in cases}) == len(cases)


@pytest.mark.parametrize("name", MEASURED)
def test_what_runs_real_processes_says_that_it_measures(name: str) -> None:
    made = experiment(name)
    assert all(any(case.is_measured for case in made.cases(is_quick)) for is_quick in (True, False))


def test_figure_2_compares_many_at_once_with_one_alone() -> None:
    alone = {"how": "alone", "us_p50": 100.0, "us_p99": 120.0, "us_p999": 150.0, "per_s": 9_000.0}
    many = {"how": "processes", "competitors": 8, "us_p999": 30_000.0, "per_s": 9_900.0}
    claims = judged("clockwork-fig2", alone, many)
    assert claims["fig2.alone.p99_over_median none"].value == pytest.approx(1.2)
    assert claims["fig2.processes8.p999_growth none"].value == pytest.approx(200.0)
    assert claims["fig2.processes8.throughput_gain none"].value == pytest.approx(1.1)
    assert all(claim.holds for claim in claims.values())


def test_figure_10_finds_fault_with_books_that_do_not_add_up() -> None:
    errors = [("duration", "over"), ("duration", "under"), ("completion", "over"), ("completion", "under")]
    common = {"form": "simulated", "policy": "slotwise", "what": "run", "ms_p99": 0.2}
    found = [{**common, "error": error, "side": side} for error, side in errors]
    claims = judged("clockwork-fig10", *found, {**common, "error": "unexplained", "side": "both", "ms_p99": 0.5})
    assert claims["fig10.simulated.completion_over_duration slotwise"].value == pytest.approx(1.0)
    assert not claims["fig10.simulated.unexplained_ms_p99 slotwise"].holds


def test_figure_10_judges_loads_beside_runs_where_memory_is_short() -> None:
    errors = [("duration", "over"), ("duration", "under"), ("completion", "over"), ("completion", "under")]
    common = {"form": "real-short", "policy": "slotwise"}
    runs = [{**common, "what": "run", "error": error, "side": side, "ms_p99": 20.0} for error, side in errors]
    loads = [{**common, "what": "load", "error": error, "side": side, "ms_p99": 60.0} for error, side in errors]
    claims = judged("clockwork-fig10", *runs, *loads)
    assert claims["fig10.real-short.duration_ms_p99 slotwise"].holds
    assert not claims["fig10.real-short.load_duration_ms_p99 slotwise"].holds
    assert claims["fig10.real-short.load_completion_over_duration slotwise"].value == pytest.approx(1.0)


def test_figure_10_finds_that_simulated_loads_end_when_the_books_say() -> None:
    made = experiment("clockwork-fig10")
    is_quick = True
    (case,) = (case for case in made.cases(is_quick) if case.id == "simulated-short-clockwork")
    found = made.run(replace(case, seconds=4.0))
    loads = {(row.error, row.side): row for row in found if row.what == "load"}
    assert loads["duration", "under"].actions > 50
    assert loads["duration", "under"].ms_max > 0.1, "loads have a spread"
    assert loads["unexplained", "both"].ms_max < 0.1


def test_figure_9_holds_ours_against_clockwork_as_published() -> None:
    settled = {"memory": "paper", "offered_per_s": 800.0, "goodput_per_s": 800.0, "ms_max": 90.0}
    short = {**settled, "policy": "slotwise", "goodput_per_s": 780.0}
    claims = judged("clockwork-fig9", {**settled, "policy": "clockwork-published"}, short)
    assert claims["fig9.paper.goodput_share clockwork-published"].holds
    assert not claims["fig9.paper.goodput_share slotwise"].holds
    assert not claims["fig9.paper.not_below slotwise"].holds


def test_figure_11_counts_the_highest_rate_that_was_kept_up_with() -> None:
    common = {"form": "wall", "policy": "slotwise", "devices": 10}
    claims = judged(
        "clockwork-fig11",
        {**common, "offered_per_s": 2_000.0, "goodput_per_s": 1_995.0},
        {**common, "offered_per_s": 2_500.0, "goodput_per_s": 2_100.0},
        {**common, "form": "virtual", "offered_per_s": 10_000.0, "goodput_per_s": 9_900.0},
    )
    assert claims["fig11.wall10.kept_up_with_per_s slotwise"].value == 1_995.0
    assert claims["fig11.devices10.goodput_share slotwise"].holds


def test_live_and_virtual_goodput_are_held_against_each_other() -> None:
    common = {"executors": "emulated", "policy": "slotwise", "workload": "1x", "offered": 100}
    live_row = {**common, "time": "live", "in_time": 90, "goodput_per_s": 90.0}
    claims = judged(
        "live-against-virtual", live_row, {**common, "time": "virtual", "in_time": 99, "goodput_per_s": 99.0}
    )
    assert not claims["live.emulated.1x.goodput slotwise"].holds
    assert claims["live.emulated.1x.failed_share_apart slotwise"].value == pytest.approx(0.09)


def test_a_day_is_scaled_to_the_rate_that_is_asked_for() -> None:
    today = day(models=60, rate_per_s=100.0, seconds=120.0)
    expected = sum(
        stream.rate_per_s * phase.scale * phase.duration_s
        for stream in today.workload.streams
        for phase in stream.phases
    )
    assert expected == pytest.approx(100.0 * 120.0)
    assert {stream.model for stream in today.workload.streams} <= {spec.id for spec in today.models}
    assert "stand-in" in today.source


def test_the_log_of_actions_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    ran = ActionRow(
        5, 1, INFER, OK, "core0", "a/1", 2, 10, 11, 12, 13, 14, 9, 0, 1, 2, None, None, None, 2, 2, "7 8", ""
    )
    (tmp_path / live.LOGS).mkdir()
    lines = [",".join(ActionRow._fields), ",".join("" if field is None else str(field) for field in ran)]
    (tmp_path / live.LOGS / "actions.csv").write_text("\n".join(lines) + "\n")
    actions = live.read_actions(tmp_path)
    assert actions == [ran]
    assert live.batches(actions, 0, 6) == [ran]
    assert live.batches(actions, 6, 9) == []
    assert live.loads(actions, 0, 6) == []
    assert live.loads([ran._replace(action_type=LOAD)], 0, 6) == [ran._replace(action_type=LOAD)]
