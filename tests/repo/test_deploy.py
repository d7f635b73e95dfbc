"""What is there for those who deploy names commands, options and routes that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from slotwise.cli import app

DEPLOY = Path(__file__).parents[2] / "deploy"


def options_of(command: str) -> set[str]:
    found = get_command(app).commands[command]  # type: ignore[attr-defined]  # it is a group
    return {name for parameter in found.params for name in parameter.opts}


def test_every_option_that_is_used_there_exists() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DEPLOY.iterdir())
    served = [line for line in text.splitlines() if ("slotwise" in line and "serve" in line) or "args:" in line]
    used = {option for line in served for option in re.findall(r"--[a-z-]+", line)}
    assert used
    assert used <= options_of("serve")


def test_probes_ask_routes_that_exist() -> None:
    asked = set(re.findall(r"/v2/[a-z/]+", (DEPLOY / "kserve.yaml").read_text(encoding="utf-8")))
    assert asked == {"/v2/health/ready", "/v2/health/live"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here to ask")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "slotwise.service"
    text = (DEPLOY / "slotwise.service").read_text(encoding="utf-8")
    unit.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "slotwise.service" not in done.stderr, done.stderr
