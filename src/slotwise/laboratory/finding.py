"""Finds experiments: a folder for each, with a file that exports it. Nothing is run or judged here."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from slotwise.facts.value import value
from slotwise.laboratory.values import Experiment, LaboratoryError

FILE = "experiment.py"
EXPORT = "EXPERIMENT"
FOLDER = Path("experiments")
"""Where experiments are, in the source tree."""
RESULTS, QUICK_RESULTS = "results", "build/experiments"
"""Where results are kept: in the experiment's folder, or below the one that holds the folder of experiments."""


@value
class Found:
    """An experiment and its folder."""

    experiment: Experiment[Any, Any]
    folder: Path

    @property
    def file(self) -> Path:
        """Where it is written."""
        return self.folder / FILE

    def results(self, is_quick: bool) -> Path:
        """The folder of what came of it; that of quick runs lies apart."""
        return self.folder.parent.parent / QUICK_RESULTS / self.folder.name if is_quick else self.folder / RESULTS


def names(folder: Path) -> list[str]:
    """The experiments of a folder. Raises LaboratoryError where there is none."""
    found = sorted(path.parent.name for path in folder.glob(f"*/{FILE}"))
    if not found:
        raise LaboratoryError(
            f"there are no experiments in {folder}; they come with the source tree of Slotwise: "
            "run this there, or name their folder with --folder"
        )
    return found


def find(folder: Path, name: str) -> Found:
    """The experiment of that name. Raises LaboratoryError."""
    there = names(folder)
    if name not in there:
        raise LaboratoryError(f"there is no experiment {name!r}; there are {', '.join(there)}")
    found = Found(experiment=_exported(folder / name / FILE), folder=(folder / name).resolve())
    if found.experiment.name != name:
        raise LaboratoryError(f"{found.file}: the experiment calls itself {found.experiment.name!r}; call it {name!r}")
    return found


def find_all(folder: Path) -> list[Found]:
    """All experiments of a folder, by name. Raises LaboratoryError."""
    return [find(folder, name) for name in names(folder)]


def _exported(file: Path) -> Experiment[Any, Any]:
    module_name = f"experiment_{file.parent.name.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None, f"{file} is a Python file"
    assert spec.loader is not None, f"{file} is a Python file"
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # types declared in it are looked up there
    spec.loader.exec_module(module)
    experiment = getattr(module, EXPORT, None)
    if not isinstance(experiment, Experiment):
        raise LaboratoryError(f"{file}: it exports no {EXPORT}; let it be an Experiment")
    return experiment
