"""Runs a target under atheris, which follows what each input reaches and keeps those that reach something new.

    python -m fuzz.guided TARGET SEED CASES SECONDS

A process of its own, started by `python -m fuzz`: the modules under test have to be instrumented when they are
imported, and libFuzzer does not return. What it keeps lies in `results/reached/TARGET`, so the next run goes on there.
"""

from __future__ import annotations

import os
import random
import sys
import time

import atheris
import msgspec

from fuzz.found import Found
from fuzz.mutate import Mutator
from fuzz.target import RESULTS, Target, kept
from fuzz.targets import WORDS, make

CASE_S_MAX = 25
LENGTH_MAX = 4096
"""Longer inputs reach little more, and take longer."""
MEMORY_MB_MAX = 3000
CHECK_EVERY = 10_000
FOLLOWED = ["slotwise.edges", "slotwise.engine.journal", "slotwise.config", "slotwise.simulation", "slotwise.explain"]


class Run:
    """What libFuzzer calls for each input."""

    def __init__(self, name: str, target: Target, cases: int, seconds: float) -> None:
        self.found = Found(name)
        self._target = target
        self._cases = cases
        self._seconds = seconds
        self._start_s = time.monotonic()

    def one(self, data: bytes) -> None:
        """One input."""
        found = self.found
        with found.watching(data):
            self._target.run(data)
        found.cases += 1
        if found.cases % CHECK_EVERY == 0:
            with found.watching(data):
                self._target.check()
        if found.cases >= self._cases or time.monotonic() - self._start_s > self._seconds:
            self._end(data)

    def _end(self, data: bytes) -> None:
        """Say what was found in the last line of standard output. libFuzzer ends with the process only."""
        found = self.found
        found.seconds = time.monotonic() - self._start_s
        with found.watching(data):
            self._target.close()
        print(msgspec.json.encode((found.cases, found.seconds, found.faults)).decode(), flush=True)
        os._exit(0)  # libFuzzer takes any other end for a crash


def main() -> None:
    """Run until the end of cases or of time."""
    name, seed, cases, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    with atheris.instrument_imports(include=FOLLOWED):
        target = make(name)
    seeds = [*target.seeds(), *kept(name)]
    reached = RESULTS / "reached" / name
    reached.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds):
        (reached / f"seed-{number}").write_bytes(data)
    mutator = Mutator(seeds, WORDS[name])

    def mutate(data: bytes, size_max: int, number: int) -> bytes:
        source = random.Random(number)
        if source.random() < 0.5:
            return bytes(atheris.Mutate(data, size_max))
        return mutator.change(data, source)[:size_max]

    run = Run(name, target, cases, seconds)
    options = [
        f"-seed={seed}",
        f"-max_len={LENGTH_MAX}",
        f"-timeout={CASE_S_MAX}",
        f"-rss_limit_mb={MEMORY_MB_MAX}",
        f"-artifact_prefix={RESULTS}/{name}-",
        "-print_final_stats=0",
        "-verbosity=0",
        "-len_control=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(reached)], run.one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
