"""Runs a target without guidance: inputs are drawn by number, and a run goes on where the last of its seed ended."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fuzz.found import Found
from fuzz.mutate import Mutator
from fuzz.target import Fault, Target

CASE_S_MAX = 20.0
CHECK_EVERY = 200
TELL_S = 10.0


def run(name: str, target: Target, mutator: Mutator, *, seed: int, first: int, cases: int, seconds: float) -> Found:
    """Run cases from `first` on until there are so many, or so long has passed."""
    found = Found(name)
    start_s = told_s = time.monotonic()
    for number in range(first, first + cases):
        data = mutator.draw(random.Random(f"{name}/{seed}/{number}"))
        _try(target, data, found)
        now_s = time.monotonic()
        if found.cases % CHECK_EVERY == 0:
            with found.watching(data):
                target.check()
        if now_s - told_s > TELL_S:
            told_s = now_s
            print(
                f"{name}: {found.cases:,} cases, {found.cases / (now_s - start_s):,.0f} a second, {found}", flush=True
            )
        if now_s - start_s > seconds:
            break
    found.seconds = time.monotonic() - start_s
    return found


def _try(target: Target, data: bytes, found: Found) -> None:
    with found.watching(data), time_limit(CASE_S_MAX):
        target.run(data)
    found.cases += 1


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise Fault inside when it takes longer."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise Fault(f"a case took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
