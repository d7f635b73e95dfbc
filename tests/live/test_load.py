"""Loads against a whole server: every way to it, the command's report, and the same requests again from a record."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from slotwise import cli
from slotwise.load.inputs import Shape
from slotwise.load.plan import Closed, Steady, Wanted
from slotwise.load.report import LoadReport
from slotwise.load.run import Look, Prepared, Settings, Watcher, play
from slotwise.load.ways import Server
from tests.edges.scripted import scripted, whole
from tests.live.systems import put_emulated

pytestmark = [pytest.mark.live, pytest.mark.slow]

WAYS = ("http", "grpc", "local")
METADATA = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}]}'


@dataclass
class Doors:
    """Where a server is, by each way to it."""

    http: str
    grpc: str
    local: str

    def server(self, way: str) -> Server:
        return Server(url=str(getattr(self, way)), pages_url=self.http if way == "local" else "")


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A server in a process of its own, with two models that take a millisecond."""
    folder = tmp_path_factory.mktemp("load")
    for name in ("one", "two"):
        put_emulated(folder / "models", name, run_ms=1, settings="slo_ms = 10000")
    command = [sys.executable, "-m", "slotwise.cli", "serve", str(folder / "models")]
    options = ["--http-port", "0", "--grpc-port", "0", "--local-socket", str(folder / "socket")]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen([*command, *options], stdout=pipe, stderr=nothing, text=True) as process:
        assert process.stdout is not None
        http, grpc, local = (process.stdout.readline().split()[-1] for _ in range(3))
        yield Doors(http, f"grpc://{grpc}", local)
        process.terminate()


def played(settings: Settings, wanted: Wanted) -> tuple[LoadReport, list[Prepared], list[Look]]:
    prepared: list[Prepared] = []
    looks: list[Look] = []

    async def within() -> LoadReport:
        return await play(settings, wanted, Watcher(prepared=prepared.append, look=looks.append), asyncio.Event())

    return asyncio.run(within()), prepared, looks


Run = Callable[..., tuple[object, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process, which spares its start: its exit code, its output and what it says beside."""

    def command(*words: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["slotwise", "load", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err.replace("\n", " ")

    return command


def slotwise(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slotwise.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("way", WAYS)
def test_a_rate_is_asked_over_every_way_and_every_request_is_answered(doors: Doors, way: str) -> None:
    settings = Settings(server=doors.server(way), seconds=0.7)
    report, prepared, looks = played(settings, Steady(rate_per_s=60.0, is_even=True))
    assert report.total.offered == report.total.in_time == 42
    assert [(part.model, part.offered) for part in report.models] == [("one", 21), ("two", 21)]
    assert prepared[0].about.endswith("10000 ms each as the server says")
    assert looks
    assert looks[-1].ended <= 42


@pytest.mark.parametrize("way", WAYS)
def test_clients_ask_over_every_way_until_they_have_asked_enough(doors: Doors, way: str) -> None:
    settings = Settings(server=doors.server(way), models=("o*",), seconds=30.0, connections=3)
    report, _, _ = played(settings, Closed(concurrency=5, requests_max=40))
    assert (report.total.offered, report.total.in_time) == (40, 40)
    assert report.client.waits > 0, "five clients share three places"


@pytest.mark.parametrize("way", WAYS)
def test_a_request_that_does_not_fit_has_failed_and_its_words_are_told(doors: Doors, way: str) -> None:
    settings = Settings(server=doors.server(way), models=("one",), shapes={"x": Shape(sizes=(99999, 4))}, seconds=5.0)
    report, _, _ = played(settings, Closed(concurrency=1, requests_max=2))
    assert (report.total.failed, len(report.errors)) == (2, 1)
    assert report.errors[0].count == 2
    assert report.errors[0].words


def test_what_was_recorded_is_asked_again_and_compared(doors: Doors, tmp_path: Path, run: Run) -> None:
    first, second, record = tmp_path / "first.json", tmp_path / "second.json", tmp_path / "record.csv"
    code, _, said = run(doors.http, "--rate", 60, "--seconds", 0.5, "--seed", 4, "--json", first, "--record", record)
    assert code == 0, said
    code, shown, said = run(doors.http, "--workload", record, "--json", second, "--compare", first)
    assert code == 0, said
    assert "now / before" in shown
    reports = [json.loads(path.read_text()) for path in (first, second)]
    assert reports[0]["total"]["offered"] == reports[1]["total"]["offered"] > 10
    assert [part["offered"] for part in reports[0]["models"]] == [part["offered"] for part in reports[1]["models"]]


def test_requests_that_go_unanswered_are_told_and_make_the_command_fail(tmp_path: Path) -> None:
    def reply_to(path: bytes) -> bytes:
        return whole(200, METADATA) if path.startswith(b"GET") else b""

    async def load() -> subprocess.CompletedProcess[str]:
        async with scripted(reply_to) as port:
            url = f"http://127.0.0.1:{port}"
            return await asyncio.to_thread(slotwise, "load", url, "--model", "m", "--rate", 20, "--seconds", 0.2)

    done = asyncio.run(load())
    assert done.returncode == 1
    assert "requests went unanswered" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--rate", "1", "--model", "nobody"), 1, "nobody"),
        (("--rate", "1", "--model", "no*"), 2, "it offers one, two"),
        ((), 2, "say what to ask"),
        (("--workload", "simpel"), 2, "did you mean simple?"),
        (("--rate", "1", "--shape", "x"), 2, "write INPUT=1,128"),
        (("--rate", "1", "--shape", "x=1,4", "--inputs", "a.npz"), 2, "--shape is for inputs that are made"),
        (("--rate", "1", "--inputs", "nowhere.npz"), 2, "nowhere.npz"),
    ],
)
def test_input_that_is_wrong_is_told_in_a_line(
    doors: Doors, words: tuple[str, ...], code: int, told: str, run: Run
) -> None:
    ended, _, said = run(doors.http, *words)
    assert (ended, told in said) == (code, True), said
