"""What a person sees of a live server adds up: its logs, the story of a request, and the view of `slotwise top`."""

from __future__ import annotations

import asyncio
import csv
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from slotwise.client import ClientError, HttpClient
from slotwise.explain.journal import explanations
from tests.conftest import WaitUntil
from tests.live.systems import put_emulated, serving

pytestmark = pytest.mark.live

INPUT = {"x": np.ones((1, 4), np.float32)}
COMMAND = [sys.executable, "-m", "slotwise.cli"]


def slotwise(*words: object) -> subprocess.CompletedProcess[str]:
    wide = {**os.environ, "COLUMNS": "300"}
    command = [*COMMAND, *map(str, words)]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False, env=wide
    )


def read(folder: Path, name: str) -> list[dict[str, str]]:
    paths = sorted(folder.glob(f"{name}-*.csv"))
    return [row for path in paths for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]


async def crowd(client: HttpClient, requests: int) -> Counter[str]:
    """So many at once, a third of them without a chance; how each ended."""

    async def one(number: int) -> str:
        try:
            await client.infer("quick", INPUT, timeout_us=100 if number % 3 == 0 else 200_000)
        except ClientError as error:
            return error.reason
        return "answered"

    return Counter(await asyncio.gather(*(one(number) for number in range(requests))))


def test_the_logs_of_a_live_server_reconcile_with_each_other_its_statistics_and_its_clients(tmp_path: Path) -> None:
    put_emulated(tmp_path / "models", "quick", run_ms=2)
    logs = tmp_path / "logs"

    async def live() -> tuple[Counter[str], dict[tuple[str, str], int]]:
        async with serving(tmp_path / "models", logs={"folder": str(logs), "write_s": 0.01}) as system:
            async with HttpClient("127.0.0.1", system.http_port, 60) as client:
                seen = await crowd(client, 60)
            counted = system.statistics.model("quick/1").outcomes
            return seen, {(one.outcome, one.reason): one.count for one in counted}

    seen, counted = asyncio.run(live())
    requests, actions = read(logs, "requests"), read(logs, "actions")
    assert sum(seen.values()) == 60
    assert Counter((row["result"], row["reason"]) for row in requests) == counted
    assert sum(row["result"] == "in_time" for row in requests) == seen["answered"] > 0
    assert sum(int(row["requests_in_time"]) for row in actions) == seen["answered"]
    assert {int(row["deadline"]) for row in requests} == {100_000, 200_000_000}
    assert all(int(row["worker_exec_duration"]) >= 2_000_000 for row in actions if row["action_type"] == "2")


def test_the_number_that_a_client_is_told_finds_the_request_in_the_journal(tmp_path: Path) -> None:
    put_emulated(tmp_path / "models", "quick", run_ms=2)
    journal = tmp_path / "journal"

    async def live() -> int:
        async with (
            serving(tmp_path / "models", journal=journal) as system,
            HttpClient("127.0.0.1", system.http_port) as client,
        ):
            await client.infer("quick", INPUT)
            timing = (await client.infer("quick", INPUT, has_timing=True)).timing
            assert timing is not None
            assert timing.request is not None
            return timing.request

    number = asyncio.run(live())
    [told] = explanations(journal, request=number)
    assert (told.outcome, told.model, len(told.batches)) == ("in_time", "quick/1", 1)
    report = tmp_path / "report.json"
    done = slotwise("explain", number, "--journal", journal, "--json", report)
    assert done.returncode == 0, done.stderr
    assert f"request {number}: quick/1, 1 row" in done.stdout
    assert "why: answered" in done.stdout
    assert f'"request": {number}' in report.read_text()


def test_explain_tells_wrong_input_in_a_line(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_bytes(b'{"journal": 1, "policy": "fifo"}\n')
    noise = tmp_path / "noise"
    noise.write_bytes(b"hello\n")
    for words, complaint in (
        (["explain", 7, "--journal", journal], "has no request 7"),
        (["explain", 7, "--journal", noise], "line 1"),
        (["explain", 7, "--journal", tmp_path / "nowhere"], "No such file"),
        (["explain", "--journal", journal], "name the number of one request"),
    ):
        done = slotwise(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert complaint in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_top_shows_goodput_and_misses_by_reason_of_a_running_server(tmp_path: Path) -> None:
    put_emulated(tmp_path / "models", "quick", run_ms=2)

    async def live() -> subprocess.CompletedProcess[str]:
        async with serving(tmp_path / "models") as system:
            async with HttpClient("127.0.0.1", system.http_port) as client:
                await client.infer("quick", INPUT, timeout_us=10_000_000)
                with pytest.raises(ClientError):
                    await client.infer("quick", INPUT, timeout_us=10)
                with pytest.raises(ClientError):
                    await client.infer("quick", INPUT, timeout_us=10)
            return await asyncio.to_thread(slotwise, "top", system.url(), "--once")

    done = asyncio.run(live())
    assert done.returncode == 0, done.stderr
    rows = {cells[0].strip(): [cell.strip() for cell in cells] for cells in map(cells_of, done.stdout.splitlines())}
    assert "(33.3% in time)" in done.stdout
    assert rows["refused"][:3] == ["refused", "infeasible", "2"]
    assert rows["quick/1"][3] == "33.3%"
    assert rows["quick/1"][7:] == ["2", "0"]
    executors = [row for name, row in rows.items() if name.startswith("core")]
    assert executors
    assert all((row[1], row[-1]) == ("up", "quick/1") for row in executors)


def cells_of(line: str) -> list[str]:
    """The cells of a line of a table; a line that is none is one cell."""
    return line.strip("│").split("│")


def test_top_says_in_a_line_that_there_is_no_server_or_no_such_url() -> None:
    for url, code, complaint in (("127.0.0.1:9", 1, "no Slotwise server at"), ("ftp://here", 2, "is no URL")):
        done = slotwise("top", url, "--once")
        assert (done.returncode, done.stdout) == (code, "")
        assert complaint in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_top_lives_through_a_restart_of_its_server_and_ends_cleanly_at_ctrl_c(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    put_emulated(tmp_path / "models", "quick", run_ms=2)

    async def live() -> tuple[int, bytes]:
        async with serving(tmp_path / "models") as first:
            port = first.http_port
            watcher = Watcher(f"127.0.0.1:{port}", wait_until)
            watchers.append(watcher)
            await asyncio.to_thread(wait_until, lambda: b"over the last" in watcher.read())
        await asyncio.to_thread(wait_until, lambda: b"waiting for it" in watcher.read())
        seen = len(watcher.read())
        async with serving(tmp_path / "models", http_port=port):
            await asyncio.to_thread(wait_until, lambda: b"over the last" in watcher.read()[seen:])
        return watcher.interrupt(), watcher.read()

    watchers: list[Watcher] = []
    try:
        code, shown = asyncio.run(live())
    finally:
        for watcher in watchers:
            watcher.close()
    assert code == 0
    assert b"Traceback" not in shown


class Watcher:
    """`slotwise top` in a terminal of its own."""

    def __init__(self, url: str, wait_until: WaitUntil) -> None:
        self._shown = b""
        self._wait_until = wait_until
        self._terminal, other = pty.openpty()
        os.set_blocking(self._terminal, False)
        wide = {**os.environ, "COLUMNS": "160", "LINES": "50", "TERM": "xterm"}
        self._process = subprocess.Popen(
            [*COMMAND, "top", url, "--every", "0.1"], stdin=other, stdout=other, stderr=other, env=wide
        )
        os.close(other)

    def read(self) -> bytes:
        """All that it has shown so far."""
        try:
            while piece := os.read(self._terminal, 1 << 16):
                self._shown += piece
        except OSError:  # nothing more for now, or for ever
            return self._shown
        return self._shown

    def interrupt(self) -> int:
        """Press Ctrl-C; returns the exit code."""
        self._process.send_signal(signal.SIGINT)
        self._wait_until(lambda: (self.read(), self._process.poll())[1] is not None)
        return self._process.returncode

    def close(self) -> None:
        """End it, however it stands."""
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)
