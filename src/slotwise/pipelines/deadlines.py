"""What part of a pipeline's time a step may take, as deadlines by rule. Pure.

Every rule is asked anew as a step begins, so time that the steps before have saved, or lost, passes on. The rules are
those of Kao and Garcia-Molina (ICDCS 1993), who call them effective deadline and equal flexibility.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from slotwise.facts.types import FOREVER_NS

Rule = Callable[[int, int, int, int], int]
"""Of now, the pipeline's deadline, the step's expected time, and that of the step and all after it: its deadline."""


class Deadlines(Enum):
    """The rules by name."""

    EFFECTIVE = "effective"
    EQUAL_FLEXIBILITY = "equal_flexibility"


def effective_ns(now_ns: int, deadline_ns: int, step_ns: int, rest_ns: int) -> int:  # noqa: ARG001  # a `Rule`
    """The latest end that leaves those after it their expected time: all spare time is the first one's to use."""
    return deadline_ns if deadline_ns >= FOREVER_NS else deadline_ns - (rest_ns - step_ns)


def equal_flexibility_ns(now_ns: int, deadline_ns: int, step_ns: int, rest_ns: int) -> int:
    """Spare time is shared in proportion to expected times. Where there is none, what `effective_ns` says."""
    latest_ns = effective_ns(now_ns, deadline_ns, step_ns, rest_ns)
    if deadline_ns >= FOREVER_NS or rest_ns <= 0 or deadline_ns - now_ns <= rest_ns:
        return latest_ns
    return now_ns + (deadline_ns - now_ns) * step_ns // rest_ns


RULES: dict[Deadlines, Rule] = {
    Deadlines.EFFECTIVE: effective_ns,
    Deadlines.EQUAL_FLEXIBILITY: equal_flexibility_ns,
}
