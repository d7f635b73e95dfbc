"""What a run has found: how many cases, and one input for each place where the product failed."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from fuzz.target import Fault, keep


class Found:
    """Faults of a run, by the place that they came from."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.cases = 0
        self.seconds = 0.0
        self.faults: dict[str, str] = {}
        """Where and what, and the file with the input."""

    @contextmanager
    def watching(self, data: bytes) -> Iterator[None]:
        """Keep the input if anything is raised within."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever comes is what is looked for
            place = _place(error)
            if place not in self.faults:
                blamed = error.data if isinstance(error, Fault) else None
                path = keep(self._name, data if blamed is None else blamed)
                self.faults[place] = path.name
                print(f"{self._name}: {place}: {path}", flush=True)
                traceback.print_exc()

    def __str__(self) -> str:
        return f"{len(self.faults)} faults"


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    if isinstance(error, Fault):
        return re.sub(r"\d+", "N", str(error).strip().splitlines()[-1][-150:])
    return f"{type(error).__name__} in {last.name}:{last.lineno}"
