"""Figures: printed as tables that can stand in a document, and kept as JSON lines beside the machine they came from."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

from slotwise.laboratory.machine import Machine, describe, machine

RESULTS = Path(__file__).resolve().parent.parent / "results"
Figure = str | int | float | None


class Line(msgspec.Struct, frozen=True):
    """One run of a benchmark."""

    benchmark: str
    is_quick: bool
    machine: Machine
    figures: list[dict[str, Figure]]


class Report:
    """Collects rows, then prints and keeps them. Made before the work, since it notes the load of others."""

    def __init__(self, benchmark: str, *, is_quick: bool) -> None:
        self._benchmark = benchmark
        self._is_quick = is_quick
        self._machine = machine()
        self._rows: list[dict[str, Figure]] = []
        print(f"{benchmark}: {describe(self._machine)}\n", flush=True)

    def add(self, **figures: Figure) -> None:
        """One row. All rows between two tables have the same columns."""
        self._rows.append(figures)

    def print_table(self, title: str, first: int = 0) -> None:
        """The rows from `first` on, as a table in Markdown."""
        rows = self._rows[first:]
        print(f"{title}\n\n{table(rows)}\n", flush=True)

    def __len__(self) -> int:
        return len(self._rows)

    def keep(self) -> None:
        """Append everything to this benchmark's file of results."""
        line = Line(self._benchmark, self._is_quick, self._machine, self._rows)
        RESULTS.mkdir(exist_ok=True)
        with (RESULTS / f"{self._benchmark}.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")


def is_quick(about: str | None) -> bool:
    """Read the one option that every benchmark has."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for a first look; figures are rough")
    return bool(parser.parse_args().quick)


def table(rows: Sequence[dict[str, Figure]]) -> str:
    """Rows in Markdown, columns aligned."""
    heads = list(rows[0]) if rows else []
    cells = [[head.replace("_", " ") for head in heads], *([_shown(row[head]) for head in heads] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def median(figures: Sequence[float]) -> float:
    """The middle one, rounded to three digits that mean something."""
    return float(f"{statistics.median(figures):.3g}")


def _shown(figure: Figure) -> str:
    if figure is None:
        return "-"
    return f"{figure:,.6g}" if isinstance(figure, int | float) else figure
