"""Shapes of tensors: whether one is allowed, and a number for those of a row. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

VARIABLE = -1
"""Stands in a declared shape for a dimension that may be anything."""


def fits(shape: tuple[int, ...], allowed: tuple[int, ...]) -> bool:
    """Whether a tensor may have this shape where that one is declared."""
    if len(shape) != len(allowed):
        return False
    for dimension, limit in zip(shape, allowed, strict=True):  # noqa: SIM110  # a generator costs twice as much here
        if limit not in (dimension, VARIABLE):
            return False
    return True


def form_of(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> int:
    """A number for the shapes of one row, by input.

    Not `hash`: whoever makes two forms collide spoils the batches of others.
    """
    return int.from_bytes(blake2b(repr(sorted(shapes)).encode(), digest_size=8).digest(), "little") >> 1
