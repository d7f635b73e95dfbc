"""The search for the least count of devices that is enough."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slotwise.simulation.search import counts_to_try, least_enough


def searched(least: int, count_max: int) -> dict[int, bool]:
    tried: dict[int, bool] = {}
    while counts := counts_to_try(tried, count_max):
        assert not set(counts) & tried.keys(), "no count is tried twice"
        tried |= {count: count >= least for count in counts}
    return tried


@given(least=st.integers(1, 10_000), count_max=st.integers(1, 10_000))
def test_the_least_count_that_is_enough_is_found_in_few_steps_and_its_neighbours_are_tried(
    least: int, count_max: int
) -> None:
    tried = searched(least, count_max)
    assert len(tried) <= 3 * count_max.bit_length() + 4
    assert all(1 <= count <= count_max for count in tried)
    if least > count_max:
        assert least_enough(tried) is None
        assert count_max in tried
    else:
        assert least_enough(tried) == least
        assert {max(1, least - 1), min(count_max, least + 1)} <= tried.keys()


def test_counts_are_doubled_then_parted() -> None:
    assert sorted(searched(6, 64)) == [1, 2, 4, 5, 6, 7, 8]
