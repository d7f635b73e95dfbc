"""A stand-in for a day of the Azure Functions trace of 2019, drawn from a seed to match what was published of it.

What it matches, and from where:

- how calls are spread: 19% of the applications make over 99% of them, most functions are called seldom, and the busiest
  is called eight orders of magnitude more often than the idlest (Shahrad et al., ATC 2020, section 3);
- what calls functions, as shares of functions and of calls (there too; storage is one of the others): http 55% and 36%,
  queue 15% and 34%, event 2% and 25%, timer 16% and 2%, orchestration 7% and 2%, others 5% and 1%;
- how many functions an application has: 54% one, 16% two, 10% three, 8% four or five, 7% six to ten, 5% more (there);
- how much, and when: 9,638 calls a second of 46,000 functions, from about 8,500 to 12,000, with spikes each 5, 15 and
  60 minutes (Gujarati et al., Clockwork, OSDI 2020, figure 9). Functions of timers fire together at such minutes.

What it does not match is whatever else was not published, such as which functions rise together.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from slotwise.facts.value import value
from slotwise.workload.azure import CALLS_MAX, MINUTES, Counts, Function, Trace, Trigger

FUNCTIONS = 46_000
CALLS_PER_FUNCTION = 9_638 * 86_400 / FUNCTIONS
"""A day, on average."""
SPREAD = 3.5
"""Standard deviation of the logarithm of a function's calls: with it come the published shares."""
TOGETHER = 0.85
"""How far functions of one application are busy together: correlation of what draws their places."""
APP_SIZES = ((1, 1, 0.54), (2, 2, 0.16), (3, 3, 0.10), (4, 5, 0.08), (6, 10, 0.07), (11, 30, 0.05))
"""Functions of an application, from and to, and the share of the applications."""
APPS_PER_OWNER = 2
TIMER_PERIODS = ((1, 0.25), (5, 0.30), (15, 0.20), (60, 0.20), (MINUTES, 0.05))
"""Minutes between two calls of a timer, and the share of the timers."""
SPIKES = ((5, 0.08), (15, 0.06), (60, 0.10))
"""What is called more in minutes that are a multiple of so many, as a share of what is called in others."""
WAVE = 0.07
"""Half of what the load rises from night to day, as a share of its mean."""
SELDOM_CALLS = 500.0
"""A function with fewer calls a day has them drawn one by one."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@value
class Share:
    """What a trigger's functions are of all functions, and their calls of all calls."""

    trigger: Trigger
    functions: float
    calls: float


SHARES = (
    Share(trigger=Trigger.HTTP, functions=0.55, calls=0.36),
    Share(trigger=Trigger.QUEUE, functions=0.15, calls=0.34),
    Share(trigger=Trigger.EVENT, functions=0.02, calls=0.25),
    Share(trigger=Trigger.TIMER, functions=0.16, calls=0.02),
    Share(trigger=Trigger.ORCHESTRATION, functions=0.07, calls=0.02),
    Share(trigger=Trigger.OTHERS, functions=0.05, calls=0.01),
)


def stand_in(functions: int = FUNCTIONS, seed: int = 1) -> Trace:
    """A day of so many functions, each called once at least. The same for the same seed, always."""
    rng = np.random.default_rng([seed, functions])
    apps = _apps(functions, rng)
    kinds = _kinds(functions, rng)
    heat = _heat(apps, rng)
    counts = np.zeros((functions, MINUTES), dtype=np.int32)
    total = functions * CALLS_PER_FUNCTION
    timers = np.flatnonzero(kinds == _place(Trigger.TIMER))
    _fire_timers(counts, timers, total * SHARES[_place(Trigger.TIMER)].calls, heat, rng)
    rhythm = _rhythm(total, counts.sum(axis=0, dtype=np.int64))
    for place, share in enumerate(SHARES):
        if share.trigger is not Trigger.TIMER:
            members = np.flatnonzero(kinds == place)
            _call(counts, members, _totals(heat[members], total * share.calls), rhythm, rng)
    return Trace(functions=_named(apps, kinds), counts=counts, source=f"a synthetic stand-in, seed {seed}")


def _place(trigger: Trigger) -> int:
    return next(place for place, share in enumerate(SHARES) if share.trigger is trigger)


def _apps(functions: int, rng: np.random.Generator) -> Ints:
    """The application of each function."""
    bands = rng.choice(len(APP_SIZES), size=functions, p=[share for _, _, share in APP_SIZES])
    low = np.array([low for low, _, _ in APP_SIZES])[bands]
    high = np.array([high for _, high, _ in APP_SIZES])[bands]
    sizes = rng.integers(low, high, endpoint=True)
    return np.repeat(np.arange(functions), sizes)[:functions]


def _kinds(functions: int, rng: np.random.Generator) -> Ints:
    """The place in SHARES of each function's trigger, in the published shares as exactly as whole numbers can be."""
    bounds = np.rint(np.cumsum([share.functions for share in SHARES]) * functions).astype(np.int64)
    kinds = np.searchsorted(bounds, np.arange(functions), side="right")
    return rng.permutation(np.minimum(kinds, len(SHARES) - 1))


def _heat(apps: Ints, rng: np.random.Generator) -> Floats:
    """How busy each function is beside others, as a normal number; those of one application are so together."""
    own = rng.standard_normal(len(apps))
    shared = rng.standard_normal(int(apps[-1]) + 1)[apps]
    return np.asarray(TOGETHER * shared + math.sqrt(1 - TOGETHER**2) * own, dtype=np.float64)


def _totals(heat: Floats, total: float) -> Floats:
    """Expected calls a day of functions, `total` in all: log-normal by their ranks, so that the spread is exact."""
    if not len(heat):
        return np.zeros(0)
    ranks = np.argsort(np.argsort(heat, kind="stable"), kind="stable")
    raw = np.exp(SPREAD * _quantiles(len(heat))[ranks])
    return np.asarray(raw * (total / raw.sum()), dtype=np.float64)


def _quantiles(number: int) -> Floats:
    """The normal distribution cut into so many equal parts: the middle of each."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((place + 0.5) / number) for place in range(number)])


def _fire_timers(counts: Counts, timers: Ints, total: float, heat: Floats, rng: np.random.Generator) -> None:
    """Write the calls of timers: each fires on the minute, by its period, and some call often when they do."""
    periods = np.array([period for period, _ in TIMER_PERIODS])
    own = rng.choice(periods, size=len(timers), p=[share for _, share in TIMER_PERIODS])
    firings = MINUTES // own
    more = _totals(heat[timers], max(0.0, total - float(firings.sum()))) / firings
    hours = rng.integers(MINUTES // 60, size=len(timers)) * 60
    for timer, period, calls, hour in zip(timers, own, 1 + np.rint(more), hours, strict=True):
        counts[timer, (hour if period == MINUTES else 0) :: period] = min(CALLS_MAX, calls)


def _rhythm(total: float, timers: Ints) -> Floats:
    """The share of each minute in the calls of all functions but timers; with timers it comes to waves and spikes."""
    minutes = np.arange(MINUTES)
    shape = 1 - WAVE * np.cos(2 * np.pi * minutes / MINUTES)
    for every, more in SPIKES:
        shape = shape * np.where(minutes % every == 0, 1 + more, 1.0)
    left = np.maximum(shape / shape.sum() * total - timers, shape * total / MINUTES / 10)
    return np.asarray(left / left.sum(), dtype=np.float64)


def _call(counts: Counts, members: Ints, totals: Floats, rhythm: Floats, rng: np.random.Generator) -> None:
    """Write the calls of functions whose expected calls a day are `totals`, each in its share of every minute."""
    often = totals >= SELDOM_CALLS
    for member, total in zip(members[often], totals[often], strict=True):
        counts[member] = np.minimum(rng.poisson(total * rhythm), CALLS_MAX)
    seldom = members[~often]
    numbers = np.maximum(1, rng.poisson(totals[~often]))
    instants = np.searchsorted(np.cumsum(rhythm), rng.random(int(numbers.sum())))
    np.add.at(counts, (np.repeat(seldom, numbers), np.minimum(instants, MINUTES - 1)), 1)


def _named(apps: Ints, kinds: Ints) -> tuple[Function, ...]:
    return tuple(
        Function(
            owner=f"owner{app // APPS_PER_OWNER:06}",
            app=f"app{app:06}",
            name=f"function{number:06}",
            trigger=SHARES[kind].trigger,
        )
        for number, (app, kind) in enumerate(zip(apps.tolist(), kinds.tolist(), strict=True))
    )
