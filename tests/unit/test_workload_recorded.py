"""What was recorded comes again as it was, byte for byte; a damaged record is refused with its line and column."""

from __future__ import annotations

import pytest

from slotwise.facts.types import FOREVER_NS
from slotwise.facts.units import MS, S
from slotwise.workload.arrivals import arrivals
from slotwise.workload.player import player_of
from slotwise.workload.recorded import HEADER, Recording, read_recording, written
from slotwise.workload.values import Arrival, Clients, Fixed, Phase, Stream, Workload, WorkloadError, scaled

STREAMS = (
    Stream(model="a", rate_per_s=200.0, slo_ns=10 * MS),
    Stream(model='b,"c"\n', rate_per_s=50.0, slo_ns=FOREVER_NS, rows=3, priority=1),
)
LIVE = Workload(streams=STREAMS, phases=(Phase(duration_s=5.0),), seed=4)


def test_what_is_recorded_and_replayed_and_recorded_again_is_the_same_to_the_byte() -> None:
    first = "".join(written(arrivals(LIVE)))
    recording = read_recording(first.splitlines(keepends=True), "first.csv")
    replayed = Workload(streams=(), phases=(), seed=1, recorded=recording)
    assert list(arrivals(replayed)) == list(arrivals(LIVE))
    assert "".join(written(arrivals(replayed))) == first
    assert set(recording.models) == {stream.model for stream in STREAMS}
    assert replayed.duration_s == pytest.approx(5, abs=0.1)


def test_clients_and_streams_ask_beside_a_record() -> None:
    recording = Recording([Arrival(at_ns=at * S, model="old", slo_ns=S, rows=1, priority=5) for at in range(4)])
    stream = Stream(model="new", rate_per_s=2.0, slo_ns=S, process=Fixed())
    client = Clients(models=("closed",), concurrency=1, slo_ns=S, start_within_s=1.0)
    workload = Workload(
        streams=(stream,), clients=(client,), phases=(Phase(duration_s=2.0),), seed=1, recorded=recording
    )
    assert workload.duration_s == pytest.approx(3)
    player = player_of(workload)
    asked = []
    while player.due_ns() is not None:
        asked.append(player.take().arrival)
    assert [arrival.model for arrival in asked].count("new") == 4
    assert [arrival.model for arrival in asked].count("old") == 4
    assert [arrival.model for arrival in asked].count("closed") == 1
    assert [arrival.at_ns for arrival in asked] == sorted(arrival.at_ns for arrival in asked)


def test_recorded_requests_are_not_scaled() -> None:
    recording = Recording([Arrival(at_ns=0, model="a", slo_ns=S, rows=1, priority=5)])
    workload = Workload(streams=(), phases=(), seed=1, recorded=recording)
    assert scaled(workload, 1.0) == workload
    with pytest.raises(WorkloadError, match="recorded requests have no rate to scale"):
        scaled(workload, 2.0)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], r"f\.csv, line 1: this is no record of requests; its header must be at_ns,"),
        (["at,model"], "line 1: this is no record"),
        ([HEADER, "1,a,5"], "line 2 has 3 columns, not 5"),
        ([HEADER, "0,a,5,1,5", "x,a,5,1,5"], "line 3: at_ns is 'x'; it must be a whole number"),
        ([HEADER, "-1,a,5,1,5"], "line 2: at_ns is -1; it must be from 0"),
        ([HEADER, "1,,5,1,5"], "line 2: model is empty"),
        ([HEADER, "1,a,0,1,5"], "line 2: slo_ns is 0; it must be from 1"),
        ([HEADER, "1,a,5,0,5"], "line 2: rows is 0; it must be from 1"),
        ([HEADER, "1,a,5,1,10"], "line 2: priority is 10; it must be from 1 to 9"),
        ([HEADER, "5,a,5,1,5", "4,a,5,1,5"], "line 3: at_ns is 4, and before it is 5; put them in order"),
        ([HEADER, '5,"a,5,1,5'], "line 2: "),
    ],
)
def test_a_damaged_record_is_refused_with_its_line_and_column(lines: list[str], told: str) -> None:
    with pytest.raises(WorkloadError, match=told):
        read_recording((f"{line}\n" for line in lines), "f.csv")
