"""Latencies are learned per executor, model and batch; they follow change, and no single run or fear decides."""

from __future__ import annotations

import random

from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec
from slotwise.facts.units import MS
from slotwise.policy.estimates import Estimates, EstimateSettings, Samples

SPEC = ModelSpec(
    id="m/1",
    name="m",
    version="1",
    profile=Profile(rows=(1, 8), run_ns=(10 * MS, 40 * MS), load_ns=5 * MS, memory_bytes=1),
    slo_ns=100 * MS,
    batch_max=8,
)


def learned(*took_ms: float, rows: int = 1, settings: EstimateSettings | None = None) -> Estimates:
    estimates = Estimates(settings or EstimateSettings())
    for run_ms in took_ms:
        estimates.note_run("a", SPEC, rows, 1.0, int(run_ms * MS))
    return estimates


def test_before_any_run_the_profile_is_believed() -> None:
    assert learned().run_ns("a", SPEC, 1) == 10 * MS
    assert learned().run_ns("a", SPEC, 4, work=2.0) == 2 * SPEC.profile.expected_ns(4)


def test_after_a_step_of_two_the_estimate_follows_within_ten_runs() -> None:
    estimates = learned(*[10] * 20, *[20] * 10)
    assert abs(estimates.run_ns("a", SPEC, 1) - 20 * MS) < MS


def test_a_slower_executor_is_known_by_its_first_run_for_sizes_and_models_not_yet_seen() -> None:
    estimates = learned(20)
    assert estimates.run_ns("a", SPEC, 8) == 80 * MS
    assert estimates.run_ns("b", SPEC, 8) == 40 * MS


def test_one_outlier_changes_no_estimate() -> None:
    assert learned(10, 10, 10, 500).run_ns("a", SPEC, 1) == 10 * MS
    assert learned(500).run_ns("a", SPEC, 1) == 10 * MS


def test_drift_forgets_the_time_before_it() -> None:
    estimates = learned(*[10] * 10, *[30] * 4)
    assert estimates.run_ns("a", SPEC, 1) == 30 * MS
    assert estimates.drifts() == 1


def test_the_way_to_another_machine_is_learned_by_model_and_there_is_none_on_this_one() -> None:
    estimates = learned()
    estimates.note_far("far", MS)
    assert [estimates.way_ns(executor, "m/1") for executor in ("a", "far")] == [0, MS]
    for _ in range(20):
        estimates.note_way("far", "m/1", 4 * MS)
    assert [estimates.way_ns("far", model) for model in ("m/1", "other/1")] == [4 * MS, MS]
    estimates.forget_executor("far")
    assert estimates.way_ns("far", "m/1") == 0


def test_a_way_that_keeps_everyone_away_is_doubted() -> None:
    estimates = learned()
    estimates.note_far("far", MS)
    estimates.note_way("far", "m/1", 500 * MS)
    for _ in range(20):
        estimates.doubt("far", SPEC, 1)
    assert estimates.way_ns("far", "m/1") == MS


def test_a_margin_is_learned_from_late_batches_and_bounded_by_what_runs_take() -> None:
    estimates = learned(*[10] * 20)
    for _ in range(50):
        estimates.note_error("a", MS)
    assert estimates.margin_ns("a") == MS
    for _ in range(50):
        estimates.note_error("a", 300 * MS)
    assert estimates.margin_ns("a") == 5 * MS


def test_refusing_on_an_idle_executor_wears_off_what_led_to_it() -> None:
    estimates = learned(*[400] * 10)
    for _ in range(10):
        estimates.note_error("a", 4 * MS)
    for _ in range(50):
        estimates.doubt("a", SPEC, 1)
    assert estimates.run_ns("a", SPEC, 1) == 10 * MS
    assert estimates.margin_ns("a") == 0


def test_a_quantile_is_that_of_the_most_recent_samples() -> None:
    rng = random.Random(4)
    samples, recent = Samples(10), []
    for _ in range(200):
        sample = rng.choice((rng.random(), 0.5))
        samples.add(sample)
        recent = [*recent, sample][-10:]
        assert samples.quantile(0.0) == min(recent)
        assert samples.quantile(1.0) == max(recent)
        assert samples.quantile(0.5) == (sorted(recent)[(len(recent) - 1) // 2] + sorted(recent)[len(recent) // 2]) / 2


TINY = ModelSpec(
    id="tiny/1",
    name="tiny",
    version="1",
    profile=Profile(rows=(1,), run_ns=(8_000,), load_ns=5 * MS, memory_bytes=1),
    slo_ns=100 * MS,
)


def test_one_slow_first_run_of_a_tiny_model_says_nothing_of_others() -> None:
    estimates = Estimates(EstimateSettings())
    estimates.note_run("a", TINY, 1, 1.0, 76 * MS)
    assert estimates.run_ns("a", SPEC, 1) < 11 * MS


def test_no_first_run_makes_an_executor_look_slower_than_could_be() -> None:
    assert learned(2_000).run_ns("a", SPEC, 8) <= 160 * MS


def test_refusals_by_the_runs_of_other_models_alone_wear_off() -> None:
    estimates = learned(40, 40)
    assert estimates.run_ns("a", TINY, 1) > 3 * 8_000
    for _ in range(200):
        estimates.doubt("a", TINY, 1)
    assert estimates.run_ns("a", TINY, 1) < 1.1 * 8_000
