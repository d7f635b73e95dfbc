"""What doors turn away by themselves: all of it is counted, and some of it becomes rows, as many as a disk can take.

The engine never hears of these requests, so its statistics and logs have none of them. Whatever a client has chosen
is made harmless before it goes into a row: it is plain ASCII without control characters, short, and no formula.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from slotwise.edges.logs.rows import RefusedRow
from slotwise.engine.ports import Clock, Refusal
from slotwise.facts.units import S

TEXT_CHARS_MAX = 200
_FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes the beginning of a cell for."""


class Refusals:
    """Counts refusals by door, status and reason, and hands on rows: `burst` at once, then `per_s` a second."""

    def __init__(self, clock: Clock, *, per_s: float, burst: int, put: Callable[[RefusedRow], None] | None) -> None:
        """Without `put` nobody wants rows."""
        self._clock = clock
        self._per_s = per_s
        self._burst = float(burst)
        self._put = put
        self._left = self._burst
        self._since_ns = clock.now_ns()
        self._left_out = 0
        self.counts: Counter[tuple[str, int, str]] = Counter()

    def note(self, refusal: Refusal) -> None:
        """Take one in."""
        self.counts[refusal.door, refusal.status, refusal.reason] += refusal.count
        if self._put is None:
            return
        now_ns = self._clock.now_ns()
        self._left = min(self._burst, self._left + (now_ns - self._since_ns) * self._per_s / S)
        self._since_ns = now_ns
        if self._left < 1:
            self._left_out += refusal.count
            return
        self._left -= 1
        self._left_out += refusal.count - 1
        self._put(
            RefusedRow(
                now_ns,
                refusal.door,
                refusal.status,
                refusal.reason,
                plain(refusal.peer),
                plain(refusal.target),
                plain(refusal.message),
                self._left_out,
            )
        )
        self._left_out = 0


def plain(text: str) -> str:
    """A text that no reader of a log can mistake for anything else."""
    escaped = text[:TEXT_CHARS_MAX].encode("unicode_escape").decode("ascii")[:TEXT_CHARS_MAX]
    return f"'{escaped}" if escaped.startswith(_FORMULA) else escaped
