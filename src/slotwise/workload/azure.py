"""The trace of Azure Functions of 2019: its three kinds of files, read into values, and what a trace is like.

Lines come in and values go out; every problem of a file is a WorkloadError that names file, line and column. The files
are public (AzurePublicDataset, CC-BY; Shahrad et al., Serverless in the Wild, ATC 2020): for each day the calls of
every function in each of 1,440 minutes, and percentiles of times and memory. `replay` makes models of functions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from slotwise.facts.value import value
from slotwise.workload.values import WorkloadError

MINUTES = 1440
CALLS_MAX = (1 << 31) - 1
"""In one minute of one function."""
SAMPLES_MAX = 1 << 62
"""In a file of percentiles."""
ID_COLUMNS = ("HashOwner", "HashApp", "HashFunction", "Trigger")
CALL_COLUMNS = (*ID_COLUMNS, *(str(minute) for minute in range(1, MINUTES + 1)))
DURATION_PERCENTILES = (0, 1, 25, 50, 75, 99, 100)
DURATION_COLUMNS = (
    *("HashOwner", "HashApp", "HashFunction", "Average", "Count", "Minimum", "Maximum"),
    *(f"percentile_Average_{part}" for part in DURATION_PERCENTILES),
)
MEMORY_PERCENTILES = (1, 5, 25, 50, 75, 95, 99, 100)
MEMORY_COLUMNS = (
    *("HashOwner", "HashApp", "SampleCount", "AverageAllocatedMb"),
    *(f"AverageAllocatedMb_pct{part}" for part in MEMORY_PERCENTILES),
)
MOST_CALLED = 0.19
"""About this share of the applications makes over 99% of all calls, as published."""
SPIKE_MINUTES = (5, 15, 60)

Counts = NDArray[np.int32]


class Trigger(Enum):
    """What calls a function."""

    HTTP = "http"
    TIMER = "timer"
    EVENT = "event"
    QUEUE = "queue"
    STORAGE = "storage"
    ORCHESTRATION = "orchestration"
    OTHERS = "others"


@value
class Function:
    """One function of a trace."""

    owner: str
    app: str
    name: str
    trigger: Trigger


@value
class Trace:
    """A day: `counts[i][m]` are the calls of `functions[i]` in minute m. `source` says where they are from."""

    functions: tuple[Function, ...]
    counts: Counts
    source: str


@value
class Durations:
    """How long a function ran, in ms, without cold starts; percentiles are those of `DURATION_PERCENTILES`.

    `minimum` and `maximum` are None where the file has none.
    """

    owner: str
    app: str
    function: str
    average: float
    count: int
    minimum: float | None
    maximum: float | None
    percentiles: tuple[float, ...]


@value
class Memory:
    """What an application's memory was, in MB; percentiles are those of `MEMORY_PERCENTILES`."""

    owner: str
    app: str
    samples: int
    average: float
    percentiles: tuple[float, ...]


@value
class TriggerShare:
    """What functions of one trigger are of all, as shares of functions and of calls."""

    trigger: Trigger
    functions: float
    calls: float


@value
class Spike:
    """Calls in minutes that are a multiple of `minutes` (and of no longer one), beside those of all other minutes."""

    minutes: int
    factor: float


@value
class Description:
    """What a trace is like. `busiest_share` are the calls of the busiest 19% of the applications, as a share of all."""

    source: str
    functions: int
    apps: int
    calls: int
    rate_per_s: float
    rate_max_per_s: float
    """Of the busiest minute."""
    busiest_share: float
    apps_for_99_percent: float
    """The share of the applications, the busiest first, that makes 99% of all calls."""
    triggers: tuple[TriggerShare, ...]
    spikes: tuple[Spike, ...]


def read_calls(lines: Iterable[str], where: str) -> Trace:
    """A day's file of calls by minute, whose functions stay in its order. Raises WorkloadError."""
    functions: list[Function] = []
    counts = bytearray()
    for line, place in _lines(lines, CALL_COLUMNS, where):
        *ids, calls = line.split(",", len(ID_COLUMNS))
        row = _calls(calls) if len(ids) == len(ID_COLUMNS) else None
        if row is None:
            row = np.array(_checked_calls(line.split(","), place), dtype=np.int32)
        functions.append(_function(ids, place))
        counts += row.tobytes()
    if not functions:
        raise WorkloadError(f"{where} has no functions; each line after the header is one")
    return Trace(
        functions=tuple(functions),
        counts=np.frombuffer(counts, dtype=np.int32).reshape(len(functions), MINUTES),
        source=where,
    )


def written_calls(trace: Trace) -> Iterator[str]:
    """The lines of a file of calls by minute, with their line ends."""
    yield f"{','.join(CALL_COLUMNS)}\n"
    for function, row in zip(trace.functions, trace.counts, strict=True):
        calls = ",".join(map(str, row.tolist()))
        yield f"{function.owner},{function.app},{function.name},{function.trigger.value},{calls}\n"


def read_durations(lines: Iterable[str], where: str) -> tuple[Durations, ...]:
    """A day's file of durations. Raises WorkloadError."""
    return tuple(
        Durations(
            owner=fields[0],
            app=fields[1],
            function=fields[2],
            average=_number(fields[3], "Average", place),
            count=_count(fields[4], "Count", place, SAMPLES_MAX),
            minimum=_number(fields[5], "Minimum", place) if fields[5] else None,
            maximum=_number(fields[6], "Maximum", place) if fields[6] else None,
            percentiles=_numbers(fields[7:], DURATION_COLUMNS[7:], place),
        )
        for fields, place in _rows(lines, DURATION_COLUMNS, where)
    )


def read_memory(lines: Iterable[str], where: str) -> tuple[Memory, ...]:
    """A day's file of memory. Raises WorkloadError."""
    return tuple(
        Memory(
            owner=fields[0],
            app=fields[1],
            samples=_count(fields[2], "SampleCount", place, SAMPLES_MAX),
            average=_number(fields[3], "AverageAllocatedMb", place),
            percentiles=_numbers(fields[4:], MEMORY_COLUMNS[4:], place),
        )
        for fields, place in _rows(lines, MEMORY_COLUMNS, where)
    )


def describe(trace: Trace) -> Description:
    """What a trace is like: how much, how uneven, called by what, and how it beats."""
    totals = trace.counts.sum(axis=1, dtype=np.int64)
    minutes = trace.counts.sum(axis=0, dtype=np.int64)
    by_app: Counter[str] = Counter()
    for function, total in zip(trace.functions, totals.tolist(), strict=True):
        by_app[function.app] += total
    calls = int(totals.sum())
    shares = np.cumsum(sorted(by_app.values(), reverse=True)) / max(1, calls)
    busiest = max(1, round(MOST_CALLED * len(by_app)))
    return Description(
        source=trace.source,
        functions=len(trace.functions),
        apps=len(by_app),
        calls=calls,
        rate_per_s=calls / (MINUTES * 60),
        rate_max_per_s=int(minutes.max()) / 60,
        busiest_share=float(shares[busiest - 1]),
        apps_for_99_percent=float(np.searchsorted(shares, 0.99) + 1) / len(by_app),
        triggers=_trigger_shares(trace.functions, totals),
        spikes=_spikes(minutes),
    )


def _trigger_shares(functions: Sequence[Function], totals: NDArray[np.int64]) -> tuple[TriggerShare, ...]:
    kinds = [function.trigger for function in functions]
    counted = Counter(kinds)
    calls: Counter[Trigger] = Counter()
    for kind, total in zip(kinds, totals.tolist(), strict=True):
        calls[kind] += total
    every = max(1, sum(calls.values()))
    return tuple(
        TriggerShare(trigger=kind, functions=counted[kind] / len(kinds), calls=calls[kind] / every) for kind in Trigger
    )


def _spikes(minutes: NDArray[np.int64]) -> tuple[Spike, ...]:
    instants = np.arange(MINUTES)
    plain = float(minutes[instants % SPIKE_MINUTES[0] != 0].mean())
    spikes = []
    for place, every in enumerate(SPIKE_MINUTES):
        on = instants % every == 0
        for longer in SPIKE_MINUTES[place + 1 :]:
            on &= instants % longer != 0
        spikes.append(Spike(minutes=every, factor=float(minutes[on].mean()) / plain if plain else 0.0))
    return tuple(spikes)


def _rows(lines: Iterable[str], columns: Sequence[str], where: str) -> Iterator[tuple[list[str], str]]:
    """The fields of each line after the header, and the line's place in words."""
    for line, place in _lines(lines, columns, where):
        fields = line.split(",")
        if len(fields) != len(columns):
            raise WorkloadError(f"{place} has {len(fields)} columns, not {len(columns)}")
        yield fields, place


def _lines(lines: Iterable[str], columns: Sequence[str], where: str) -> Iterator[tuple[str, str]]:
    """Each line after the header, which is checked, and its place in words."""
    numbered = enumerate(lines, start=1)
    _, header = next(numbered, (1, ""))
    _check_header(header.rstrip("\r\n").split(","), columns, where)
    for number, line in numbered:
        yield line.rstrip("\r\n"), f"{where}, line {number}"


def _check_header(header: Sequence[str], columns: Sequence[str], where: str) -> None:
    for place, (found, expected) in enumerate(zip(header, columns, strict=False), start=1):
        if found != expected:
            raise WorkloadError(f"{where}, line 1: column {place} is called {found!r}, not {expected}")
    if len(header) != len(columns):
        raise WorkloadError(f"{where}, line 1 has {len(header)} columns, not {len(columns)}")


def _function(fields: Sequence[str], place: str) -> Function:
    try:
        trigger = Trigger(fields[3])
    except ValueError as error:
        known = ", ".join(one.value for one in Trigger)
        raise WorkloadError(f"{place}: Trigger is {fields[3]!r}; it must be one of {known}") from error
    return Function(owner=fields[0], app=fields[1], name=fields[2], trigger=trigger)


def _calls(text: str) -> Counts | None:
    """The counts of a line, read fast; None where something is wrong with them."""
    try:
        counts = np.fromstring(text, dtype=np.int64, sep=",")
    except ValueError:
        return None
    if len(counts) != MINUTES or counts.min() < 0 or counts.max() > CALLS_MAX:
        return None
    return counts.astype(np.int32)


def _checked_calls(fields: Sequence[str], place: str) -> list[int]:
    """The counts of a line, read one by one, so that an error names the column."""
    if len(fields) != len(CALL_COLUMNS):
        raise WorkloadError(f"{place} has {len(fields)} columns, not {len(CALL_COLUMNS)}")
    return [_count(text, str(minute), place) for minute, text in enumerate(fields[len(ID_COLUMNS) :], start=1)]


def _count(text: str, column: str, place: str, most: int = CALLS_MAX) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise WorkloadError(f"{place}: column {column} is {text!r}; it must be a whole number") from error
    if not 0 <= number <= most:
        raise WorkloadError(f"{place}: column {column} is {number}; it must be from 0 to {most}")
    return number


def _numbers(fields: Sequence[str], columns: Sequence[str], place: str) -> tuple[float, ...]:
    return tuple(_number(text, column, place) for text, column in zip(fields, columns, strict=True))


def _number(text: str, column: str, place: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise WorkloadError(f"{place}: column {column} is {text!r}; it must be a number") from error
    if not math.isfinite(number):
        raise WorkloadError(f"{place}: column {column} is {text}; it must be a finite number")
    return number
