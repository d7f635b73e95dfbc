"""The demo: its mix and its numbers, and the whole of it on tiny models, with a real server that is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotwise.demo.load import Act, Kill
from slotwise.demo.mix import Exhibit, exhibits, is_as_expected, shares
from slotwise.demo.report import PhaseReport, Report, phase_report, verdict
from slotwise.demo.server import DemoError, session_pids
from slotwise.facts.units import MS, S
from slotwise.load.ending import Ending, Sending
from slotwise.load.sender import Played
from tests.conftest import WaitUntil
from tests.edges.repositories import multiplier

EXPECTED = np.array([1.0, 2.0, 1000.0], np.float32)


# The mix.


@given(costs=st.lists(st.floats(1e-5, 2.0), min_size=1, max_size=30), executors=st.integers(1, 8))
def test_shares_ask_for_no_more_than_the_executors_and_no_model_too_often(costs: list[float], executors: int) -> None:
    cost_s = {f"m{index}": cost for index, cost in enumerate(costs)}
    rates = shares(cost_s, executors, rate_max_per_s=30.0)
    busy = sum(rates[model] * cost for model, cost in cost_s.items())
    assert list(rates) == list(cost_s)
    assert busy <= executors * (1 + 1e-9)
    assert all(0 < rate <= 30.0 for rate in rates.values())
    assert busy >= executors * (1 - 1e-9) or all(rate == 30.0 for rate in rates.values())


def test_what_capped_models_leave_goes_to_the_others_in_equal_parts() -> None:
    rates = shares({"tiny": 0.001, "b": 0.1, "c": 0.2}, executors=2, rate_max_per_s=20.0)
    assert rates["tiny"] == 20.0
    assert rates["b"] * 0.1 == pytest.approx(rates["c"] * 0.2) == pytest.approx((2 - 0.02) / 2)


@pytest.mark.parametrize(
    ("given_array", "is_right"),
    [
        (EXPECTED, True),
        (EXPECTED + 5, True),
        (EXPECTED + 50, False),
        (EXPECTED.astype(np.float64), False),
        (EXPECTED[:2], False),
        (EXPECTED * np.float32("nan"), False),
    ],
)
def test_an_answer_is_right_within_the_precision_of_its_largest_number(given_array: object, is_right: bool) -> None:
    exhibit = Exhibit(model="m", slo_ns=1, inputs={}, expected={"y": EXPECTED})
    assert is_as_expected(exhibit, {"y": given_array}) is is_right  # type: ignore[dict-item]  # an array of some kind
    assert not is_as_expected(exhibit, {})


def test_a_folder_without_examples_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="slotwise zoo build"):
        exhibits(tmp_path)


# The numbers.


def sending(ending: Ending, took_ms: int | None, status: int | None) -> Sending:
    ended_ns = None if took_ms is None else took_ms * MS
    return Sending(model="m", due_ns=0, sent_ns=0, ended_ns=ended_ns, status=status, ending=ending)


def act(load: float, *sendings: Sending) -> Act:
    played = Played(started_ns=0, ended_ns=2 * S, sendings=sendings, waits=0)
    return Act(load=load, duration_s=2.0, rate_per_s=1.0, played=played, cpu_s=0.1)


def test_a_phase_counts_every_ending_once_and_takes_times_from_answers_and_refusals_apart() -> None:
    report = phase_report(
        act(
            1.0,
            *[sending(Ending.IN_TIME, 10, 200)] * 3,
            sending(Ending.LATE, 30, 200),
            sending(Ending.LATE, 40, 504),
            sending(Ending.REFUSED, 2, 503),
            sending(Ending.FAILED, 5, 500),
            sending(Ending.UNANSWERED, None, None),
        )
    )
    assert (report.offered, report.goodput) == (4.0, 1.5)
    assert (report.refused, report.late, report.failed, report.unanswered) == (1, 2, 1, 1)
    assert (report.latency_ms_p50, report.refusal_ms_p50) == (10.0, 2.0)


def test_what_has_no_sample_is_none() -> None:
    report = phase_report(act(1.0))
    assert (report.latency_ms_p50, report.latency_ms_p99, report.refusal_ms_p50) == (None, None, None)


def phase(load: float, goodput: float, unanswered: int = 0) -> PhaseReport:
    return PhaseReport(load, 100, goodput, 0, 0, 0, unanswered, None, None, None)


def test_the_verdict_tells_a_collapse_a_lost_executor_and_silence() -> None:
    kill = Kill(executor="core0", pid=1, killed_ns=0, restarts=1)
    good = Report(20, 1, 900.0, (phase(1.0, 100), phase(3.0, 110)))
    bad = Report(20, 1, 900.0, (phase(1.0, 100), phase(3.0, 50, unanswered=2)))
    assert verdict(good, kill, 65.4) == (
        "at 3x the load 110 answers/s came in time, 100/s at 1x; core0 was killed under load and another process took "
        "its place after 65 ms; every request got its one answer."
    )
    assert "collapse" in verdict(bad, kill, None)
    assert "2 requests went unanswered" in verdict(bad, kill, None)
    away = Kill(executor="core0", pid=1, killed_ns=0, restarts=0)
    assert "did not come back" in verdict(good, away, None)


# The whole.


@pytest.fixture
def small_zoo(tmp_path: Path) -> Path:
    """Two tiny models with examples."""
    zoo = tmp_path / "zoo"
    for name, factor in (("double", 2.0), ("triple", 3.0)):
        (zoo / name / "1").mkdir(parents=True)
        (zoo / name / "1" / "model.onnx").write_bytes(multiplier(factor, "batch"))
        x = np.ones((1, 3), np.float32)
        np.savez(zoo / name / "example.npz", x=x)
        np.savez(zoo / name / "expected.npz", y=x * np.float32(factor))
        (zoo / name / "slotwise.toml").write_text("slo_ms = 200\n")
    return zoo


@pytest.fixture
def started(small_zoo: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo under way; ended by force if the test fails."""
    process = subprocess.Popen(command(small_zoo, tmp_path / "out", 60.0), stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def command(zoo: Path, out: Path, seconds: float) -> list[str]:
    """The demo without building a zoo, which is another command's matter."""
    program = (
        "import asyncio, signal, sys, msgspec; from pathlib import Path; from slotwise.demo import show\n"
        # Whatever a shell starts in the background is born deaf to Ctrl-C; a terminal's programs are not.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "options = show.Options(repository=Path(sys.argv[1]), out=Path(sys.argv[2]), seconds=float(sys.argv[3]))\n"
        "try: shown = asyncio.run(show.show(options, lambda line: print(line, file=sys.stderr, flush=True)))\n"
        "except show.DemoError as error: sys.exit(str(error))\n"
        "print(msgspec.json.encode(shown.report).decode())\n"
    )
    return [sys.executable, "-c", program, str(zoo), str(out), str(seconds)]


@pytest.mark.slow
@pytest.mark.live
def test_the_demo_shows_three_loads_and_a_replaced_executor(small_zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = subprocess.run(command(small_zoo, out, 1.0), capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert list(report) == ["models", "executors_killed", "memory_mb", "phases"]
    assert (report["models"], report["executors_killed"]) == (2, 1)
    assert report["memory_mb"] > 0
    assert [phase["load"] for phase in report["phases"]] == [0.5, 1.0, 3.0]
    assert [phase["unanswered"] for phase in report["phases"]] == [0, 0, 0]
    assert list(report["phases"][0]) == [
        *("load", "offered", "goodput", "refused", "late", "failed", "unanswered"),
        *("latency_ms_p50", "latency_ms_p99", "refusal_ms_p50"),
    ]
    faults = [
        event
        for event in json.loads((out / "timeline.json").read_bytes())["traceEvents"]
        if event.get("cat") == "fault"
    ]
    assert [event["name"].split(",")[0].split(" ", 1)[1] for event in faults if event["ph"] == "i"] == [
        "lost",
        "killed",
    ]
    assert (out / "timeline.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_that_is_ended_early_leaves_no_process_behind(
    started: subprocess.Popen[str], number: signal.Signals, wait_until: WaitUntil
) -> None:
    assert started.stderr is not None
    while not started.stderr.readline().startswith("0.5x"):
        assert started.poll() is None
    servers = servers_of(started.pid)
    assert len(servers) == 1
    assert len(session_pids(servers[0])) > 1, "server, zygote and executors"
    started.send_signal(number)
    wait_until(lambda: started.poll() is not None)
    assert started.returncode != 0
    assert session_pids(servers[0]) == []


@pytest.mark.slow
@pytest.mark.live
def test_the_server_of_a_demo_that_is_killed_ends_by_itself(
    started: subprocess.Popen[str], wait_until: WaitUntil
) -> None:
    assert started.stderr is not None
    while not started.stderr.readline().startswith("starting the server"):
        assert started.poll() is None
    wait_until(lambda: servers_of(started.pid))
    (server,) = servers_of(started.pid)
    wait_until(lambda: len(session_pids(server)) > 1)
    started.kill()
    wait_until(lambda: session_pids(server) == [])


@pytest.mark.live
def test_a_server_that_cannot_start_is_told_with_its_last_words(small_zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused = command(small_zoo, out, 1.0)
    refused[2] = refused[2].replace("seconds=float", "server_options=('--cores', '4096'), seconds=float")
    ended = subprocess.run(refused, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "the server ended before it opened its door" in ended.stderr
    assert "no core 4096" in ended.stderr


def servers_of(parent: int) -> list[int]:
    """Children that lead a session of their own."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [pid for pid in map(int, children) if os.getsid(pid) == pid]
