"""Clockwork's estimator: the 99th percentile of the last ten, per executor or, as published, over all of them."""

from __future__ import annotations

from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec
from slotwise.policy.estimates import Estimates
from slotwise.policy.schedulers.clockwork import MENDED_ESTIMATES, PUBLISHED_ESTIMATES

PROFILE = Profile(rows=(1, 2), run_ns=(1000, 1600), load_ns=5000, memory_bytes=1)
SPEC = ModelSpec(id="m", name="m", version="1", profile=PROFILE, slo_ns=10_000, batch_max=2)


def test_before_any_sample_the_profile_holds() -> None:
    estimates = Estimates(MENDED_ESTIMATES)
    estimates.note_run("a", SPEC, 1, 1.0, 2000)
    assert estimates.run_ns("a", SPEC, 2) == 1600, "what one size showed says nothing of another"


def test_the_estimate_is_nearly_the_largest_of_the_last_ten() -> None:
    estimates = Estimates(MENDED_ESTIMATES)
    for took_ns in range(1000, 2000, 100):
        estimates.note_run("a", SPEC, 1, 1.0, took_ns)
    assert estimates.run_ns("a", SPEC, 1) == 1891, "at 8.91 of positions 0 to 9"


def test_a_step_is_followed_within_ten_samples_up_and_down() -> None:
    estimates = Estimates(MENDED_ESTIMATES)
    for took_ns in [1000] * 20 + [2000] * 10:
        estimates.note_run("a", SPEC, 1, 1.0, took_ns)
    assert estimates.run_ns("a", SPEC, 1) == 2000
    for _ in range(10):
        estimates.note_run("a", SPEC, 1, 1.0, 1000)
    assert estimates.run_ns("a", SPEC, 1) == 1000


def test_executors_are_told_apart_unless_as_published_they_are_pooled() -> None:
    mended, published = Estimates(MENDED_ESTIMATES), Estimates(PUBLISHED_ESTIMATES)
    for estimates in (mended, published):
        estimates.note_run("slow", SPEC, 1, 1.0, 3000)
    assert mended.run_ns("quick", SPEC, 1) == 1000
    assert published.run_ns("quick", SPEC, 1) == 3000


def test_loads_are_estimated_like_runs() -> None:
    estimates = Estimates(MENDED_ESTIMATES)
    assert estimates.load_ns(SPEC) == 5000
    for _ in range(10):
        estimates.note_load(SPEC, 7000)
    assert estimates.load_ns(SPEC) == 7000
