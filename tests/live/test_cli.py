"""Every command runs as a user would run it: in a process of its own, with its exit code and its report."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slotwise import cli
from tests.live.systems import put_emulated, put_network

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "examples" / "mixed.toml"

pytestmark = pytest.mark.live


def slotwise(*words: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slotwise.cli", *map(str, words)]
    wide = {**os.environ, "COLUMNS": "300"}
    nothing = subprocess.DEVNULL
    return subprocess.run(
        command, stdin=nothing, capture_output=True, text=True, timeout=120, check=False, cwd=folder, env=wide
    )


Here = Callable[..., tuple[object, str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Runs a command that must fail in this process, which spares its start: its exit code and what it says of it."""

    def run(*words: str, folder: Path) -> tuple[object, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("COLUMNS", "300")
        monkeypatch.setattr(sys, "argv", ["slotwise", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().err

    return run


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


def test_a_start_that_fails_leaves_the_journal_of_the_server_that_runs_alone(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_text("of another")
    put_emulated(tmp_path / "models", "model", run_ms=1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = slotwise("serve", tmp_path / "models", "--http-port", taken.getsockname()[1], "--journal", journal)
    assert (done.returncode, journal.read_text()) == (2, "of another")


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


def test_simulate_lists_the_profiles_that_can_be_named() -> None:
    done = slotwise("simulate", "--profiles")
    assert done.returncode == 0
    assert "resnet50" in done.stdout
    assert "table-1: Clockwork" in done.stdout


def test_capacity_shows_what_was_tried_and_says_where_no_count_is_enough(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    spec = SPEC.with_name("capacity.toml")
    done = slotwise("capacity", spec, "--seconds", 0.3, "--devices-max", 1, "--jobs", 1, "--json", report)
    assert done.returncode == 1
    assert "small: 1 are not enough" in done.stderr
    told = json.loads(report.read_text())
    assert (told["least"]["small"], told["cheapest"], len(told["trials"])) == (None, None, 2)


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


def recorded(folder: Path) -> list[bytes]:
    """The lines of a simulation's journal."""
    journal = folder / "whole"
    assert slotwise("simulate", SPEC, "--scale", 0.05, "--journal", journal).returncode == 0
    return journal.read_bytes().splitlines(keepends=True)


def test_replay_leaves_out_a_torn_last_line_and_says_so(tmp_path: Path) -> None:
    lines, journal = recorded(tmp_path), tmp_path / "torn"
    journal.write_bytes(b"".join(lines[:20]) + lines[20][:-10])
    done = slotwise("replay", journal)
    assert done.returncode == 0, done.stderr
    assert "line 21, the last, is torn" in done.stdout
    assert "19 turns, all decided the same again" in done.stdout


@pytest.mark.parametrize("damage", [b"[12, 3\n", b"\xff\n", b"[1, [], [], []]\n", b'[1,[["Lunch",{}]],[]]\n'])
def test_replay_names_a_damaged_line_before_the_last(tmp_path: Path, damage: bytes) -> None:
    lines, journal = recorded(tmp_path), tmp_path / "damaged"
    journal.write_bytes(b"".join([*lines[:5], damage, *lines[6:]]))
    done = slotwise("replay", journal)
    assert done.returncode == 2
    assert "line 6" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A folder of things that are not what they should be, and a good model."""
    put_emulated(tmp_path / "models", "model", run_ms=1)
    (tmp_path / "empty").mkdir()
    files = {
        "nothing": "",
        "key.toml": "[door]\nrequest_max = 3",
        "syntax.toml": "= 3",
        "policy.toml": "policy_settings = {zip = 1}",
        "memory.toml": "[fleet]\noutputs_bytes = 1125899906842624",
        "cache.toml": 'cache = "nothing/below"',
        "rate.toml": SPEC.read_text().replace("rate_per_s = 333.3", "rate_per_s = -1"),
        "seconds.toml": SPEC.read_text().replace("seconds = 20.0", "seconds = 0"),
        "rows.toml": SPEC.read_text().replace("rows = [1, 8]", "rows = [1]"),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("serve nothing", "nothing cannot be read as a folder of models: Not a directory"),
        ("serve models --http-port 70000", "`http_port`: Expected `int` <= 65535"),
        ("serve models --http-port {port}", "port {port}: Address already in use; name another"),
        ("serve models --host 300.1.1.1", "cannot listen on 300.1.1.1"),
        ("serve models --cores 0,x", "'0,x' is no list of cores; write them as 0,1,2"),
        (f"serve models --cores {','.join('0' * 1025)}", "1024 executors are the most"),
        ("serve models --cores=-1", "`cores[0]`: Expected `int` >= 0"),
        ("serve models --config key.toml", "key.toml: `door.request_max`: there is no such key; did you mean"),
        ("serve models --config syntax.toml", "syntax.toml: Invalid"),
        ("serve models --config policy.toml", "policy slotwise has no setting 'zip'; there are"),
        ("serve models --config memory.toml", "`fleet.outputs_bytes` asks for 1073741824 MiB of shared memory; the"),
        ("serve models --config cache.toml", "profiles cannot be kept in nothing/below: Not a directory; name"),
        ("serve models --config .", ". cannot be read: Is a directory"),
        ("serve models --memory-mib -5", "`memory_mib`: Expected `int` >= 0"),
        ("serve models --watch-s -1", "`watch_s`: Expected `float` >= 0.0"),
        ("serve models --journal nowhere/journal", "there is no folder nowhere; make it, or name a file elsewhere"),
        ("serve models --tls-certificate nothing", "`certificate` needs a `key`"),
        ("serve models --tls-certificate nothing --tls-key absent", "absent cannot be read: No such file"),
        ("serve models --tls-certificate nothing --tls-key nothing", "must be PEM files"),
        ("profile empty", "there is no model in empty; put one into"),
        ("profile models --batch-max 0", "`defaults.batch_max`: Expected `int` >= 1"),
        ("profile models --json empty", "empty is a folder; name a file"),
        ("check --json nowhere/report", "there is no folder nowhere"),
        ("simulate rate.toml", "rate.toml, line 13: `models[0].rate_per_s`: Expected `float` >= 0.0"),
        ("simulate seconds.toml", "seconds.toml, line 3: `seconds`: Expected `float` > 0.0"),
        ("simulate rows.toml", "rows.toml, line 18: `models[1].rows`: run_ms must have one entry for each of rows"),
        ("simulate rows.toml --journal nowhere/journal", "there is no folder nowhere"),
        ("simulate rows.toml --figure course.pdf", "course.pdf: this figure is written as .svg"),
        (f"capacity {SPEC}", "there is no kind of device to count; describe one in [[kinds]]"),
        ("replay absent", "absent: No such file or directory"),
        ("replay nothing", "not a journal's header"),
        ("zoo build nothing --only luck", "no model is called luck; there are"),
        ("demo --zoo nothing", "nothing cannot be written"),
        ("demo --json nowhere/report", "there is no folder nowhere"),
    ],
)
def test_each_kind_of_bad_input_is_one_clear_line(bad: Path, here: Here, line: str, told: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, errors = here(*line.replace("{port}", port).split(), folder=bad)
    assert code == 2
    assert told.replace("{port}", port) in errors.strip().splitlines()[-1]


def test_a_server_that_is_to_end_with_its_input_needs_one_that_ends(bad: Path) -> None:
    done = slotwise("serve", "models", "--stop-at-eof", folder=bad)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "standard input is a file" in done.stderr


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
def test_wrong_input_is_told_in_one_line_that_names_it_with_exit_code_2(
    here: Here, tmp_path: Path, words: tuple[str, ...], names: str
) -> None:
    code, errors = here(*words, folder=tmp_path)
    assert code == 2
    assert names in errors.strip().splitlines()[-1]
