"""What decides may be compiled (setup.py). It is the same program either way, so it decides the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slotwise.policy.schedulers import SCHEDULERS

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "examples" / "mixed.toml"

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is written, with nothing compiled beside it."""
    copy = tmp_path_factory.mktemp("sources")
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("*.so"), dirs_exist_ok=True)
    return copy


def slotwise(*words: object, sources: Path | None = None) -> str:
    """Run a command, as installed or from other sources; what it printed."""
    command = [sys.executable, "-m", "slotwise.cli", *map(str, words)]
    environment = os.environ if sources is None else {**os.environ, "PYTHONPATH": str(sources)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("policy", SCHEDULERS)
def test_a_journal_of_the_installed_form_replays_in_the_sources(policy: str, sources: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    slotwise("simulate", SPEC, "--policy", policy, "--scale", 0.2, "--journal", journal)
    assert "decided the same" in slotwise("replay", journal, sources=sources)
