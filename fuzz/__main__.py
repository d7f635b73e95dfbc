"""The command: which target, how long, from which seed; a line of JSON for each run, beside the machine it ran on."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

import msgspec

from benchmarks.harness.report import Machine, machine
from fuzz import loop
from fuzz.found import Found
from fuzz.mutate import Mutator
from fuzz.target import RESULTS, kept
from fuzz.targets import IN_PROCESS, LIVE, WORDS, make

CASES_MAX = 1 << 40
ALL = "all"


class Line(msgspec.Struct, frozen=True):
    """One run. A run of the same seed without guidance goes on at `first + cases`."""

    target: str
    is_guided: bool
    seed: int
    first: int
    cases: int
    seconds: float
    faults: dict[str, str]
    machine: Machine


def main() -> int:
    """Run what was asked for; 1 when a fault was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Feed hostile input to Slotwise.")
    parser.add_argument("target", choices=(*IN_PROCESS, *LIVE, ALL))
    parser.add_argument("--minutes", type=float, default=0.0, help="how long in all; shared out among several targets")
    parser.add_argument("--cases", type=int, default=0, help="how many cases of each target")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes other cases")
    asked = parser.parse_args()
    names = (*IN_PROCESS, *LIVE) if asked.target == ALL else (asked.target,)
    cases = asked.cases or CASES_MAX
    minutes = asked.minutes or (1e9 if asked.cases else 1.0)
    lines = [_run(name, asked.seed, cases, 60 * minutes / len(names)) for name in names]
    for line in lines:
        faults = f"{len(line.faults)} faults {line.faults or ''}"
        print(f"{line.target}: {line.cases:,} cases in {line.seconds:,.0f} s, {faults}")
    return int(any(line.faults for line in lines))


def _run(name: str, seed: int, cases: int, seconds: float) -> Line:
    facts = machine()
    is_guided = name in IN_PROCESS and importlib.util.find_spec("atheris") is not None
    file = RESULTS / f"{name}.jsonl"
    first = 0 if is_guided else _first(file, seed)
    found = _guided(name, seed, cases, seconds) if is_guided else _unguided(name, seed, first, cases, seconds)
    line = Line(name, is_guided, seed, first, found.cases, round(found.seconds, 1), found.faults, facts)
    RESULTS.mkdir(exist_ok=True)
    with file.open("ab") as results:
        results.write(msgspec.json.encode(line) + b"\n")
    return line


def _first(file: Path, seed: int) -> int:
    """Where the runs of a seed have come to."""
    if not file.exists():
        return 0
    lines = [msgspec.json.decode(line, type=Line) for line in file.read_bytes().splitlines()]
    return max((line.first + line.cases for line in lines if line.seed == seed and not line.is_guided), default=0)


def _unguided(name: str, seed: int, first: int, cases: int, seconds: float) -> Found:
    target = make(name)
    mutator = Mutator([*target.seeds(), *kept(name)], WORDS[name])
    found = loop.run(name, target, mutator, seed=seed, first=first, cases=cases, seconds=seconds)
    with found.watching(b""):
        target.check()
        target.close()
    return found


def _guided(name: str, seed: int, cases: int, seconds: float) -> Found:
    """In a process of its own, whose last line says what it has found."""
    words = [sys.executable, "-m", "fuzz.guided", name, str(seed), str(cases), str(seconds)]
    ended = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    found = Found(name)
    said = ended.stdout.splitlines()
    if ended.returncode or not said:
        found.faults[f"the process ended with status {ended.returncode}"] = "see results/ for what it left"
        return found
    found.cases, found.seconds, found.faults = msgspec.json.decode(said[-1], type=tuple[int, float, dict[str, str]])
    return found


if __name__ == "__main__":
    sys.exit(main())
