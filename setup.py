"""Compiles the hot modules with mypyc, where `SLOTWISE_COMPILE` is set; `make` does so where it can.

The compiled modules are the same typed Python, about two and a half times as fast. They lie beside their sources and
take precedence, so they must be built again after an edit (`make compiled`) or be removed (`make interpreted`).
Everything else about the package stands in pyproject.toml.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, setup

PACKAGE = Path("src/slotwise")
TABLES = {"__init__.py", "presets.py"}
"""Tables and settings by name: read once, at the start."""
OTHERS = (
    *("facts/residency", "facts/profile", "facts/histogram"),
    *("engine/clock", "engine/loop", "engine/statistics", "pipelines/relay"),
    *("sim/fleet", "sim/front", "sim/links", "sim/world", "workload/arrivals", "workload/player"),
)


def compiled() -> list[Extension]:
    """Whatever runs for each request and touches nothing outside: what decides, the loop, and the simulator."""
    from mypyc.build import mypycify

    policy = [path for path in sorted(PACKAGE.glob("policy/**/*.py")) if path.name not in TABLES]
    others = [PACKAGE / f"{name}.py" for name in OTHERS]
    return mypycify([str(path) for path in others + policy], opt_level="1", multi_file=True)


setup(ext_modules=compiled() if os.environ.get("SLOTWISE_COMPILE") else [])
