"""Which counts of devices to try next, until the least that is enough is known. Pure.

Counts are doubled until one is enough, the gap below it is parted, and at the end its neighbours are looked at too:
what one device less would do is half of the answer. It takes for granted that more devices do not answer less.
"""

from __future__ import annotations

from collections.abc import Mapping

AT_ONCE = 2
"""Counts to try side by side, however many processes there are, so that what is tried depends on the file alone."""


def least_enough(tried: Mapping[int, bool]) -> int | None:
    """The least count that was enough; None where none was."""
    return min((count for count, is_enough in tried.items() if is_enough), default=None)


def counts_to_try(tried: Mapping[int, bool], count_max: int) -> list[int]:
    """The next counts, given which were tried and whether they were enough; none when the search is over."""
    least = least_enough(tried)
    if least is None:
        return _doubled(max(tried, default=0), count_max)
    below = max((count for count in tried if count < least), default=0)
    if least - below > 1:
        return _between(below, least)
    return [count for count in (least - 1, least + 1) if 0 < count <= count_max and count not in tried]


def _doubled(most: int, count_max: int) -> list[int]:
    found: list[int] = []
    while most < count_max and len(found) < AT_ONCE:
        most = min(count_max, max(1, 2 * most))
        found.append(most)
    return found


def _between(low: int, high: int) -> list[int]:
    """Counts that part the gap into equal pieces."""
    parts = {low + (high - low) * index // (AT_ONCE + 1) for index in range(1, AT_ONCE + 1)}
    return sorted(parts - {low, high}) or [low + 1]
