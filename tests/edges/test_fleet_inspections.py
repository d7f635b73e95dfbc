"""Inspections run apart from the executors: whatever a model does there, the fleet goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from slotwise.engine.ports import Inspection, ModelError
from slotwise.facts.events import ExecutorLost
from tests.conftest import WaitUntil
from tests.contracts.live import LIMITS, build_mlp
from tests.edges.fleet_rig import Rig, Start, rigs

pytestmark = pytest.mark.live

MIB = 1 << 20


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with rigs(tmp_path) as make:
        yield make


def inspect(rig: Rig, path: Path, batch_max: int = 4) -> Inspection:
    return rig.loop.run_until_complete(rig.processes.inspect(str(path), batch_max))


def test_an_inspection_describes_a_model_and_measures_it(start: Start, tmp_path: Path) -> None:
    rig = start("mlp")
    found = inspect(rig, tmp_path / "mlp.onnx")
    assert found.batchable
    assert found.profile.rows == (1, 2, 4)
    assert [spec.name for spec in found.inputs + found.outputs] == ["x", "y"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_model_whose_inspection_crashes_is_refused_and_the_fleet_goes_on(
    start: Start, tmp_path: Path, wait_until: WaitUntil, number: signal.Signals
) -> None:
    rig = start("mlp")
    path = write_slow(tmp_path)

    inspection = rig.loop.create_task(rig.processes.inspect(str(path), 4))

    def find_process() -> int | None:
        rig.loop.run_until_complete(asyncio.sleep(0))
        return rig.processes.statistics().inspector_pid

    wait_until(find_process)
    os.kill(find_process() or 0, number)
    with pytest.raises(ModelError, match=f"the process that tried it was killed by {number.name}"):
        rig.loop.run_until_complete(inspection)
    assert inspect(rig, tmp_path / "mlp.onnx").batchable
    assert not any(isinstance(event, ExecutorLost) for event in rig.events)


def test_an_inspection_that_takes_too_long_or_too_much_memory_is_refused(start: Start, tmp_path: Path) -> None:
    rig = start("mlp", limits=replace(LIMITS, inspect_s_max=0.2))
    with pytest.raises(ModelError, match=r"was not loaded and measured within 0.2 s"):
        inspect(rig, write_slow(tmp_path))
    build_mlp(tmp_path / "heavy.onnx", (3000, 3000, 10))
    greedy = start(limits=replace(LIMITS, inspect_memory_bytes=8 * MIB))
    with pytest.raises(ModelError, match=f"may take {8 * MIB} bytes of memory"):
        inspect(greedy, tmp_path / "heavy.onnx")


def test_a_file_that_is_no_model_is_refused_with_the_reason(start: Start, tmp_path: Path) -> None:
    rig = start("mlp")
    (tmp_path / "bad.onnx").write_text("nonsense")
    with pytest.raises(ModelError, match="Protobuf parsing failed"):
        inspect(rig, tmp_path / "bad.onnx")
    with pytest.raises(ModelError, match="there is no file"):
        inspect(rig, tmp_path / "absent.onnx")


def write_slow(folder: Path) -> Path:
    """An emulated model that takes a minute to load."""
    path = folder / "slow.emulated.json"
    path.write_text('{"profile": {"rows": [1], "run_ns": [1], "load_ns": 60000000000, "memory_bytes": 1}}')
    return path
