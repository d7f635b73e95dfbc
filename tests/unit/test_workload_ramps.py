"""Ramps come to their ends, and two rows of phases at once are the product of both."""

from __future__ import annotations

import math

import pytest

from slotwise.workload.ramps import Op, multiplied, rate_ramp, steps
from slotwise.workload.values import Phase, WorkloadError


@pytest.mark.parametrize(
    ("first", "last", "change", "op", "row"),
    [
        (1, 8, 2, Op.MULTIPLY, (1, 2, 4, 8)),
        (8, 1, 0.5, Op.MULTIPLY, (8, 4, 2, 1)),
        (0.1, 0.3, 0.1, Op.ADD, (0.1, 0.2, 0.3)),
        (0, 2, 1, Op.ADD, (0, 1, 2)),
        (3, 0, -1, Op.ADD, (3, 2, 1, 0)),
        (1, 3, 1.5, Op.MULTIPLY, (1, 1.5, 2.25)),
        (5, 5, 1, Op.ADD, (5,)),
    ],
)
def test_steps_go_up_to_the_last_and_not_beyond(
    first: float, last: float, change: float, op: Op, row: tuple[float, ...]
) -> None:
    assert steps(first, last, change, op) == pytest.approx(row)


@pytest.mark.parametrize(
    ("first", "last", "change", "op"),
    [
        (1, 2, 1, Op.MULTIPLY),
        (1, 2, 0.5, Op.MULTIPLY),
        (2, 1, 2, Op.MULTIPLY),
        (0, 1, 2, Op.MULTIPLY),
        (1, 2, 0, Op.ADD),
        (1, 2, -1, Op.ADD),
        (1, 2, math.nan, Op.ADD),
    ],
)
def test_steps_that_never_come_there_are_refused(first: float, last: float, change: float, op: Op) -> None:
    with pytest.raises(WorkloadError, match="never come there"):
        steps(first, last, change, op)


def test_two_rows_of_phases_are_multiplied_where_either_changes_and_end_with_the_shorter() -> None:
    trace = tuple(Phase(duration_s=0.1, scale=float(count)) for count in range(1, 5))
    ramp = (*rate_ramp((1.0, 10.0), 0.15), Phase(duration_s=math.inf, scale=0.0, slo_scale=2.0))
    row = multiplied(trace, ramp)
    assert [phase.scale for phase in row] == [1, 2, 20, 30, 0]
    assert [phase.duration_s for phase in row] == pytest.approx([0.1, 0.05, 0.05, 0.1, 0.1])
    assert [phase.slo_scale for phase in row] == [1, 1, 1, 1, 2]
    assert sum(phase.duration_s for phase in multiplied(trace, trace[:2])) == pytest.approx(0.2)
