"""Which models are asked, with what, and how often beside each other.

Every model shall take the same share of the executors' time, so cheap models are asked more often, up to
`RATE_MAX_PER_S`: beyond it a tiny model would load the door and the client rather than the executors. What the
capped ones leave goes to the others.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slotwise.client import Array
from slotwise.demo.server import DemoError
from slotwise.facts.units import MS
from slotwise.facts.value import value
from slotwise.workload.values import Stream

EXAMPLE_FILE, EXPECTED_FILE, SETTINGS_FILE = "example.npz", "expected.npz", "slotwise.toml"
RATE_MAX_PER_S = 30.0
"""Of one model at a load of 1, before calibration."""
MODELS_MIN = 1
TOLERANCE = 1e-2
"""How far an answer may lie from the expected one, as a share of the largest number in it."""


@value
class Exhibit:
    """A model with an example of what to ask it and of what it answers."""

    model: str
    slo_ns: int
    inputs: dict[str, Array]
    expected: dict[str, Array]


def exhibits(repository: Path) -> list[Exhibit]:
    """The models of a repository that come with an example and an SLO. Raises DemoError when there is none."""
    found = [_exhibit(folder) for folder in sorted(repository.iterdir()) if (folder / EXAMPLE_FILE).is_file()]
    if len(found) < MODELS_MIN:
        raise DemoError(f"no model in {repository} has an {EXAMPLE_FILE}; build a zoo with: slotwise zoo build FOLDER")
    return found


def is_as_expected(exhibit: Exhibit, outputs: Mapping[str, Array]) -> bool:
    """Whether an answer is the expected one, to the precision that another processor keeps."""
    return all(name in outputs and _is_close(outputs[name], array) for name, array in exhibit.expected.items())


def shares(cost_s: Mapping[str, float], executors: int, rate_max_per_s: float = RATE_MAX_PER_S) -> dict[str, float]:
    """Requests a second of each model that keep so many executors busy, by the models' times alone."""
    rates: dict[str, float] = {}
    busy_left = float(executors)
    for position, (model, cost) in enumerate(sorted(cost_s.items(), key=lambda item: (item[1], item[0]))):
        rates[model] = min(rate_max_per_s, busy_left / (len(cost_s) - position) / cost)
        busy_left -= rates[model] * cost
    return {model: rates[model] for model in cost_s}


def streams(exhibits: list[Exhibit], rates: Mapping[str, float], factor: float) -> tuple[Stream, ...]:
    """The mix at so many times its rates."""
    return tuple(
        Stream(model=exhibit.model, rate_per_s=rates[exhibit.model] * factor, slo_ns=exhibit.slo_ns)
        for exhibit in exhibits
    )


def _exhibit(folder: Path) -> Exhibit:
    try:
        settings = tomllib.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        return Exhibit(
            model=folder.name,
            slo_ns=round(float(settings["slo_ms"]) * MS),
            inputs=_arrays(folder / EXAMPLE_FILE),
            expected=_arrays(folder / EXPECTED_FILE),
        )
    except (OSError, KeyError, ValueError) as error:
        raise DemoError(f"{folder} is no entry of a zoo ({error}); build it anew with: slotwise zoo build") from error


def _arrays(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _is_close(given: Array, expected: Array) -> bool:
    if given.shape != expected.shape or given.dtype != expected.dtype:
        return False
    if not np.issubdtype(expected.dtype, np.number):
        return bool(np.array_equal(given, expected))
    allowed = TOLERANCE * max(1e-6, float(np.max(np.abs(expected), initial=0.0)))
    return bool(np.all(np.abs(given.astype(np.float64) - expected.astype(np.float64)) <= allowed))
