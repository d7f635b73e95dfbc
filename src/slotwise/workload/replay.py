"""Replays a trace: functions become models, and counts become rates that change exactly at each interval.

Each function is an independent Poisson process whose rate in an interval is its count times a scale. Those of the
functions that share a model are put together: independent Poisson processes add up to one whose rate is the sum, so one
stream for each model is the same in distribution as one for each function, and far fewer.

The published mapping sorts functions by their calls and gives each model a block of neighbours, so that the busiest are
all with the first models. The corrected one shuffles them first, seeded.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from slotwise.workload.azure import MINUTES, Trace
from slotwise.workload.ramps import multiplied
from slotwise.workload.values import Phase, Stream, WorkloadError

MINUTE_S = 60.0
INTERVALS_MAX = 100_000
"""Of a replay: ten weeks of minutes."""
ModelCounts = NDArray[np.int64]


class FunctionMapping(Enum):
    """How functions become models."""

    SHUFFLED = "shuffled"
    SORTED = "sorted"
    """As published: busy functions with busy ones, on the first models."""


def model_counts(
    trace: Trace, models: int, *, mapping: FunctionMapping, seed: int, randomise: bool = False
) -> ModelCounts:
    """The calls of each model in each minute, all of its functions together.

    With `randomise` each function begins at a minute of its own, and goes on around the end of the day.
    """
    rng = np.random.default_rng([seed, models])
    totals = trace.counts.sum(axis=1, dtype=np.int64)
    order = np.argsort(-totals, kind="stable") if mapping is FunctionMapping.SORTED else rng.permutation(len(totals))
    starts = rng.integers(MINUTES, size=len(totals)) if randomise else None
    sums = np.zeros((models, MINUTES), dtype=np.int64)
    for place, function in enumerate(order.tolist()):
        counts = trace.counts[function]
        sums[place * models // len(totals)] += counts if starts is None else np.roll(counts, -int(starts[function]))
    return sums


def replayed(
    counts: ModelCounts,
    models: Sequence[str],
    *,
    slo_ns: int,
    scale: float,
    seconds: float,
    interval_s: float = MINUTE_S,
    offsets: random.Random | None = None,
    ramp: tuple[Phase, ...] = (),
) -> tuple[Stream, ...]:
    """A Poisson stream for each model that is called at all, at `scale` times the trace's rate.

    Each count holds for `interval_s`, as a rate a minute; after the last comes the first again. With `offsets` each
    model begins at a random instant within its first interval. A `ramp` multiplies rates as it goes.

    Raises WorkloadError where there are too many intervals.
    """
    if seconds / interval_s > INTERVALS_MAX:
        raise WorkloadError(
            f"{seconds:g} s have over {INTERVALS_MAX} intervals of {interval_s:g} s; replay a shorter time"
        )
    phases = _Phases(interval_s, seconds)
    streams = []
    for model, row in zip(models, counts.tolist(), strict=True):
        if not any(row):
            continue
        offset_s = offsets.random() * interval_s if offsets is not None else 0.0
        own = phases.of(row, offset_s)
        own = multiplied(own, ramp) if ramp else own
        streams.append(Stream(model=model, rate_per_s=scale, slo_ns=slo_ns, phases=own))
    return tuple(streams)


class _Phases:
    """Makes rows of phases; those that are equal are made once, as there are millions otherwise."""

    def __init__(self, interval_s: float, seconds: float) -> None:
        self._interval_s = interval_s
        self._seconds = seconds
        self._known: dict[tuple[int, float], Phase] = {}

    def of(self, row: Sequence[int], offset_s: float) -> tuple[Phase, ...]:
        """The phases of one model; neighbours that are equal are one."""
        return tuple(self._phase(count, spent_s) for count, spent_s in self._spells(row, offset_s))

    def _spells(self, row: Sequence[int], offset_s: float) -> Iterator[tuple[int, float]]:
        """Counts, and for how long each holds, until the time is up."""
        left_s = self._seconds
        begun_s = offset_s
        for count, same in groupby(_around(row)):
            intervals = 0
            for intervals, _ in enumerate(same, start=1):
                if intervals * self._interval_s - begun_s >= left_s:
                    break
            spent_s = min(left_s, intervals * self._interval_s - begun_s)
            yield count, spent_s
            left_s -= spent_s
            begun_s = 0.0
            if left_s <= 0:
                return

    def _phase(self, count: int, spent_s: float) -> Phase:
        key = (count, spent_s)
        phase = self._known.get(key)
        if phase is None:
            phase = self._known[key] = Phase(duration_s=spent_s, scale=count / MINUTE_S)
        return phase


def _around(row: Sequence[int]) -> Iterator[int]:
    while True:
        yield from row
