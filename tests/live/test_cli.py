"""Every command runs as a user would run it: in a process of its own, with its exit code and its report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.systems import put_emulated, put_network

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "examples" / "mixed.toml"

pytestmark = pytest.mark.live


def slotwise(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slotwise.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_profile_prints_sizes_loads_and_run_times_of_every_model(tmp_path: Path) -> None:
    root, report = tmp_path / "models", tmp_path / "report.json"
    put_network(root, "network")
    put_emulated(root, "emulated", run_ms=3)
    done = slotwise("profile", root, "--batch-max", 4, "--json", report)
    assert done.returncode == 0, done.stderr
    models = {model["model"]: model for model in json.loads(report.read_text())}
    assert set(models) == {"network/1", "emulated/1"}
    network = models["network/1"]
    assert network["rows"] == [1, 2, 4]
    assert len(network["run_ms"]) == 3
    assert min(network["run_ms"]) > 0
    assert network["memory_mib"] > 0
    assert network["load_ms"] > 0
    assert "network/1" in done.stdout


def test_profile_says_which_model_could_not_be_measured_and_measures_the_others(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put_emulated(root, "good", run_ms=1)
    put_network(root, "broken")
    (root / "broken" / "1" / "model.onnx").write_bytes(b"nothing")
    done = slotwise("profile", root)
    assert done.returncode == 1
    assert "good/1" in done.stdout
    assert "broken" in done.stderr


def test_check_reports_every_finding_and_fails_if_one_is_wanting(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = slotwise("check", "--json", report)
    findings = json.loads(report.read_text())
    assert {"cores", "free memory", "open files", "runtime"} <= {finding["name"] for finding in findings}
    assert done.returncode == (0 if all(finding["passed"] for finding in findings) else 1)
    assert all(finding["remedy"] for finding in findings if not finding["passed"])


def test_simulate_writes_a_journal_that_replay_confirms(tmp_path: Path) -> None:
    journal, report = tmp_path / "journal", tmp_path / "report.json"
    done = slotwise("simulate", SPEC, "--scale", 0.5, "--seed", 3, "--journal", journal, "--json", report)
    assert done.returncode == 0, done.stderr
    total = json.loads(report.read_text())["total"]
    assert total["offered"] == sum(total["outcomes"].values()) > 1_000
    replayed = slotwise("replay", journal)
    assert replayed.returncode == 0, replayed.stdout
    assert "decided the same" in replayed.stdout


def test_replay_points_at_the_first_turn_that_differs(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    assert slotwise("simulate", SPEC, "--scale", 0.1, "--journal", journal).returncode == 0
    lines = journal.read_bytes().splitlines(keepends=True)
    at = next(index for index, line in enumerate(lines) if b'"RunBatch"' in line)
    lines[at] = lines[at].replace(b'"rows":1', b'"rows":2')
    journal.write_bytes(b"".join(lines))
    done = slotwise("replay", journal)
    assert done.returncode == 1
    assert f"line {at + 1} differs" in done.stdout


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("serve", "no-such-folder"), "no-such-folder"),
        (("serve", ".", "--policy", "luck"), "luck"),
        (("serve", ".", "--cores", "999"), "999"),
        (("simulate", "no-such-file"), "no-such-file"),
        (("simulate", str(SPEC), "--policy", "luck"), "luck"),
        (("replay", str(SPEC)), "line 1"),
    ],
)
def test_wrong_input_is_told_in_one_line_that_names_it_with_exit_code_2(words: tuple[str, ...], names: str) -> None:
    done = slotwise(*words)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert names in last
    assert "Traceback" not in done.stderr
