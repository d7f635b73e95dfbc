"""Durations counted in buckets that are as fine, beside their size, as anybody needs: quantiles in bounded memory.

A histogram counts, and forgets which duration came when. No clock, no I/O: `engine.statistics` has the coarse buckets
that metrics show; this one is for reports, of simulated and of live load.

How it works: a duration below `2 * BUCKETS_PER_DOUBLING` nanoseconds has a bucket of its own. Above that each doubling
has `BUCKETS_PER_DOUBLING` equal buckets, and a bucket stands for its middle, which no duration in it is further from
than `ERROR_MAX`. Buckets are allocated up to the longest duration seen: 24 KB up to a second, 58 KB at the very most.
"""

from __future__ import annotations

from array import array

BUCKETS_PER_DOUBLING = 128
ERROR_MAX = 1 / (2 * BUCKETS_PER_DOUBLING)
"""How far a quantile may be from the duration that stands there, as a share of it: below half a percent."""
COUNT_TYPE = "Q"
"""Counts have 64 bits, unsigned."""


class LogHistogram:
    """A histogram that grows. Count, sum and the longest are exact; durations are whole nanoseconds, 0 or above."""

    __slots__ = ("_counts", "count", "ns", "ns_max")

    def __init__(self) -> None:
        self._counts = array(COUNT_TYPE)
        self.count = 0
        self.ns = 0
        """All together."""
        self.ns_max = 0

    def add(self, ns: int) -> None:
        """Count one in."""
        bucket = _bucket(ns)
        if bucket >= len(self._counts):
            self._grow(bucket + 1)
        self._counts[bucket] += 1
        self.count += 1
        self.ns += ns
        self.ns_max = max(self.ns_max, ns)

    def merge(self, other: LogHistogram) -> None:
        """Count in all that another has counted."""
        if len(other._counts) > len(self._counts):
            self._grow(len(other._counts))
        for bucket, count in enumerate(other._counts):
            if count:
                self._counts[bucket] += count
        self.count += other.count
        self.ns += other.ns
        self.ns_max = max(self.ns_max, other.ns_max)

    def quantile(self, share: float) -> int:
        """The duration that stands at `share` (0 to 1) of all in order of size, but for `ERROR_MAX`; 0 for none."""
        rank = min(self.count - 1, int(share * self.count))
        if rank == self.count - 1:
            return self.ns_max
        for bucket, count in enumerate(self._counts):
            rank -= count
            if rank < 0 < count:
                return min(_middle_ns(bucket), self.ns_max)
        raise AssertionError("the counts do not add up")

    def _grow(self, size: int) -> None:
        self._counts.frombytes(bytes(self._counts.itemsize * (size - len(self._counts))))


def _bucket(ns: int) -> int:
    """Its number: the doubling, and the leading bits of what is left."""
    doublings = max(0, ns.bit_length() - BUCKETS_PER_DOUBLING.bit_length())
    return doublings * BUCKETS_PER_DOUBLING + (ns >> doublings)


def _middle_ns(bucket: int) -> int:
    doublings = max(0, bucket // BUCKETS_PER_DOUBLING - 1)
    lowest_ns = (bucket - doublings * BUCKETS_PER_DOUBLING) << doublings
    return lowest_ns + (1 << doublings >> 1)
