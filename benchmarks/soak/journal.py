"""The file of a run: a line of JSON at its begin, for each sample, for each stray request, and for the verdict.

It is written as things happen, so a run that is cut off has said all it knew.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import msgspec
from harness.report import RESULTS

from slotwise.laboratory.machine import Machine, describe, machine
from soak.samples import Sample
from soak.tally import Stray
from soak.verdict import Verdict


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """What was started, and where."""

    benchmark: str
    machine: Machine
    minutes: float
    rate_per_s: float
    seed: int
    models: tuple[str, ...]


class Journal:
    """Appends lines to a file of its own."""

    def __init__(self, minutes: float, rate_per_s: float, seed: int, models: tuple[str, ...]) -> None:
        facts = machine()
        RESULTS.mkdir(exist_ok=True)
        self.path = RESULTS / f"soak-{facts.date.replace(':', '').replace('+0000', 'Z')}.jsonl"
        self._file = self.path.open("ab")
        print(f"soak: {describe(facts)}\n{self.path}", flush=True)
        self.write(Begun("soak", facts, minutes, rate_per_s, seed, models))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, line: Begun | Sample | Stray | Verdict) -> None:
        """Add a line, and have it on the disk's side at once."""
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()
