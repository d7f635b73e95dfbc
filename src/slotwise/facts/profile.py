"""Measured latency and memory of a model: look-ups and interpolation. Nothing here measures."""

from __future__ import annotations

from bisect import bisect_left

from slotwise.facts.value import value

NUMBER_MAX = 1 << 62
"""Nanoseconds, bytes and rows stay below, and so do sums of two."""

ROWS_MAX = 1 << 14
"""Of a batch: what is best up to there is found by trying each size."""


@value
class Profile:
    """What one model costs on one slice.

    `rows` are the measured batch sizes, ascending and starting at 1; `run_ns[i]` is the time that a batch
    of `rows[i]` takes; `load_ns` is the time to make the weights ready; `memory_bytes` is what they
    and their working space hold while resident. `wall_ns`, where measured, is the same as `run_ns`
    by the wall instead of the processor's clock.
    """

    rows: tuple[int, ...]
    run_ns: tuple[int, ...]
    load_ns: int
    memory_bytes: int
    wall_ns: tuple[int, ...] = ()
    stop_ns: int = 1_000_000
    """How long a running batch takes to heed a stop."""

    def expected_ns(self, rows: int) -> int:
        """Time of a batch of `rows`, linear between measured sizes and beyond the last."""
        sizes, times = self.rows, self.run_ns
        at = bisect_left(sizes, rows)
        if at < len(sizes) and sizes[at] == rows:
            return times[at]
        if len(sizes) == 1:
            return times[0] * rows // sizes[0]
        low = min(max(at - 1, 0), len(sizes) - 2)
        slope_per_row = (times[low + 1] - times[low]) / (sizes[low + 1] - sizes[low])
        return max(1, round(times[low] + slope_per_row * (rows - sizes[low])))

    def best_rows(self, batch_max: int) -> int:
        """The batch size up to `batch_max` with the least time per row, the smaller among near equals."""
        best = 1
        for rows in range(2, min(batch_max, ROWS_MAX) + 1):
            if self.expected_ns(rows) * best < 0.98 * self.expected_ns(best) * rows:
                best = rows
        return best


def problems(profile: Profile) -> list[str]:
    """What is wrong with a profile read from outside, in words; empty when it is sound."""
    found = []
    if not profile.rows or profile.rows[0] != 1 or list(profile.rows) != sorted(set(profile.rows)):
        found.append("rows must ascend from 1")
    if len(profile.rows) != len(profile.run_ns):
        found.append("run_ns must have one entry for each of rows")
    if any(time <= 0 for time in profile.run_ns):
        found.append("run_ns must be positive")
    if profile.load_ns < 0 or profile.memory_bytes < 0:
        found.append("load_ns and memory_bytes must not be negative")
    if max(*profile.rows, *profile.run_ns, *profile.wall_ns, profile.load_ns, profile.memory_bytes) >= NUMBER_MAX:
        found.append(f"a number is beyond {NUMBER_MAX}")
    return found
