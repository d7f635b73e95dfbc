"""The arrows of docs/architecture.md hold, and the check that holds them sees every kind of breach."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.imports import ARROWS, HEAVY, HOMES, faults, is_in, module_name, read_imports, room_of, unused
from tests.repo.tree import ROOT, read_python

ROOTS = (
    "slotwise.cli",
    "slotwise.cli.__main__",
    "slotwise.worker",
    "slotwise.zygote",
    "slotwise.client",
    # What tests and benchmarks hold the product against.
    "slotwise.oracle.bound",
    "slotwise.oracle.clairvoyant",
    "slotwise.oracle.hindsight",
    "slotwise.sim.faults",
    "slotwise.workload.mixes",
)
GRPC_CLIENTS = ("slotwise.client.grpc", "slotwise.load.grpc")
"""Clients over gRPC, which are loaded with their own files alone."""
LIGHT_ROOMS = ("slotwise.facts", "slotwise.policy", "slotwise.engine", "slotwise.workload", "slotwise.sim")


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {module_name(file.path): file.tree for file in read_python() if file.path.startswith("src/slotwise/")}


def test_every_import_follows_the_arrows(trees: dict[str, ast.Module]) -> None:
    assert {"slotwise", "slotwise.facts.types", "slotwise.engine.loop"} <= trees.keys()
    assert "\n".join(faults(trees)) == ""


def test_every_folder_of_the_package_has_a_room(trees: dict[str, ast.Module]) -> None:
    assert {name for name in trees if room_of(name) is None} == {"slotwise"}


def test_the_core_and_the_simulator_load_no_heavy_library(trees: dict[str, ast.Module]) -> None:
    light = sorted(name for name in trees if any(is_in(name, room) for room in LIGHT_ROOMS))
    assert "slotwise.engine.journal" in light
    program = f"import sys, {', '.join(light)}; print([name for name in {HEAVY} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (finished.stdout.strip(), finished.stderr) == ("[]", "")


def test_every_heavy_library_has_its_home_at_an_edge() -> None:
    homes = [home for library in HEAVY for home in HOMES[library]]
    assert all(is_in(home, "slotwise.edges") or home in GRPC_CLIENTS for home in homes)


def test_docs_architecture_names_every_room() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for room in ARROWS:
        assert f"`{room.removeprefix('slotwise.')}" in text, f"docs/architecture.md says nothing of {room}"


def test_no_module_is_left_that_nothing_leads_to(trees: dict[str, ast.Module]) -> None:
    if "slotwise.cli" not in trees:
        pytest.skip("nothing leads anywhere before there is a command line")
    experiments = [file for file in read_python() if file.path.startswith("experiments/")]
    leads = {item.target for file in experiments for item in read_imports(file.path, file.tree, set(trees))}
    assert unused(trees, (*ROOTS, *sorted(leads))) == set()


def test_a_module_that_nothing_leads_to_is_found() -> None:
    sources = {"a": "import a.b", "a.b": "from a.c import d; START = 'a.e'", "a.c": "", "a.e": "", "a.f": "import a.c"}
    assert unused({name: ast.parse(source) for name, source in sources.items()}, ["a"]) == {"a.f"}


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("slotwise.facts.types", "import time", "value modules"),
        ("slotwise.facts.types", "import os.path", "value modules"),
        ("slotwise.facts.types", "from random import Random", "value modules"),
        ("slotwise.facts.types", "import numpy", "lives only in"),
        ("slotwise.facts.types", "import slotwise.engine.ports", "may import only"),
        ("slotwise.policy.controller", "def f():\n    import time", "no effects"),
        ("slotwise.policy.controller", "from slotwise.engine import ports", "may import only"),
        ("slotwise.policy.controller", "import msgspec", "lives only in"),
        ("slotwise.policy.planners.best", "import scipy.optimize", "lives only in"),
        ("slotwise.engine.loop", "import asyncio", "no effects"),
        ("slotwise.engine.loop", "from slotwise.policy.controller import Controller", "may import only"),
        ("slotwise.workload.arrivals", "from slotwise.sim import fleet", "may import only"),
        ("slotwise.sim.fleet", "from slotwise.policy import controller", "may import only"),
        ("slotwise.sim.fleet", "import slotwise.edges.store.layout", "may import only"),
        ("slotwise.sim.fleet", "import scipy", "lives only in"),
        ("slotwise.edges.oip.http", "from slotwise.edges import fleets", "may import only"),
        ("slotwise.edges.local.link", "from slotwise.edges.oip import codec", "may import only"),
        ("slotwise.edges.oip.http", "from slotwise.policy import controller", "may import only"),
        ("slotwise.edges.oip.http", "from slotwise.engine import loop", "may import only"),
        ("slotwise.edges.oip.http", "from . import codec", "in full"),
        ("slotwise.edges.oip.http", "import flask", "without a home"),
        ("slotwise.edges.oip.http", "import onnxruntime", "lives only in"),
        ("slotwise.worker", "from slotwise.edges.fleets import processes", "may import only"),
        ("slotwise.client", "from slotwise.edges.oip import http", "may import only"),
        ("slotwise.app", "import onnxruntime", "lives only in"),
        ("slotwise.drawer", "x = 1", "in no room"),
    ],
)
def test_an_arrow_that_must_not_be_is_found(module: str, line: str, complaint: str) -> None:
    assert [complaint in fault for fault in faults(_with_neighbours(module, line))] == [True]


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("slotwise.facts.types", "from collections.abc import Sequence\nfrom slotwise.facts.value import value"),
        ("slotwise.policy.planners.best", "import numpy, random\nfrom slotwise.facts import types"),
        ("slotwise.engine.clock", "import asyncio, time"),
        ("slotwise.oracle.bound", "import numpy\nfrom slotwise.facts.types import Request"),
        ("slotwise.policy.planners.solver", "from scipy import optimize"),
        ("slotwise.edges.oip.http", "import os\nimport uvicorn\nfrom slotwise.edges.oip import codec"),
        ("slotwise.edges.oip.http", "from slotwise import __version__"),
        ("slotwise.worker", "from slotwise.edges.fleets import ring\nfrom slotwise.edges.runtimes.onnx import Onnx"),
        ("slotwise.client", "from slotwise.edges.oip.codec import decode"),
        ("slotwise.app", "from slotwise.policy.controller import Controller\nimport slotwise.edges.oip.http"),
    ],
)
def test_an_arrow_that_may_be_is_left_alone(module: str, line: str) -> None:
    assert faults(_with_neighbours(module, line)) == []


def test_a_file_is_named_as_python_names_it() -> None:
    assert module_name("src/slotwise/edges/oip/http.py") == "slotwise.edges.oip.http"
    assert module_name("src/slotwise/edges/__init__.py") == "slotwise.edges"


def _with_neighbours(module: str, source: str) -> dict[str, ast.Module]:
    names = ("engine.ports", "engine.loop", "policy.controller", "sim.fleet", "edges.store", "edges.oip.http")
    more = ("edges.oip.codec", "edges.fleets.processes", "edges.fleets.ring", "facts.types")
    empty = {f"slotwise.{name}": ast.parse("") for name in (*names, *more)}
    return {**empty, module: ast.parse(source, str(Path(module)))}
