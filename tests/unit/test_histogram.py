"""Quantiles from buckets: near enough, whatever the durations, and in bounded memory."""

from __future__ import annotations

import random

import pytest

from slotwise.facts.histogram import ERROR_MAX, LogHistogram
from slotwise.facts.types import FOREVER_NS
from slotwise.facts.units import MS

SHARES = (0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0)


def counted(durations_ns: list[int]) -> LogHistogram:
    histogram = LogHistogram()
    for ns in durations_ns:
        histogram.add(ns)
    return histogram


def at(durations_ns: list[int], share: float) -> int:
    ascending = sorted(durations_ns)
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


@pytest.mark.parametrize("spread", [0.01, 0.5, 3.0])
def test_a_quantile_is_within_the_stated_error_of_the_true_one(spread: float) -> None:
    rng = random.Random(f"histogram/{spread}")
    durations_ns = [int(20 * MS * rng.lognormvariate(0.0, spread)) for _ in range(5_000)]
    histogram = counted(durations_ns)
    for share in SHARES:
        assert histogram.quantile(share) == pytest.approx(at(durations_ns, share), rel=ERROR_MAX)


def test_every_duration_alone_is_told_within_the_error() -> None:
    edges = [1 << bits for bits in range(62)]
    for ns in [0, *(edge + step for edge in edges for step in (-1, 0, 1)), FOREVER_NS]:
        two = counted([ns, 2 * ns + 1])  # the second, for the longest one is told exactly
        assert abs(two.quantile(0.0) - ns) <= ns * ERROR_MAX


def test_the_error_is_below_half_a_percent() -> None:
    assert ERROR_MAX < 0.005


def test_count_sum_and_longest_are_exact() -> None:
    histogram = counted([3 * MS + 1, 7, 20 * MS + 3])
    assert (histogram.count, histogram.ns, histogram.ns_max) == (3, 23 * MS + 11, 20 * MS + 3)
    assert histogram.quantile(1.0) == 20 * MS + 3


def test_an_empty_one_has_no_quantile_but_zero() -> None:
    assert LogHistogram().quantile(0.5) == LogHistogram().quantile(1.0) == 0


def test_merged_ones_are_what_one_would_have_counted() -> None:
    rng = random.Random("merge")
    durations_ns = [rng.randrange(1, 1 << rng.randrange(1, 40)) for _ in range(2_000)]
    merged = counted(durations_ns[:50])
    merged.merge(counted(durations_ns[50:]))
    merged.merge(LogHistogram())
    whole = counted(durations_ns)
    assert (merged.count, merged.ns, merged.ns_max) == (whole.count, whole.ns, whole.ns_max)
    assert [merged.quantile(share) for share in SHARES] == [whole.quantile(share) for share in SHARES]
