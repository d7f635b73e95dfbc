"""A day of the Azure trace is read, or refused with its line and column; it is replayed at the rates that it says.

The stand-in has the published spread, mix and spikes.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from slotwise.facts.units import S
from slotwise.workload.arrivals import arrivals
from slotwise.workload.azure import (
    CALL_COLUMNS,
    DURATION_COLUMNS,
    MEMORY_COLUMNS,
    MINUTES,
    Function,
    Trace,
    Trigger,
    describe,
    read_calls,
    read_durations,
    read_memory,
    written_calls,
)
from slotwise.workload.replay import FunctionMapping, model_counts, replayed
from slotwise.workload.synthetic import SHARES, stand_in
from slotwise.workload.values import Phase, Workload, WorkloadError

HEADER = ",".join(CALL_COLUMNS)


def line(trigger: str = "http", **at: str) -> str:
    """A function called once a minute, but for the minutes that are told."""
    return ",".join(["owner", "app", "name", trigger, *(at.get(f"m{minute}", "1") for minute in range(1, 1441))])


def test_a_file_of_1440_columns_is_read_and_written_the_same() -> None:
    trace = stand_in(40, seed=2)
    lines = list(written_calls(trace))
    again = read_calls(lines, "d01.csv")
    assert again.functions == trace.functions
    assert again.source == "d01.csv"
    assert (again.counts == trace.counts).all()
    assert list(written_calls(again)) == lines
    assert lines[0].count(",") == 4 + MINUTES - 1


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], r"d01\.csv, line 1: column 1 is called '', not HashOwner"),
        (["HashOwner,HashApp"], "line 1 has 2 columns, not 1444"),
        ([HEADER.replace("Trigger", "Cause")], "line 1: column 4 is called 'Cause', not Trigger"),
        ([HEADER], "d01.csv has no functions"),
        ([HEADER, line(), "a,b,c,http,1"], "line 3 has 5 columns, not 1444"),
        ([HEADER, line(trigger="cron")], "line 2: Trigger is 'cron'; it must be one of http, timer, "),
        ([HEADER, line(m17="x")], "line 2: column 17 is 'x'; it must be a whole number"),
        ([HEADER, line(m17="")], "line 2: column 17 is ''; it must be a whole number"),
        ([HEADER, line(m1440="-1")], "line 2: column 1440 is -1; it must be from 0 to "),
        ([HEADER, line(m2=str(1 << 31))], "line 2: column 2 is 2147483648; it must be from 0 to "),
    ],
)
def test_a_bad_file_is_refused_with_its_line_and_column(lines: list[str], told: str) -> None:
    with pytest.raises(WorkloadError, match=told):
        read_calls((f"{one}\r\n" for one in lines), "d01.csv")


def test_files_of_percentiles_are_read() -> None:
    duration = ["o", "a", "f", "12.5", "7", "", "90", "1", "2", "3", "4", "5", "6", "7"]
    memory = ["o", "a", "9", "120", "1", "2", "3", "4", "5", "6", "7", "8"]
    read = read_durations([",".join(DURATION_COLUMNS), ",".join(duration)], "t.csv")
    assert (read[0].average, read[0].count, read[0].minimum, read[0].maximum) == (12.5, 7, None, 90)
    assert read[0].percentiles == (1, 2, 3, 4, 5, 6, 7)
    told = read_memory([",".join(MEMORY_COLUMNS), ",".join(memory)], "m.csv")
    assert (told[0].app, told[0].samples, told[0].average, len(told[0].percentiles)) == ("a", 9, 120, 8)
    duration[9], memory[3] = "much", "nan"
    with pytest.raises(WorkloadError, match=r"t\.csv, line 2: column percentile_Average_25 is 'much'"):
        read_durations([",".join(DURATION_COLUMNS), ",".join(duration)], "t.csv")
    with pytest.raises(WorkloadError, match=r"m\.csv, line 2: column AverageAllocatedMb is nan; it must be a finite"):
        read_memory([",".join(MEMORY_COLUMNS), ",".join(memory)], "m.csv")


def trace_of(*rows: list[int]) -> Trace:
    """Functions whose first minutes are called so often, and no more."""
    counts = np.zeros((len(rows), MINUTES), dtype=np.int32)
    for number, row in enumerate(rows):
        counts[number, : len(row)] = row
    functions = tuple(
        Function(owner="o", app="a", name=str(number), trigger=Trigger.HTTP) for number in range(len(rows))
    )
    return Trace(functions=functions, counts=counts, source="a test")


def test_a_replay_of_ten_minutes_keeps_to_counts_times_scale_within_two_percent() -> None:
    trace = read_calls(list(written_calls(stand_in(300, seed=3))), "d01.csv")
    models = [f"m{index}" for index in range(12)]
    counts = model_counts(trace, 12, mapping=FunctionMapping.SHUFFLED, seed=1)
    streams = replayed(counts, models, slo_ns=S, scale=8.0, seconds=600.0)
    asked = list(arrivals(Workload(streams=streams, phases=(), seed=1)))
    expected = trace.counts[:, :10].sum() * 8.0
    assert len(asked) == pytest.approx(expected, rel=0.02)
    minutes = Counter(arrival.at_ns // (60 * S) for arrival in asked)
    assert [minutes[minute] for minute in range(10)] == pytest.approx(
        (trace.counts[:, :10].sum(axis=0) * 8.0).tolist(), rel=0.02
    )
    by_model = Counter(arrival.model for arrival in asked)
    for model, row in zip(models, counts, strict=True):
        sum_of = row[:10].sum() * 8.0
        assert abs(by_model[model] - sum_of) <= max(0.02 * sum_of, 5 * sum_of**0.5)


def test_the_published_mapping_puts_busy_functions_together_and_the_corrected_one_does_not() -> None:
    trace = stand_in(1000)
    busy = {
        mapping: np.sort(model_counts(trace, 10, mapping=mapping, seed=1).sum(axis=1)) for mapping in FunctionMapping
    }
    published = model_counts(trace, 10, mapping=FunctionMapping.SORTED, seed=1).sum(axis=1)
    assert (np.diff(published) <= 0).all(), "the first model has the busiest functions"
    assert published[0] / published.sum() > 0.95
    assert busy[FunctionMapping.SHUFFLED][-1] / published.sum() < 0.7
    assert busy[FunctionMapping.SHUFFLED].sum() == busy[FunctionMapping.SORTED].sum() == trace.counts.sum()


def test_after_the_last_minute_comes_the_first_again() -> None:
    counts = model_counts(trace_of([60, 0, 120]), 1, mapping=FunctionMapping.SORTED, seed=1)
    (stream,) = replayed(counts, ["m"], slo_ns=S, scale=1.0, seconds=1441 * 60.0)
    assert stream.phases == (
        Phase(duration_s=60.0, scale=1.0),
        Phase(duration_s=60.0, scale=0.0),
        Phase(duration_s=60.0, scale=2.0),
        Phase(duration_s=1437 * 60.0, scale=0.0),
        Phase(duration_s=60.0, scale=1.0),
    )


def test_intervals_may_be_shorter_and_the_end_lies_within_one() -> None:
    counts = model_counts(trace_of([60, 120, 180]), 1, mapping=FunctionMapping.SORTED, seed=1)
    ramp = (Phase(duration_s=1.5, scale=1.0), Phase(duration_s=9.0, scale=10.0))
    (stream,) = replayed(counts, ["m"], slo_ns=S, scale=1.0, seconds=2.25, interval_s=1.0, ramp=ramp)
    assert [(phase.duration_s, phase.scale) for phase in stream.phases] == [
        (1.0, 1.0),
        (0.5, 2.0),
        (0.5, 20.0),
        (0.25, 30.0),
    ]


def test_functions_may_begin_at_a_minute_of_their_own() -> None:
    trace = trace_of(*([60] for _ in range(200)))
    counts = model_counts(trace, 1, mapping=FunctionMapping.SHUFFLED, seed=1, randomise=True)
    assert counts.sum() == 200 * 60
    assert (counts > 0).sum() > 150


def test_the_stand_in_has_the_published_spread_mix_and_spikes() -> None:
    told = describe(stand_in(6_000, seed=5))
    assert told.rate_per_s / told.functions == pytest.approx(9_638 / 46_000, rel=0.01)
    assert told.busiest_share > 0.985
    assert told.apps / told.functions == pytest.approx(0.32, abs=0.04)
    shares = {share.trigger: share for share in told.triggers}
    for share in SHARES:
        assert shares[share.trigger].functions == pytest.approx(share.functions, abs=0.001)
        assert shares[share.trigger].calls == pytest.approx(share.calls, abs=0.003)
    assert [spike.minutes for spike in told.spikes] == [5, 15, 60]
    assert [spike.factor for spike in told.spikes] == pytest.approx([1.08, 1.145, 1.26], abs=0.02)
    assert told.rate_max_per_s / told.rate_per_s == pytest.approx(1.32, abs=0.05)


def test_the_stand_in_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    one, same, other = stand_in(200, seed=1), stand_in(200, seed=1), stand_in(200, seed=2)
    assert (one.counts == same.counts).all()
    assert one.functions == same.functions
    assert (one.counts != other.counts).any()
    assert one.counts.sum(axis=1).min() >= 1
    assert len(stand_in(1).functions) == 1
