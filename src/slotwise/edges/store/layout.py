"""Who holds which bytes of a stretch of memory. Books only: no memory is touched here.

`Layout` hands out counted regions in any order; `RingLayout` hands out room that is given back in the
order it was taken. Both align to 64 bytes, a cache line, which is also what vector instructions like.

`Layout` keeps free blocks in classes of similar size, eight to each power of two, and one integer whose
bits say which classes have any: finding a block is a shift and a look-up however many there are (the
two-level segregated fit of Masmano et al., ECRTS 2004). Neighbours merge when freed, but some small blocks
of each size are set aside unmerged, for the next request of that size; all are merged when room is short.
"""

from __future__ import annotations

UNIT_BYTES = 64
ASIDE_UNITS_MAX = 64
"""Blocks up to this size are set aside when freed,"""
ASIDE_BLOCKS_MAX = 32
"""up to so many of each size."""
_UNIT_SHIFT = 6


def _class_of(units: int) -> int:
    """The class that a free block of so many units belongs to; grows with `units`."""
    if units < 8:
        return units
    power = units.bit_length()
    return ((power - 3) << 3) + ((units >> (power - 4)) & 7)


def _class_that_fits(units: int) -> int:
    """The lowest class all of whose blocks have at least `units`."""
    if units < 16:
        return _class_of(units)
    return _class_of(units + (1 << (units.bit_length() - 4)) - 1)


class Layout:
    """Counted regions within `nbytes` of memory. A region is named by its offset."""

    def __init__(self, nbytes: int) -> None:
        self._units_total = nbytes >> _UNIT_SHIFT
        assert self._units_total > 0, "a layout needs room for one unit at least"
        self._units_held = 0
        self._held: dict[int, int] = {}
        self._counts: dict[int, int] = {}
        self._free: dict[int, int] = {}
        self._free_ends: dict[int, int] = {}
        self._aside: dict[int, list[int]] = {}
        self._classes: dict[int, dict[int, None]] = {}
        self._classes_filled = 0
        self._add_free(0, self._units_total)

    @property
    def held_bytes(self) -> int:
        """Bytes that are held now, rounded up to whole units."""
        return self._units_held << _UNIT_SHIFT

    @property
    def regions(self) -> int:
        """How many regions are held."""
        return len(self._held)

    def allocate(self, nbytes: int) -> int | None:
        """Offset of a fresh region, held once; None when no free block is large enough."""
        units = (nbytes + UNIT_BYTES - 1) >> _UNIT_SHIFT or 1
        aside = self._aside.get(units)
        start = aside.pop() if aside else self._carve(units)
        if start is None:
            return None
        self._units_held += units
        self._held[start] = units
        self._counts[start] = 1
        return start << _UNIT_SHIFT

    def keep(self, region: int) -> None:
        """Hold a region once more. It must be held already."""
        self._counts[region >> _UNIT_SHIFT] += 1

    def release(self, region: int) -> None:
        """Hold a region once less; the last release frees it and merges it with its free neighbours."""
        start = region >> _UNIT_SHIFT
        count = self._counts[start] - 1
        if count:
            self._counts[start] = count
            return
        del self._counts[start]
        units = self._held.pop(start)
        self._units_held -= units
        if units <= ASIDE_UNITS_MAX:
            aside = self._aside.setdefault(units, [])
            if len(aside) < ASIDE_BLOCKS_MAX:
                aside.append(start)
                return
        self._give_back(start, units)

    def check(self) -> None:
        """Assert that every unit is held, free or set aside, once, and that free neighbours are merged."""
        end = 0
        was_free = False
        aside = [(start, units) for units, starts in self._aside.items() for start in starts]
        for start, units in sorted([*self._held.items(), *self._free.items(), *aside]):
            assert start == end, "blocks overlap or leave a hole"
            is_free = start in self._free
            assert not (is_free and was_free), "free neighbours were not merged"
            end, was_free = start + units, is_free
        assert end == self._units_total, "units were lost"
        assert self._held.keys() == self._counts.keys()
        assert sum(self._held.values()) == self._units_held
        assert sum(len(blocks) for blocks in self._classes.values()) == len(self._free) == len(self._free_ends)

    def _carve(self, units: int) -> int | None:
        """Cut so many units off a free block; where there is none, after merging what was set aside."""
        start = self._find(units)
        if start is None:
            self._merge_aside()
            start = self._find(units)
            if start is None:
                return None
        room = self._remove_free(start)
        if room > units:
            self._add_free(start + units, room - units)
        return start

    def _merge_aside(self) -> None:
        aside, self._aside = self._aside, {}
        for units, starts in aside.items():
            for start in starts:
                self._give_back(start, units)

    def _find(self, units: int) -> int | None:
        at = _class_that_fits(units)
        filled = self._classes_filled >> at
        if filled:
            at += (filled & -filled).bit_length() - 1
            return next(reversed(self._classes[at]))
        # Nothing is surely large enough; the class that `units` itself falls in may still hold a fit.
        own = self._classes.get(_class_of(units), {})
        return next((start for start in own if self._free[start] >= units), None)

    def _give_back(self, start: int, units: int) -> None:
        before = self._free_ends.get(start)
        if before is not None:
            units += self._remove_free(before)
            start = before
        if start + units in self._free:
            units += self._remove_free(start + units)
        self._add_free(start, units)

    def _add_free(self, start: int, units: int) -> None:
        self._free[start] = units
        self._free_ends[start + units] = start
        at = _class_of(units)
        self._classes.setdefault(at, {})[start] = None
        self._classes_filled |= 1 << at

    def _remove_free(self, start: int) -> int:
        units = self._free.pop(start)
        del self._free_ends[start + units]
        at = _class_of(units)
        blocks = self._classes[at]
        del blocks[start]
        if not blocks:
            self._classes_filled &= ~(1 << at)
        return units


class RingLayout:
    """Room that is given back in the order it was taken, by one counter that the reader publishes.

    `head` is a position that only grows; the memory is used modulo its size. A reader who is done with
    everything up to some head publishes that head as `released`. When nothing is held the ring begins
    again at its start, so that light load stays within the caches and touches few pages.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes & ~(UNIT_BYTES - 1)
        self.head = 0
        self._restarted_at = 0

    def allocate(self, nbytes: int, released: int) -> int | None:
        """Offset of so many contiguous bytes; None when they are not free now."""
        size = self.nbytes
        need = (nbytes + UNIT_BYTES - 1) & ~(UNIT_BYTES - 1)
        head, tail = self.head, max(released, self._restarted_at)
        if tail == head:
            head += -head % size
            self.head = self._restarted_at = tail = head
        at = head % size
        if at + need > size:
            head += size - at
            at = 0
        if head + need - tail > size:
            return None
        self.head = head + need
        return at

    def roll_back(self, head: int) -> None:
        """Undo every allocation made since `head` was read."""
        self.head = max(head, self._restarted_at)
