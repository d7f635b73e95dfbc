"""A log as numbered files in a folder: the newest grows, the oldest are deleted. CSV, or Parquet with pyarrow.

A file of either kind takes rows, says its size, and can be given up when the disk fails it. A CSV file never holds
half a row; a Parquet file can be read once it is closed, and not before.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, get_args, get_type_hints

from slotwise.edges.logs.rows import ActionRow, RefusedRow, RequestRow

Row = RequestRow | ActionRow | RefusedRow
GROUP_ROWS = 8192
"""Of a Parquet file, written at once."""


class LogFile(Protocol):
    """One file of a log. Everything but the making raises OSError when the disk does."""

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows."""

    def nbytes(self) -> int:
        """How long it is by now."""

    def close(self) -> None:
        """It is complete."""

    def give_up(self) -> int:
        """Close it after an error; how many rows that were written can no longer be read."""


class CsvFile:
    """Rows as text, under a line with the columns' names."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self._columns = columns
        self._file = path.open("xb", buffering=0)
        self._nbytes = 0

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows, all of them or none."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self._nbytes:
            writer.writerow(self._columns)
        writer.writerows(rows)
        data = memoryview(text.getvalue().encode())
        done = 0
        while done < len(data):
            done += self._file.write(data[done:])
        self._nbytes += done

    def nbytes(self) -> int:
        """How long it is by now."""
        return self._nbytes

    def close(self) -> None:
        """It is complete."""
        self._file.close()

    def give_up(self) -> int:
        """Cut off what was written in part; nothing that was written in full is lost."""
        try:
            self._file.truncate(self._nbytes)
        finally:
            self._file.close()
            if not self._nbytes:
                self._path.unlink(missing_ok=True)
        return 0


class ParquetFile:
    """Rows in groups, by column."""

    def __init__(self, path: Path, kind: type[Row]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._arrow = pa
        self._path = path
        self._schema = pa.schema([(name, _ARROW_TYPES[plain]) for name, plain in _plain_types(kind).items()])
        self._file = path.open("xb")
        self._writer = parquet.ParquetWriter(self._file, self._schema)
        self._group: list[Row] = []
        self._taken = 0

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows; they are gathered for a group first."""
        self._group.extend(rows)
        if len(self._group) >= GROUP_ROWS:
            self._write_group()
        self._taken += len(rows)

    def nbytes(self) -> int:
        """How long it is by now, without the group that is being gathered."""
        return self._file.tell()

    def close(self) -> None:
        """Write what is left, and the end without which nothing can be read."""
        self._write_group()
        self._writer.close()
        self._file.close()

    def give_up(self) -> int:
        """Without its end the file is of no use: delete it."""
        self._path.unlink(missing_ok=True)
        with suppress(OSError):  # what is still in its buffer goes with it
            self._file.close()
        return self._taken

    def _write_group(self) -> None:
        columns = list(zip(*self._group, strict=True)) or [()] * len(self._schema)
        arrays = [self._arrow.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(self._arrow.table(arrays, schema=self._schema))
        self._group = []


class LogFolder:
    """The files of one log: `NAME-000001.csv` and on, of which so many are kept. Those of earlier runs count."""

    def __init__(self, folder: Path, name: str, kind: type[Row], *, ending: str, files_max: int) -> None:
        """Makes the folder. Raises OSError when nothing can be written there."""
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{name}.probe"
        probe.touch()
        probe.unlink()
        self._folder = folder
        self._name = name
        self._kind = kind
        self._ending = ending
        self._files_max = files_max

    def begin(self) -> LogFile:
        """The next file, in the place of the oldest if there are too many. Raises OSError."""
        numbers = self._numbers()
        for number in numbers[: max(0, len(numbers) - self._files_max + 1)]:
            self._path(number).unlink(missing_ok=True)
        path = self._path(numbers[-1] + 1 if numbers else 1)
        return ParquetFile(path, self._kind) if self._ending == "parquet" else CsvFile(path, self._kind._fields)

    def _numbers(self) -> list[int]:
        start = f"{self._name}-"
        stems = [path.stem.removeprefix(start) for path in self._folder.glob(f"{start}*.{self._ending}")]
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:06}.{self._ending}"


def has_parquet() -> bool:
    """Whether pyarrow is here."""
    return find_spec("pyarrow") is not None


_ARROW_TYPES = {int: "int64", float: "float64", str: "string"}


def _plain_types(kind: type[Row]) -> dict[str, type]:
    """The type of each column, whether its fields may be empty or not."""
    return {name: (get_args(said) or (said,))[0] for name, said in get_type_hints(kind).items()}
