"""The files of the logs: they stay within their bounds, hold whole rows, and what a disk does not take is counted."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slotwise.edges.logs.files import has_parquet
from slotwise.edges.logs.refusals import TEXT_CHARS_MAX, Refusals, plain
from slotwise.edges.logs.rows import ActionRow, RefusedRow, RequestRow
from slotwise.edges.logs.settings import Logs
from slotwise.edges.logs.writer import Log, ThreadedLogs
from slotwise.engine.ports import Refusal
from slotwise.facts.actions import Reply
from slotwise.facts.events import Arrived
from slotwise.facts.types import Outcome, Request
from tests.conftest import WaitUntil


def row(number: int) -> RequestRow:
    return RequestRow(number, number, "in_time", "none", 'odd,"name/1', 10.0, 5, None, 1, 1, 1, 0)


def log_in(folder: Path, **limits: int) -> Log:
    return Log("requests", RequestRow, Logs(folder=str(folder), **limits))  # type: ignore[arg-type]  # limits only


def read(folder: Path) -> list[dict[str, str]]:
    return [
        found
        for path in sorted(folder.glob("requests-*.csv"))
        for found in csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    ]


def test_rows_come_back_as_they_went_in_under_their_columns(tmp_path: Path) -> None:
    log = log_in(tmp_path / "new" / "folder")
    for number in range(100):
        log.put(row(number))
    log.close()
    found = read(tmp_path / "new" / "folder")
    assert [int(one["request_id"]) for one in found] == list(range(100))
    assert found[7] == dict(
        zip(
            RequestRow._fields,
            ("7", "7", "in_time", "none", 'odd,"name/1', "10.0", "5", "", "1", "1", "1", "0"),
            strict=True,
        )
    )


def test_files_end_at_their_size_and_only_so_many_are_kept(tmp_path: Path) -> None:
    log = log_in(tmp_path, bytes_max=2_000, files_max=3)
    for number in range(1_000):
        log.put(row(number))
    log.close()
    files = sorted(tmp_path.glob("*.csv"))
    assert len(files) == 3
    assert all(path.stat().st_size < 2_000 + 32 * 60 for path in files)
    assert [int(one["t"]) for one in read(tmp_path)] == list(range(1_000))[-len(read(tmp_path)) :]
    assert log.statistics().rows == 1_000


def test_a_new_run_goes_on_after_the_files_of_the_one_before(tmp_path: Path) -> None:
    for number in range(3):
        log = log_in(tmp_path, files_max=2)
        log.put(row(number))
        log.close()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["requests-000002.csv", "requests-000003.csv"]
    assert [one["t"] for one in read(tmp_path)] == ["1", "2"]


def test_rows_beyond_those_that_may_wait_are_lost_and_counted(tmp_path: Path) -> None:
    log = log_in(tmp_path, rows_max=10)
    for number in range(15):
        log.put(row(number))
    log.close()
    use = log.statistics()
    assert (use.rows, use.rows_behind, use.rows_unwritable) == (10, 5, 0)
    assert len(read(tmp_path)) == 10


def test_a_folder_that_goes_away_costs_rows_and_nothing_else_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    log = log_in(folder, bytes_max=1)
    folder.rmdir()
    for number in range(100):
        log.put(row(number))
    log.write()
    assert (log.statistics().rows, log.statistics().rows_unwritable) == (0, 100)
    folder.mkdir()
    log.put(row(100))
    log.close()
    assert (log.statistics().rows, [one["t"] for one in read(folder)]) == (1, ["100"])


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0

    def now_ns(self) -> int:
        return self.now


def test_refusals_are_counted_in_full_and_become_rows_in_part() -> None:
    clock, rows = Hands(), list[RefusedRow]()
    refusals = Refusals(clock, per_s=2.0, burst=3, put=rows.append)  # type: ignore[arg-type]  # it only reads it
    refusal = Refusal(door="http", status=404, reason="none", message="no", peer="here:1", target="/x")
    for _ in range(10):
        refusals.note(refusal)
    clock.now += 1_000_000_000
    for count in (1, 4, 1):
        refusals.note(replace(refusal, count=count))
    assert refusals.counts == {("http", 404, "none"): 16}
    assert [row.left_out for row in rows] == [0, 0, 0, 7, 3]


@pytest.mark.parametrize("text", ["a\r\nb", "=1+1", "@x", "\x1b[31m", "\u202e", "\ud800", "x" * 10_000, "\0"])
def test_a_text_in_a_row_is_plain_and_short(text: str) -> None:
    found = plain(text)
    assert found.isascii()
    assert found.isprintable()
    assert len(found) <= TEXT_CHARS_MAX + 1
    assert not found.startswith(("=", "+", "-", "@"))


FULL = """
import json, resource, sys
from slotwise.edges.logs.rows import RequestRow
from slotwise.edges.logs.settings import Logs
from slotwise.edges.logs.writer import Log

resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
log = Log("requests", RequestRow, Logs(folder=sys.argv[1]))
for number in range(200):
    log.put(RequestRow(number, number, "in_time", "none", "m/1", 10.0, 5, None, 1, 1, 1, 0))
    log.write()
log.close()
use = log.statistics()
print(json.dumps([use.rows, use.rows_unwritable]))
"""


def test_a_file_that_may_not_grow_keeps_whole_rows_and_the_rest_is_counted(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    written, lost = json.loads(done.stdout)
    found = read(tmp_path)
    assert (len(found), written + lost) == (written, 200)
    assert lost > 0
    assert all(one["is_coldstart"] == "0" for one in found)


def test_a_thread_writes_what_is_recorded_without_being_asked(tmp_path: Path, wait_until: WaitUntil) -> None:
    logs = ThreadedLogs(Logs(folder=str(tmp_path), write_s=0.01))
    request = Request(id=1, model="m/1", arrival_ns=10, deadline_ns=100)
    logs.record(10, [Arrived(request=request)], [Reply(request_id=1, outcome=Outcome.REFUSED)])
    wait_until(lambda: logs.statistics()[0].rows == 1)
    assert read(tmp_path)[0]["result"] == "refused"
    logs.close()
    logs.close()


def test_what_has_no_request_that_is_known_makes_no_row(tmp_path: Path) -> None:
    logs = ThreadedLogs(Logs(folder=str(tmp_path)))
    logs.record(10, [], [Reply(request_id=1, outcome=Outcome.FAILED)])
    logs.close()
    assert sum(use.rows for use in logs.statistics()) == 0


@pytest.mark.parametrize("name", ["bytes_max", "files_max", "rows_max", "write_s", "close_s_max"])
def test_a_limit_of_none_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Logs(**{name: 0})  # type: ignore[arg-type]  # one limit at a time


def test_parquet_has_the_rows_of_csv_with_their_types(tmp_path: Path) -> None:
    if not has_parquet():
        pytest.skip("pyarrow is not installed")
    from pyarrow import parquet

    log = Log("requests", RequestRow, Logs(folder=str(tmp_path), format="parquet"))
    for number in range(10_000):
        log.put(row(number))
    log.close()
    table = parquet.read_table(tmp_path / "requests-000001.parquet")
    assert table.num_rows == 10_000
    assert table.to_pylist()[7] == row(7)._asdict()
    assert [str(field.type) for field in table.schema][:6] == ["int64", "int64", "string", "string", "string", "double"]
    assert len(ActionRow._fields) == 23
