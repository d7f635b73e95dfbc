"""Emulated models: a file that says what a model costs, and a run that waits that long.

They behave as a model of those tensors and that profile would, at no cost in computation, so that fleets
larger than the machine, or of devices it lacks, can be tried. Outputs are zeros.

    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], "outputs": [...], "batchable": true,
     "profile": {"rows": [1, 8], "run_ns": [1000000, 4000000], "load_ns": 2000000, "memory_bytes": 1048576}}
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from slotwise.edges.runtimes import Description, RunError, Stopped
from slotwise.edges.runtimes.tensors import NUMPY_TYPES, Array
from slotwise.engine.ports import ModelError
from slotwise.facts.profile import Profile, problems
from slotwise.facts.types import TensorSpec

SIZE_MAX = 1 << 40
_VARYING_SIZE = 1
"""What an output's dimension that varies measures here, the batch apart."""


class EmulatedFile(msgspec.Struct, forbid_unknown_fields=True):
    """The file's content."""

    profile: Profile
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batchable: bool = True


def warm_up() -> None:
    """Waiting needs no warming."""


def load(path: str, threads: int) -> EmulatedModel:  # noqa: ARG001  # waiting takes no threads
    """Read the file and wait for as long as loading the model would take. Raises ModelError."""
    try:
        content = msgspec.json.decode(Path(path).read_bytes(), type=EmulatedFile)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path!r} is no emulated model: {error}") from error
    found = problems(content.profile)
    found += [
        f"{spec.name!r} is of the unknown datatype {spec.datatype!r}"
        for spec in content.inputs + content.outputs
        if spec.datatype not in NUMPY_TYPES
    ]
    found += [
        f"{spec.name!r} has the shape {list(spec.shape)}; sizes are -1, which is open, or 0 to {SIZE_MAX}"
        for spec in content.inputs + content.outputs
        if not all(-1 <= size <= SIZE_MAX for size in spec.shape)
    ]
    if found:
        raise ModelError(f"{path!r} is no emulated model: {'; '.join(found)}")
    time.sleep(content.profile.load_ns / 1e9)
    return EmulatedModel(content)


class EmulatedModel:
    """Waits out its profile."""

    def __init__(self, content: EmulatedFile) -> None:
        self._content = content
        self._outputs = {spec.name: spec for spec in content.outputs}
        self._stopped = threading.Event()

    def describe(self) -> Description:
        """What the file says."""
        content = self._content
        return Description(
            inputs=content.inputs, outputs=content.outputs, batchable=content.batchable, profile=content.profile
        )

    def run(
        self, feeds: Mapping[str, Array], rows: int, names: Sequence[str], into: Mapping[str, Array]
    ) -> list[Array]:
        """Wait for the time of so many rows; zeros."""
        if self._stopped.wait(self._content.profile.expected_ns(rows) / 1e9):
            raise Stopped
        return [self._zeros(name, rows, into.get(name)) for name in names]

    def arm(self) -> None:
        """Forget every stop so far."""
        self._stopped.clear()

    def stop(self) -> None:
        """End the waiting."""
        self._stopped.set()

    def _zeros(self, name: str, rows: int, array: Array | None) -> Array:
        spec = self._outputs.get(name)
        if spec is None:
            raise RunError(f"there is no output {name!r}; there are {', '.join(self._outputs) or 'none'}")
        if array is not None:
            array[...] = 0
            return array
        shape = [_VARYING_SIZE if size < 0 else size for size in spec.shape]
        if self._content.batchable and shape:
            shape[0] = rows
        if spec.datatype == "BYTES":
            return np.full(shape, "", np.object_)
        return np.zeros(shape, NUMPY_TYPES[spec.datatype])
