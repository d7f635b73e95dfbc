"""Simulations from files: the same to the byte, faults where they are said to be, and answers that are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from slotwise.simulation.capacity import CapacityReport, find_capacity, wanted
from slotwise.simulation.reading import read_scenario, read_spec
from slotwise.simulation.report import Report
from slotwise.simulation.running import Progress, run
from slotwise.simulation.scenario import changed

EVERYTHING = """
seconds = 2
warm_up_s = 1
[fleet]
spread = 0.2
overrun_share = 0.01
restart_ms = 100
[[kinds]]
name = "v100"
memory_mib = 640
page_mib = 16
[[nodes]]
name = "rack"
link_us = 300
devices = [{ kind = "v100", count = 2 }, { kind = "v100", slices = [{ share = 0.5 }, { share = 0.5 }] }]
[[models]]
name = "resnet50"
profile = "resnet50"
copies = 6
slo_ms = 60
[chance]
kill_every_s = 1
cancelled_share = 0.05
[[faults]]
at_s = 0.5
do = "hang"
where = "rack:v100-2.1"
[workload]
phases = [{ seconds = 1, scale = 0.5 }, { seconds = 1 }]
[[workload.streams]]
models = ["resnet50-*"]
slo_ms = 60
rate_per_s = 300
[[workload.clients]]
models = ["resnet50-0"]
slo_ms = 30
concurrency = 4
"""
ALONE = """
seconds = 12
warm_up_s = 0.1
[[nodes]]
name = "node"
devices = [{ kind = "core", count = 2 }]
[[models]]
name = "m"
rows = [1]
run_ms = [5]
load_ms = 1
slo_ms = 50
rate_per_s = 100
"""
QUEUE = """
seconds = 100
warm_up_s = 0.1
policy = "fifo"
[fleet]
link_us = 0
[[kinds]]
name = "one"
price_per_h = 2.0
[[kinds]]
name = "slow"
slowness = 4.0
price_per_h = 0.1
[[models]]
name = "m"
rows = [1]
run_ms = [10]
load_ms = 0
slo_ms = 25
rate_per_s = 50
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "spec.toml"
    path.write_text(text)
    return path


def recorded(spec: Path, folder: Path, progress: Progress | None = None) -> list[bytes]:
    """The bytes of the journal and of both logs."""
    journal = folder / "journal"
    folder.mkdir()
    with journal.open("wb") as file:
        run(read_scenario(spec), journal=file, logs=folder / "logs", progress=progress)
    return [journal.read_bytes(), *(log.read_bytes() for log in sorted((folder / "logs").iterdir()))]


@pytest.mark.parametrize("policy", ["slotwise", "clockwork"])
def test_the_same_seed_makes_the_same_bytes_of_journal_and_logs(tmp_path: Path, policy: str) -> None:
    spec = write(tmp_path, f'policy = "{policy}"\n{EVERYTHING}')
    told: list[float] = []
    first = recorded(spec, tmp_path / "first")
    again = recorded(spec, tmp_path / "again", lambda done_s, total_s: told.append(done_s / total_s))
    assert len(first) >= 3
    assert first == again, "nor does it matter who watches"
    assert told[-1] == 1
    other = write(tmp_path, f'policy = "{policy}"\nseed = 2\n{EVERYTHING}')
    assert recorded(other, tmp_path / "other") != first


def outcome(folder: Path, fault: str) -> Report:
    return run(read_scenario(write(folder, f"{ALONE}\n[[faults]]\nat_s = 4\n{fault}")))


def in_time(report: Report, from_s: float, to_s: float) -> float:
    points = [point for point in report.course if from_s <= point.start_s < to_s]
    return sum(point.outcomes["in_time"] for point in points) / sum(point.offered for point in points)


def test_a_node_that_is_killed_stays_away_for_as_long_as_the_file_says(tmp_path: Path) -> None:
    report = outcome(tmp_path, 'do = "kill"\nwhere = "node"\nfor_s = 3\n')
    assert in_time(report, 0, 3.8) == 1
    assert in_time(report, 4, 6.8) == 0
    assert in_time(report, 7.2, 12) > 0.99


def test_an_executor_that_is_slow_is_mended_after_the_stated_time(tmp_path: Path) -> None:
    usual = run(read_scenario(write(tmp_path, ALONE)))
    slow = outcome(tmp_path, 'do = "slow"\nwhere = "node"\nfor_s = 4\nfactor = 4\n')
    busy = [sum(executor.busy for executor in report.executors) for report in (usual, slow)]
    assert busy[1] > busy[0] * 1.3
    assert in_time(slow, 8.5, 12) == 1


def test_an_executor_that_hangs_is_replaced(tmp_path: Path) -> None:
    report = outcome(tmp_path, 'do = "hang"\nwhere = "node:core-1"\n')
    assert in_time(report, 7.5, 12) == 1
    assert report.unanswered == 0
    assert sum(executor.loads for executor in report.executors) >= 1


def test_the_course_of_a_run_adds_up_to_its_whole(tmp_path: Path) -> None:
    scenario = changed(read_scenario(write(tmp_path, EVERYTHING)), seconds=1.5)
    report = run(scenario)
    for name, count in report.total.outcomes.items():
        assert sum(point.outcomes[name] for point in report.course) == count
    assert sum(point.offered for point in report.course) == report.total.offered > 100
    assert sum(point.batches for point in report.course) == sum(one.batches for one in report.executors)


# How many devices. One device of kind `one` is an M/D/1 queue, for which the distribution of waits is known.


def waits_at_most(wait_s: float, rate_per_s: float, run_s: float) -> float:
    """The share of requests that wait no longer, in an M/D/1 queue (Erlang 1909)."""
    terms = (
        (-rate_per_s * (wait_s - k * run_s)) ** k / math.factorial(k) * math.exp(rate_per_s * (wait_s - k * run_s))
        for k in range(int(wait_s / run_s) + 1)
    )
    return (1 - rate_per_s * run_s) * sum(terms)


def capacity(folder: Path, lines: str, jobs: int = 1, seconds: float | None = None) -> CapacityReport:
    read = read_spec(write(folder, f"{QUEUE}\n[capacity]\n{lines}\n"))
    return find_capacity(wanted(read, seconds=seconds), jobs=jobs)


def test_capacity_finds_what_is_known_of_a_queue_with_one_server(tmp_path: Path) -> None:
    known = waits_at_most(0.015, rate_per_s=50, run_s=0.010)
    below = capacity(tmp_path, f'kinds = ["one"]\ntarget = {known - 0.02}')
    above = capacity(tmp_path, f'kinds = ["one"]\ntarget = {known + 0.02}')
    assert below.trials[0].attainment == pytest.approx(known, abs=0.015)
    assert (below.least, above.least) == ({"one": 1}, {"one": 2})
    assert [trial.devices for trial in above.trials] == [1, 2, 3]
    assert above.cheapest is not None
    assert above.cheapest.price_per_h == 4
    assert above.cheapest.price_per_million == pytest.approx(4 / (50 * 3600) * 1e6, rel=0.05)


def test_a_kind_that_is_never_enough_is_told_of_and_another_is_the_cheapest(tmp_path: Path) -> None:
    report = capacity(tmp_path, "target = 0.95\ndevices_max = 4\n", seconds=10)
    assert report.least == {"one": 2, "slow": None}
    assert report.cheapest is not None
    assert (report.cheapest.kind, report.cheapest.devices) == ("one", 2)


@pytest.mark.slow
def test_capacity_is_the_same_on_any_number_of_processes(tmp_path: Path) -> None:
    lines = "target = 0.9\ndevices_max = 2\n"
    assert capacity(tmp_path, lines, jobs=2, seconds=3) == capacity(tmp_path, lines, jobs=1, seconds=3)
