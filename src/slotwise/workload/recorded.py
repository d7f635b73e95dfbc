"""Recorded requests: a compact file of who asked when, and the same again as a workload. Lines in, lines out; pure.

The file is CSV with the header of `COLUMNS`: a request a line, in order of time. Instants count from its start.
What is read is kept in columns, 25 bytes a request, and made into arrivals one by one.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import overload

from slotwise.facts.types import FOREVER_NS, PRIORITY_HIGHEST, PRIORITY_LOWEST
from slotwise.workload.values import Arrival, WorkloadError

COLUMNS = ("at_ns", "model", "slo_ns", "rows", "priority")
HEADER = ",".join(COLUMNS)
ROWS_MAX = 1 << 31
"""Of one request, as far as the file goes."""


class Recording(Sequence[Arrival]):
    """Requests in order of time; a sequence that is made as it is read, and never changed."""

    def __init__(self, arrivals: Iterable[Arrival]) -> None:
        """Raises WorkloadError where they are not in order of time."""
        self._at_ns, self._slo_ns = array("q"), array("q")
        self._rows, self._priority, self._model = array("I"), array("B"), array("I")
        self._numbers: dict[str, int] = {}
        last_ns = 0
        for arrival in arrivals:
            if arrival.at_ns < last_ns:
                raise WorkloadError(f"a request at {arrival.at_ns} ns follows one at {last_ns} ns; put them in order")
            last_ns = arrival.at_ns
            self._at_ns.append(last_ns)
            self._slo_ns.append(arrival.slo_ns)
            self._rows.append(arrival.rows)
            self._priority.append(arrival.priority)
            self._model.append(self._numbers.setdefault(arrival.model, len(self._numbers)))
        self._models = tuple(self._numbers)

    @property
    def models(self) -> tuple[str, ...]:
        """Those asked for, in the order in which they first were."""
        return self._models

    def __len__(self) -> int:
        return len(self._at_ns)

    @overload
    def __getitem__(self, index: int) -> Arrival: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Arrival]: ...
    def __getitem__(self, index: int | slice) -> Arrival | Sequence[Arrival]:
        if isinstance(index, slice):
            return Recording(self[at] for at in range(*index.indices(len(self))))
        return Arrival(
            at_ns=self._at_ns[index],
            model=self._models[self._model[index]],
            slo_ns=self._slo_ns[index],
            rows=self._rows[index],
            priority=self._priority[index],
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recording) and self._columns() == other._columns()

    def __hash__(self) -> int:
        return hash((len(self), self._models))

    def _columns(self) -> tuple[object, ...]:
        return self._at_ns, self._slo_ns, self._rows, self._priority, self._model, self._models


def written(arrivals: Iterable[Arrival]) -> Iterator[str]:
    """The lines of a record, with their line ends, the header first."""
    yield f"{HEADER}\n"
    names: dict[str, str] = {}
    for arrival in arrivals:
        name = names.get(arrival.model)
        if name is None:
            name = names[arrival.model] = _quoted(arrival.model)
        yield f"{arrival.at_ns},{name},{arrival.slo_ns},{arrival.rows},{arrival.priority}\n"


def read_recording(lines: Iterable[str], where: str) -> Recording:
    """A record from its lines. Raises WorkloadError, which names the file (`where`), the line and the column."""
    return Recording(_read(lines, where))


def _read(lines: Iterable[str], where: str) -> Iterator[Arrival]:
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            raise WorkloadError(f"{where}, line 1: this is no record of requests; its header must be {HEADER}")
        last_ns = 0
        for fields in reader:
            place = f"{where}, line {reader.line_num}"
            arrival = _arrival(fields, place)
            if arrival.at_ns < last_ns:
                raise WorkloadError(f"{place}: at_ns is {arrival.at_ns}, and before it is {last_ns}; put them in order")
            last_ns = arrival.at_ns
            yield arrival
    except csv.Error as error:
        raise WorkloadError(f"{where}, line {reader.line_num}: {error}") from error


def _arrival(fields: list[str], place: str) -> Arrival:
    if len(fields) != len(COLUMNS):
        raise WorkloadError(f"{place} has {len(fields)} columns, not {len(COLUMNS)}: {HEADER}")
    if not fields[1]:
        raise WorkloadError(f"{place}: model is empty; name one")
    return Arrival(
        at_ns=_number(fields[0], "at_ns", 0, FOREVER_NS, place),
        model=fields[1],
        slo_ns=_number(fields[2], "slo_ns", 1, FOREVER_NS, place),
        rows=_number(fields[3], "rows", 1, ROWS_MAX, place),
        priority=_number(fields[4], "priority", PRIORITY_HIGHEST, PRIORITY_LOWEST, place),
    )


def _number(text: str, column: str, least: int, most: int, place: str) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise WorkloadError(f"{place}: {column} is {text!r}; it must be a whole number") from error
    if not least <= number <= most:
        raise WorkloadError(f"{place}: {column} is {number}; it must be from {least} to {most}")
    return number


def _quoted(model: str) -> str:
    out = StringIO()
    csv.writer(out, lineterminator="").writerow([model])
    return out.getvalue()
