"""The figures of simulations are written, and refused before the work where they cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slotwise.config import ConfigError
from slotwise.simulation.capacity import find_capacity, wanted
from slotwise.simulation.figures import check_figure, draw_capacity, draw_course, draw_timeline
from slotwise.simulation.reading import read_scenario, read_spec
from slotwise.simulation.running import run
from slotwise.simulation.scenario import changed
from tests.repo.tree import ROOT

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_run_is_drawn_as_curves_and_as_a_picture_of_every_batch(tmp_path: Path) -> None:
    scenario = changed(read_scenario(ROOT / "examples" / "fleet.toml"), seconds=2.5)
    with (tmp_path / "journal").open("w+b") as journal:
        report = run(scenario, journal=journal)
        journal.seek(0)
        draw_timeline(journal, scenario, report, tmp_path / "every.png")
    draw_course(report, tmp_path / "course.svg")
    assert (tmp_path / "every.png").read_bytes().startswith(PNG)
    assert "answered in time" in (tmp_path / "course.svg").read_text()


def test_a_picture_of_too_much_is_refused(tmp_path: Path) -> None:
    scenario = changed(read_scenario(ROOT / "examples" / "fleet.toml"), seconds=0.01)
    report = run(scenario)
    many = replace(scenario, models=scenario.models * 10)
    with (tmp_path / "journal").open("w+b") as journal, pytest.raises(ConfigError, match="too many for one picture"):
        draw_timeline(journal, many, report, tmp_path / "every.png")


def test_what_was_tried_is_drawn_by_count(tmp_path: Path) -> None:
    read = read_spec(ROOT / "examples" / "capacity.toml")
    draw_capacity(find_capacity(wanted(read, seconds=0.2, devices_max=2), jobs=1), tmp_path / "capacity.svg")
    assert "price of a million" in (tmp_path / "capacity.svg").read_text()


def test_a_figure_of_another_ending_is_refused_before_the_work() -> None:
    check_figure(None, ".svg")
    with pytest.raises(ConfigError, match=r"course\.pdf: this figure is written as \.svg"):
        check_figure(Path("course.pdf"), ".svg")
