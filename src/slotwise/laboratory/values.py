"""What an experiment is made of: cases to run, rows that come of them, claims that rows are held against.

Values only; finding, running and judging experiments have modules of their own. An experiment is a file that exports
an `Experiment`: it says what to run and what to claim, and the laboratory does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from slotwise.facts.value import value


class LaboratoryError(Exception):
    """An experiment that is not there or cannot be run; the text says what to do."""


@value
class Case:
    """One run of an experiment. Experiments add fields of their own in a subclass.

    The `id` is unique in its experiment. Rows are kept by it, and run anew when any field has changed.
    """

    id: str
    policy: str
    is_measured: bool = False
    """Whether it measures this machine: it is run alone then, after all that do not, and anew in every run."""


class Relation(Enum):
    """How a value must stand to its oracle."""

    NEAR = "near"
    AT_LEAST = "at least"
    AT_MOST = "at most"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A number that was found, and what it was held against. Made by `near`, `at_least` and `at_most`."""

    id: str
    policy: str
    value: float
    relation: Relation
    oracle: float
    tolerance: float
    holds: bool
    source: str = ""
    """Where the oracle comes from."""

    @property
    def shortfall(self) -> float:
        """How far the value is beyond what is tolerated; 0 where the claim holds."""
        below = self.oracle - self.value if self.relation is not Relation.AT_MOST else 0.0
        above = self.value - self.oracle if self.relation is not Relation.AT_LEAST else 0.0
        return max(0.0, max(below, above) - self.tolerance)


def near(claim: str, value: float, oracle: float, *, policy: str, tolerance: float, source: str = "") -> Claim:
    """The value lies within the tolerance of its oracle."""
    return _judged(claim, policy, value, Relation.NEAR, oracle, tolerance, source)


def at_least(
    claim: str, value: float, oracle: float, *, policy: str, tolerance: float = 0.0, source: str = ""
) -> Claim:
    """The value is not below its oracle by more than the tolerance."""
    return _judged(claim, policy, value, Relation.AT_LEAST, oracle, tolerance, source)


def at_most(claim: str, value: float, oracle: float, *, policy: str, tolerance: float = 0.0, source: str = "") -> Claim:
    """The value is not above its oracle by more than the tolerance."""
    return _judged(claim, policy, value, Relation.AT_MOST, oracle, tolerance, source)


def _judged(
    claim: str, policy: str, value: float, relation: Relation, oracle: float, tolerance: float, source: str
) -> Claim:
    made = Claim(
        id=claim,
        policy=policy,
        value=value,
        relation=relation,
        oracle=oracle,
        tolerance=tolerance,
        holds=True,
        source=source,
    )
    return msgspec.structs.replace(made, holds=made.shortfall == 0.0)


C = TypeVar("C", bound=Case)
R = TypeVar("R", bound=msgspec.Struct)


@value
class Experiment(Generic[C, R]):
    """A folder's experiment. `name` is the folder's.

    `cases` are all runs, or with `is_quick` those that finish together in a minute. `run` makes the rows of one case;
    it is called in a process of its own, knows nothing of other cases, and comes to the same rows for the same case.
    `row` is the type of rows: a flat struct of numbers and words. `claims` judges the rows of all cases, of which a
    quick run has fewer; a claim whose rows are not there is not made. `draw` makes a figure of them, an SVG file.
    """

    name: str
    title: str
    row: type[R]
    cases: Callable[[bool], tuple[C, ...]]
    run: Callable[[C], list[R]]
    claims: Callable[[Sequence[R]], tuple[Claim, ...]]
    draw: Callable[[Sequence[R], Path], None]
