"""How durations are spread: counts in buckets so narrow that any quantile is right to 0.4%, in little memory. Pure.

How it works: from 256 ns on each doubling is cut into 128 equal buckets, and a quantile is the middle of the one that
it falls into, so an hour and a microsecond are told equally well. Buckets that nothing has fallen into take no room.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

CUT_BITS = 7
CUTS = 1 << CUT_BITS
"""Buckets for each doubling."""


class Spread:
    """Durations in nanoseconds, counted."""

    __slots__ = ("_counts", "count", "max_ns", "sum_ns")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.sum_ns = 0
        self.max_ns = 0

    def add(self, ns: int) -> None:
        """Count one in; what is below 0 counts as 0."""
        ns = max(0, ns)
        shift = max(0, ns.bit_length() - CUT_BITS - 1)
        bucket = (shift << CUT_BITS) + (ns >> shift)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.count += 1
        self.sum_ns += ns
        self.max_ns = max(self.max_ns, ns)

    def merge(self, other: Spread) -> None:
        """Count in all that another has."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.count += other.count
        self.sum_ns += other.sum_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def mean_ns(self) -> float | None:
        """The mean, exactly; None of nothing."""
        return self.sum_ns / self.count if self.count else None

    def quantile_ns(self, share: float) -> float | None:
        """What this share of all durations does not exceed.

        None where not even half of one is expected above it, since nothing is known there but the largest.
        """
        return self.quantiles_ns((share,))[share]

    def quantiles_ns(self, shares: tuple[float, ...]) -> Mapping[float, float | None]:
        """Several at once, by share."""
        buckets = sorted(self._counts)
        reached = list(accumulate(self._counts[bucket] for bucket in buckets))
        return {share: self._at(share, buckets, reached) for share in shares}

    def _at(self, share: float, buckets: list[int], reached: list[int]) -> float | None:
        if self.count * (1 - share) < 0.5 - ROUNDING:
            return None
        wanted = share * self.count
        bucket = next(bucket for bucket, count in zip(buckets, reached, strict=True) if count > wanted - ROUNDING)
        return min(_middle_ns(bucket), float(self.max_ns))


ROUNDING = 1e-9
"""Shares such as 0.9 of 10 shall be 9, whatever binary fractions make of them."""


def _middle_ns(bucket: int) -> float:
    if bucket < 2 * CUTS:
        return float(bucket)
    shift = (bucket >> CUT_BITS) - 1
    start = (bucket - (shift << CUT_BITS)) << shift
    return start + ((1 << shift) - 1) / 2
