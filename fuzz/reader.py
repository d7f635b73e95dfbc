"""A short program out of bytes: each choice takes what it needs from the front, and the end reads as zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from fuzz.mutate import NUMBERS

T = TypeVar("T")


class Reader:
    """Choices, drawn from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to draw from."""
        return self._at >= len(self._data)

    def byte(self) -> int:
        """0 to 255."""
        found = self._data[self._at] if self._at < len(self._data) else 0
        self._at += 1
        return found

    def choice(self, options: Sequence[T]) -> T:
        """One of several."""
        return options[self.byte() % len(options)]

    def count(self) -> int:
        """A number that is not negative: mostly small, sometimes odd."""
        kind = self.byte()
        if kind < 128:
            return kind
        return abs(self.choice(NUMBERS)) % (1 << 62)

    def bytes(self) -> bytes:
        """A few bytes."""
        size = self.byte()
        found = self._data[self._at : self._at + size]
        self._at += size
        return found
