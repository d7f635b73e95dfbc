"""What is true of every limit, checked where limits are made: a number that is finite and not below its least."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, is_dataclass

LIMIT_MAX = 1 << 62
"""What is larger no counter of the machine can hold."""


def check_limits(limits: object, *, may_be_zero: Collection[str] = ()) -> None:
    """Raise ValueError, which names the field, for a number that no limit can be; texts are left alone."""
    assert is_dataclass(limits), "limits are made by `value`"
    for field in fields(limits):
        number = getattr(limits, field.name)
        if isinstance(number, int | float):
            is_zero_right = number == 0 and field.name in may_be_zero
            if not (is_zero_right or 0 < number <= LIMIT_MAX):
                raise ValueError(f"`{field.name}` is {number}; it must be {_least(field.name, may_be_zero)}")


def _least(name: str, may_be_zero: Collection[str]) -> str:
    return "a number of 0 or more" if name in may_be_zero else "a number above 0"
