"""What is sent for an arrival, made once for each kind of them and kept within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from slotwise.load.lines import R
from slotwise.workload.values import Arrival

KINDS_MAX = 4096
KEPT_BYTES_MAX = 256 << 20


class Requests(Generic[R]):
    """Requests by model, rows, SLO and priority, in the form in which they are sent.

    Of more kinds, or longer ones, than are kept, all are made anew.
    """

    def __init__(self, make: Callable[[Arrival], R], nbytes: Callable[[R], int]) -> None:
        self._make = make
        self._nbytes = nbytes
        self._kept: dict[tuple[str, int, int, int], R] = {}
        self._kept_bytes = 0

    def of(self, arrival: Arrival) -> R:
        """What is sent for an arrival."""
        kind = (arrival.model, arrival.rows, arrival.slo_ns, arrival.priority)
        found = self._kept.get(kind)
        return self._made(kind, arrival) if found is None else found

    def _made(self, kind: tuple[str, int, int, int], arrival: Arrival) -> R:
        made = self._make(arrival)
        self._kept_bytes += self._nbytes(made)
        if len(self._kept) >= KINDS_MAX or self._kept_bytes > KEPT_BYTES_MAX:
            self._kept.clear()
            self._kept_bytes = self._nbytes(made)
        self._kept[kind] = made
        return made
