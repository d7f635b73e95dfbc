"""What finished cases came to, a line each in a file, so that a run that was cut short goes on where it was.

A line has a case's digest with its rows: rows whose ground has changed since are stale, and as good as none. A line
that is no whole one, as a crash leaves it, is none either.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

Row = dict[str, float | int | str | bool | None]
"""A row as it is kept."""


class Kept(msgspec.Struct, frozen=True):
    """A case that has been run. `seconds` is what it took of wall time."""

    case: str
    policy: str
    digest: str
    seconds: float
    rows: list[Row]


def read_kept(file: Path, digests: Mapping[str, str]) -> dict[str, Kept]:
    """The cases in a file whose rows are those of today's `digests`, by id."""
    if not file.exists():
        return {}
    lines = (_decoded(line) for line in file.read_bytes().splitlines())
    return {kept.case: kept for kept in lines if kept is not None and digests.get(kept.case) == kept.digest}


def write_kept(file: Path, cases: Iterable[Kept]) -> None:
    """Have a file hold these and no others; it is replaced at once, or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".new")
    beside.write_bytes(b"".join(msgspec.json.encode(kept) + b"\n" for kept in cases))
    beside.replace(file)


def append_kept(file: Path, kept: Kept) -> None:
    """Add a case that has just finished."""
    with file.open("ab") as out:
        out.write(msgspec.json.encode(kept) + b"\n")
        out.flush()
        os.fsync(out.fileno())


def _decoded(line: bytes) -> Kept | None:
    try:
        return msgspec.json.decode(line, type=Kept)
    except msgspec.DecodeError:
        return None  # it was cut short, and its case is run again
