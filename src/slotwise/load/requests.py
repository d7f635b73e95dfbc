"""What is sent for an arrival, made once for each kind of them and kept within bounds.

Where a model has several samples they are sent in turn, each model's by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from slotwise.load.lines import R
from slotwise.workload.values import Arrival

KINDS_MAX = 4096
KEPT_BYTES_MAX = 256 << 20


def _one(_: str) -> int:
    return 1


class Requests(Generic[R]):
    """Requests by model, rows, SLO, priority and sample, in the form in which they are sent.

    `make` is told the number of the sample, and `samples` how many a model has: one, unless it says. Of more kinds,
    or longer ones, than are kept, all are made anew.
    """

    def __init__(
        self, make: Callable[[Arrival, int], R], nbytes: Callable[[R], int], samples: Callable[[str], int] = _one
    ) -> None:
        self._make = make
        self._nbytes = nbytes
        self._samples = samples
        self._next: dict[str, int] = {}
        """The number of each model's next sample."""
        self._kept: dict[tuple[str, int, int, int, int], R] = {}
        self._kept_bytes = 0

    def of(self, arrival: Arrival) -> R:
        """What is sent for an arrival."""
        sample = self._next.get(arrival.model, 0)
        self._next[arrival.model] = (sample + 1) % self._samples(arrival.model)
        kind = (arrival.model, arrival.rows, arrival.slo_ns, arrival.priority, sample)
        found = self._kept.get(kind)
        return self._made(kind, arrival) if found is None else found

    def _made(self, kind: tuple[str, int, int, int, int], arrival: Arrival) -> R:
        made = self._make(arrival, kind[-1])
        self._kept_bytes += self._nbytes(made)
        if len(self._kept) >= KINDS_MAX or self._kept_bytes > KEPT_BYTES_MAX:
            self._kept.clear()
            self._kept_bytes = self._nbytes(made)
        self._kept[kind] = made
        return made
