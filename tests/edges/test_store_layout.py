"""The books of shared memory: nothing overlaps, nothing is lost, and neighbours merge."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotwise.edges.store.files import SharedArena
from slotwise.edges.store.layout import UNIT_BYTES, Layout, RingLayout

SIZE = 1 << 20


def test_regions_are_aligned_and_do_not_overlap() -> None:
    layout = Layout(SIZE)
    source = random.Random(1)
    held: dict[int, int] = {}
    for _ in range(5000):
        if held and source.random() < 0.5:
            region = source.choice(list(held))
            layout.release(region)
            del held[region]
        else:
            nbytes = source.choice((1, 40, 64, 65, 700, 5000, 60_000))
            region = layout.allocate(nbytes)
            if region is None:
                continue
            assert region % UNIT_BYTES == 0
            assert all(region + nbytes <= other or other + size <= region for other, size in held.items())
            held[region] = nbytes
    layout.check()
    for region in held:
        layout.release(region)
    layout.check()
    assert layout.held_bytes == layout.regions == 0


def test_what_was_given_back_merges_into_one_block_again() -> None:
    layout = Layout(SIZE)
    regions = [layout.allocate(SIZE // 16) for _ in range(16)]
    assert layout.allocate(1) is None
    for region in regions[::2] + regions[1::2]:
        assert region is not None
        layout.release(region)
    assert layout.allocate(SIZE) == 0


def test_a_block_of_just_the_size_is_found_among_smaller_ones_of_its_class() -> None:
    layout = Layout(64 * UNIT_BYTES)
    small, wall, fitting, _end = (layout.allocate(units * UNIT_BYTES) for units in (33, 1, 24, 6))
    assert small is not None
    assert fitting is not None
    assert wall is not None
    layout.release(fitting)
    layout.release(small)
    assert layout.allocate(33 * UNIT_BYTES) == small
    assert layout.allocate(24 * UNIT_BYTES) == fitting


def test_a_region_is_free_only_after_its_last_release() -> None:
    layout = Layout(SIZE)
    region = layout.allocate(SIZE)
    assert region == 0
    layout.keep(region)
    layout.release(region)
    assert layout.allocate(1) is None
    layout.release(region)
    assert layout.allocate(SIZE) == 0


def test_releasing_what_is_not_held_is_our_bug_and_crashes() -> None:
    layout = Layout(SIZE)
    with pytest.raises(KeyError):
        layout.release(0)
    with pytest.raises(KeyError):
        layout.keep(0)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40_000)), max_size=200))
def test_the_books_balance_after_any_sequence(steps: list[tuple[bool, int]]) -> None:
    layout = Layout(256 * 1024)
    held: list[int] = []
    for is_release, number in steps:
        if is_release and held:
            layout.release(held.pop(number % len(held)))
        else:
            region = layout.allocate(number)
            if region is not None:
                held.append(region)
        layout.check()
    assert layout.regions == len(held)


def test_room_of_a_ring_comes_back_in_order() -> None:
    ring = RingLayout(1024)
    first, second = ring.allocate(400, 0), ring.allocate(400, 0)
    assert (first, second) == (0, 448)
    assert ring.allocate(400, 0) is None
    assert ring.allocate(400, 448) == 0


def test_a_ring_that_holds_nothing_begins_again_at_its_start() -> None:
    ring = RingLayout(1024)
    for _ in range(10):
        assert ring.allocate(300, ring.head) == 0


def test_an_allocation_rolled_back_leaves_the_room_as_before() -> None:
    ring = RingLayout(1024)
    ring.allocate(500, 0)
    mark = ring.head
    assert ring.allocate(512, 0) == 512
    ring.roll_back(mark)
    assert ring.allocate(512, 0) == 512


@given(st.lists(st.tuples(st.integers(1, 1100), st.booleans()), max_size=100))
def test_stretches_of_a_ring_that_are_held_never_overlap(steps: list[tuple[int, bool]]) -> None:
    ring = RingLayout(1024)
    held: list[tuple[int, int, int]] = []
    released = 0
    for nbytes, is_release in steps:
        if is_release and held:
            released = held.pop(0)[2]
        at = ring.allocate(nbytes, released)
        if at is not None:
            assert at + nbytes <= 1024
            assert all(at + nbytes <= other or other + size <= at for other, size, _ in held)
            held.append((at, nbytes, ring.head))
        elif not held:
            assert nbytes > 1024


def test_an_arena_hands_out_writable_memory_and_gives_everything_back() -> None:
    arena = SharedArena(SIZE)
    region = arena.allocate(100)
    assert region is not None
    arena.view(region, 100)[:] = bytes(range(100))
    assert bytes(arena.view(region + 10, 3)) == bytes([10, 11, 12])
    arena.keep(region)
    arena.release(region)
    assert arena.held_bytes == 128
    arena.release(region)
    assert arena.held_bytes == 0
    arena.check()
    arena.close()


def test_an_arena_s_size_cannot_be_changed_under_it() -> None:
    arena = SharedArena(SIZE)
    with pytest.raises(PermissionError):
        os.ftruncate(arena.fd, 0)
    arena.close()
