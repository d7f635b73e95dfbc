"""Ramps: numbers that rise or fall step by step, and rows of phases made of them. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from itertools import takewhile

from slotwise.workload.values import Phase, WorkloadError

STEPS_MAX = 100_000
SLACK = 1e-9
"""By this share a step may be beyond the last number and still count as on it."""


class Op(Enum):
    """How a step is made from the one before."""

    MULTIPLY = "mul"
    ADD = "add"


def steps(first: float, last: float, change: float, op: Op) -> tuple[float, ...]:
    """`first`, and then each changed by `change`, up to `last` or down to it.

    Raises WorkloadError where that never ends, or only after very many.
    """
    if first == last:
        return (first,)
    rises = last > first
    if op is Op.MULTIPLY:
        comes = first > 0 and (change > 1 if rises else 0 < change < 1)
    else:
        comes = change > 0 if rises else change < 0
    if not comes:
        raise WorkloadError(f"steps from {first:g} to {last:g} by {op.value} {change:g} never come there")
    slack = abs(last) * SLACK
    row = tuple(takewhile(lambda at: at <= last + slack if rises else at >= last - slack, _endless(first, change, op)))
    if len(row) > STEPS_MAX:
        raise WorkloadError(
            f"from {first:g} to {last:g} by {op.value} {change:g} are over {STEPS_MAX} steps; take fewer"
        )
    return row


def _endless(first: float, change: float, op: Op) -> Iterator[float]:
    for step in range(STEPS_MAX + 1):
        yield first * change**step if op is Op.MULTIPLY else first + change * step


def slo_ramp(factors: Iterable[float], period_s: float) -> tuple[Phase, ...]:
    """SLOs times each factor in turn, for `period_s` each."""
    return tuple(Phase(duration_s=period_s, slo_scale=factor) for factor in factors)


def rate_ramp(factors: Iterable[float], period_s: float) -> tuple[Phase, ...]:
    """Rates times each factor in turn, for `period_s` each."""
    return tuple(Phase(duration_s=period_s, scale=factor) for factor in factors)


def multiplied(first: Sequence[Phase], second: Sequence[Phase]) -> tuple[Phase, ...]:
    """Two rows of phases at once: scales are multiplied, and it ends with the shorter of them."""
    return tuple(_merged(iter(first), iter(second)))


def _merged(first: Iterator[Phase], second: Iterator[Phase]) -> Iterator[Phase]:
    one, other = next(first, None), next(second, None)
    one_left_s = other_left_s = 0.0
    while one is not None and other is not None:
        one_left_s = one_left_s or one.duration_s
        other_left_s = other_left_s or other.duration_s
        duration_s = min(one_left_s, other_left_s)
        yield Phase(duration_s=duration_s, scale=one.scale * other.scale, slo_scale=one.slo_scale * other.slo_scale)
        one_left_s, other_left_s = _left(one_left_s, duration_s), _left(other_left_s, duration_s)
        if not one_left_s:
            one = next(first, None)
        if not other_left_s:
            other = next(second, None)


def _left(left_s: float, spent_s: float) -> float:
    """What is left of a phase; a rest that is only rounding is none."""
    rest_s = left_s - spent_s if not math.isinf(left_s) else left_s
    return rest_s if rest_s > left_s * SLACK else 0.0
