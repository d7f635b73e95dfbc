"""Every example prints what its committed `.out` says; the folder holds such pairs, and the files that they read."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.tree import ROOT

EXAMPLES = ROOT / "examples"
EXAMPLE_S_MAX = 120
COMPANIONS = {"README.md"}
READ_BY_PROGRAMS = "toml"
"""Files that may stand beside the programs, if one of these names them."""


def programs(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("program", programs(EXAMPLES), ids=lambda program: program.stem)
def test_an_example_prints_what_it_is_said_to_print(program: Path) -> None:
    assert difference(program) == ""


def test_the_folder_of_examples_holds_pairs_and_what_they_read_only() -> None:
    assert strays(EXAMPLES) == []


def test_an_example_that_prints_something_else_is_found(tmp_path: Path) -> None:
    program = tmp_path / "hello.py"
    program.write_text("print('hello')\n", encoding="utf-8")
    program.with_suffix(".out").write_text("hello\n", encoding="utf-8")
    assert difference(program) == ""
    program.with_suffix(".out").write_text("goodbye\n", encoding="utf-8")
    assert "+hello" in difference(program)


def test_an_example_that_fails_is_found(tmp_path: Path) -> None:
    program = tmp_path / "broken.py"
    program.write_text("raise SystemExit('no')\n", encoding="utf-8")
    program.with_suffix(".out").write_text("", encoding="utf-8")
    assert "ended with 1" in difference(program)


def test_an_example_without_its_output_and_a_stray_are_found(tmp_path: Path) -> None:
    for name in ("a.py", "a.out", "b.py", "c.out", "README.md", "notes.txt"):
        (tmp_path / name).touch()
    assert strays(tmp_path) == ["b.py has no b.out", "c.out has no c.py", "notes.txt is no example"]


def test_a_file_that_no_example_reads_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("open('read.toml')\n", encoding="utf-8")
    for name in ("a.out", "read.toml", "unread.toml"):
        (tmp_path / name).touch()
    assert strays(tmp_path) == ["unread.toml is read by no example"]


def difference(program: Path) -> str:
    """What a program prints beside what it should, as a diff; empty where they are equal."""
    expected = program.with_suffix(".out").read_text(encoding="utf-8")
    plain = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "PYTHONWARNINGS": "error"}
    run = subprocess.run(
        [sys.executable, str(program)],
        cwd=ROOT,
        env=plain,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=EXAMPLE_S_MAX,
        check=False,
    )
    if run.returncode != 0:
        return f"{program.name} ended with {run.returncode}: {run.stderr}"
    return "\n".join(difflib.unified_diff(expected.splitlines(), run.stdout.splitlines(), lineterm=""))


def strays(folder: Path) -> list[str]:
    """What stands in the folder and is neither a program with its output, nor read by one, nor an explanation."""
    names = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    text = "".join(program.read_text(encoding="utf-8") for program in programs(folder))
    return [fault for name in sorted(names - COMPANIONS) if (fault := _stray(name, names, text))]


def _stray(name: str, names: set[str], text: str) -> str:
    stem, _, ending = name.rpartition(".")
    if ending == READ_BY_PROGRAMS:
        return "" if name in text else f"{name} is read by no example"
    partner = {"py": f"{stem}.out", "out": f"{stem}.py"}.get(ending)
    if partner is None:
        return f"{name} is no example"
    return "" if partner in names else f"{name} has no {partner}"
