"""The repository is tidy, and each check that says so catches what it is there for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.repo import tidy
from tests.repo.tree import File, read_files, read_python

PYTHON_CHECKS = (
    tidy.line_faults,
    tidy.file_faults,
    tidy.function_faults,
    tidy.docstring_faults,
    tidy.call_faults,
    tidy.except_faults,
    tidy.silencer_faults,
    tidy.core_faults,
    tidy.median_faults,
)
TEXT_CHECKS = (tidy.marker_faults, tidy.machine_faults)

Check = Callable[[list[File]], list[str]]


def named(check: Check) -> str:
    return check.__name__


@pytest.mark.parametrize("check", PYTHON_CHECKS, ids=named)
def test_python_is_tidy(check: Check) -> None:
    files = read_python()
    assert "src/slotwise/engine/loop.py" in {file.path for file in files}
    assert "\n".join(check(files)) == ""


@pytest.mark.parametrize("check", TEXT_CHECKS, ids=named)
def test_every_text_is_tidy(check: Check) -> None:
    files = read_files()
    assert {"Makefile", "pyproject.toml", "README.md"} <= {file.path for file in files}
    assert "\n".join(check(files)) == ""


def test_a_long_line_is_found() -> None:
    assert len(tidy.line_faults([source("x = 1\n" + "#" * 121)])) == 1
    assert tidy.line_faults([source("#" * 120), source("x" * 120 + "  # no" + "qa: A001  # a reason")]) == []


def test_a_long_file_is_found() -> None:
    assert len(tidy.file_faults([source("x = 1\n" * 501)])) == 1
    assert tidy.file_faults([source("x = 1\n" * 500)]) == []


def test_a_long_function_is_found_inside_a_class_too() -> None:
    assert len(tidy.function_faults([source("class A:\n  async def f(self):\n" + "    x = 1\n" * 60)])) == 1
    assert tidy.function_faults([source("def f():\n" + "  x = 1\n" * 59)]) == []


def test_usually_long_functions_are_found() -> None:
    long, short = "def f():\n" + "  x = 1\n" * 20, "def g():\n  return 1\n"
    assert len(tidy.median_faults([source(long + long + short)])) == 1
    assert tidy.median_faults([source(long + short + short)]) == []


def test_a_module_without_a_docstring_is_found() -> None:
    assert len(tidy.docstring_faults([source("x = 1"), source("# a comment")])) == 2
    assert tidy.docstring_faults([source('"""Says what lives here."""')]) == []


@pytest.mark.parametrize(
    "text",
    [
        "print(1)",
        "import time\ntime.time()",
        "from time import time_ns as now\nnow()",
        "import time as clock\nclock.sleep(1)",
        "from time import sleep\nwait = sleep",
        "import datetime\ndatetime.datetime.now()",
        "import random\nrandom.random()",
        "from random import choice\nchoice([1])",
        "import numpy as np\nnp.random.rand(3)",
        "eval('1')",
        "exec('1')",
        "import pickle\npickle.loads(b'')",
        "from marshal import loads\nloads(b'')",
        "import os\nos.system('true')",
        "import importlib\nimportlib.import_module('torch')",
    ],
)
def test_a_banned_call_is_found_under_any_name(text: str) -> None:
    faults = tidy.call_faults([source(text, "src/slotwise/policy/x.py")])
    assert faults
    assert all(": " in fault for fault in faults), "each says what to write instead"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("src/slotwise/cli.py", "print(1)"),
        ("benchmarks/micro.py", "import time\ntime.sleep(1)\nprint(1)"),
        ("src/slotwise/edges/oip/http.py", "import time\ntime.monotonic_ns()"),
        ("src/slotwise/sim/x.py", "import random\nrandom.Random(1).random()"),
        ("src/slotwise/sim/x.py", "import numpy as np\nnp.random.default_rng(1)"),
        ("src/slotwise/sim/x.py", "def f(random, model):\n  random.choice([1])\n  model.eval()"),
        ("src/slotwise/sim/x.py", "class A:\n  def print(self): self.print()"),
    ],
)
def test_a_call_that_is_allowed_is_left_alone(path: str, text: str) -> None:
    assert tidy.call_faults([source(text, path)]) == []


def test_an_error_that_is_hidden_is_found() -> None:
    bare = "try:\n  f()\nexcept:\n  raise\n"
    passed = "try:\n  f()\nexcept Exception:\n  pass\n"
    logged = "try:\n  f()\nexcept (OSError, BaseException) as e:\n  log.warning(e)\n"
    assert len(tidy.except_faults([source(bare + passed + logged)])) == 3
    named_one = "try:\n  f()\nexcept OSError:\n  pass\n"
    turned = "try:\n  f()\nexcept Exception as e:\n  post(Failed(str(e)))\n"
    assert tidy.except_faults([source(named_one + turned)]) == []


# Spelled in two halves, so that this file passes the checks that it tests.
@pytest.mark.parametrize("halves", [("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("HA", "CK")], ids="".join)
def test_a_marker_left_behind_is_found(halves: tuple[str, str]) -> None:
    marker = "".join(halves)
    assert len(tidy.marker_faults([source(f"# {marker}: later")])) == 1
    assert tidy.marker_faults([source(f"{marker}S = 1")]) == []


@pytest.mark.parametrize("halves", [("/wo", "rk/main"), ("/ro", "ot/.cache"), ("/opt", "/wheels/x.whl")], ids="".join)
def test_a_path_of_one_machine_is_found(halves: tuple[str, str]) -> None:
    assert len(tidy.machine_faults([source(f"see {''.join(halves)}")])) == 1
    assert tidy.machine_faults([source("https://example.org/work/a ~/work ./work network/root")]) == []


@pytest.mark.parametrize("halves", [("no", "qa"), ("no", "qa: E501"), ("type: ", "ignore[arg-type]")], ids="".join)
def test_a_rule_silenced_without_a_reason_is_found(halves: tuple[str, str]) -> None:
    assert len(tidy.silencer_faults([source(f"x = 1  # {''.join(halves)}")])) == 1


@pytest.mark.parametrize("halves", [("no", "qa: E501"), ("type: ", "ignore[arg-type]")], ids="".join)
def test_a_rule_silenced_with_its_reason_is_left_alone(halves: tuple[str, str]) -> None:
    assert tidy.silencer_faults([source(f"x = 1  # {''.join(halves)}  # a table")]) == []


def test_a_core_that_has_grown_is_found() -> None:
    sim, policy = (
        source("x = 1\n" * (tidy.CORE_LINES_MAX // 2), "src/slotwise/sim/a.py"),
        source("x = 1\n" * (tidy.CORE_LINES_MAX // 2), "src/slotwise/policy/a.py"),
    )
    assert tidy.core_faults([sim, policy, source("x = 1\n" * 9000, "src/slotwise/edges/a.py")]) == []
    assert len(tidy.core_faults([sim, policy, source("x = 1\n", "src/slotwise/engine/a.py")])) == 1


def source(text: str, path: str = "src/slotwise/policy/x.py") -> File:
    return File(path, text)
