"""Slices of a processor as sets of cores, and binding the calling process to one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise


def available() -> tuple[int, ...]:
    """The cores that this process may use, ascending."""
    return tuple(sorted(os.sched_getaffinity(0)))


def split(cores: Sequence[int], slices: int) -> list[tuple[int, ...]]:
    """So many slices of nearly equal size. With more slices than cores, slices share a core each."""
    assert cores, "there must be cores to split"
    assert slices > 0, "there must be slices to make"
    if slices >= len(cores):
        return [(cores[index % len(cores)],) for index in range(slices)]
    cuts = [len(cores) * index // slices for index in range(slices + 1)]
    return [tuple(cores[a:b]) for a, b in pairwise(cuts)]


def enter(cores: Sequence[int], nice: int) -> None:
    """Bind this process, and every thread it makes from now on, to the cores and lower its priority by `nice`.

    No cores means that it stays where it is. Raises OSError when a core does not exist or is not ours.
    """
    if cores:
        os.sched_setaffinity(0, cores)
    os.nice(nice)
