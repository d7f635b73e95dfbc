"""The one decorator that makes a value.

A value is keyword-only, slotted and never changed after birth. The type checker holds us to the last
part; at run time the class is not frozen, because a frozen dataclass takes two to three times as long to
make and the hot path makes several a request (`benchmarks/values.py` prints both).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, dataclass_transform

if TYPE_CHECKING:
    T = TypeVar("T")

    @dataclass_transform(frozen_default=True, kw_only_default=True)
    def value(cls: type[T]) -> type[T]:
        """Make `cls` a keyword-only, slotted, unchangeable dataclass."""

else:
    value = dataclass(slots=True, kw_only=True, unsafe_hash=True)
