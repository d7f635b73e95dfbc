"""Runtimes: what turns a file into a model that runs. One file each, chosen by the file's ending.

To add one: a file with the functions of `Runtime`, its import and its line in `RUNTIMES`, a test file. A runtime's
library is imported when its first model is loaded (or by `preload`), never by this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from slotwise.edges.runtimes.tensors import Array
from slotwise.engine.ports import ModelError
from slotwise.facts.profile import Profile
from slotwise.facts.types import TensorSpec
from slotwise.facts.value import value


class Stopped(Exception):
    """A run was ended by `stop`."""


class RunError(Exception):
    """A run failed; the text is the runtime's own."""


@value
class Description:
    """What a model's file says of it."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool | None = None
    """Whether rows may be batched; None where only a trial can tell."""
    profile: Profile | None = None
    """What it costs; None where that must be measured."""


class Model(Protocol):
    """A loaded model. One run at a time; `stop` may come from another thread.

    Its memory is given back with the last reference to it, so that a run is never robbed of its model.
    """

    def describe(self) -> Description:
        """What the model takes and gives."""

    def run(
        self, feeds: Mapping[str, Array], rows: int, names: Sequence[str], into: Mapping[str, Array]
    ) -> list[Array]:
        """The outputs of these names, in this order, for inputs of so many rows. Raises Stopped or RunError.

        An output that `into` has an array for is written there, and that array is returned.
        """

    def arm(self) -> None:
        """Forget every stop so far. A stop after this ends the next run, even if it comes before that run's start."""

    def stop(self) -> None:
        """End the present run, or the next one if none has started since `arm`."""


class Runtime(Protocol):
    """A module of this folder."""

    def warm_up(self) -> None:
        """Do once what the first model would otherwise wait for. Leaves no thread behind."""

    def load(self, path: str, threads: int) -> Model:
        """Read a model and make it ready to run on so many threads. Raises ModelError."""


class Packer(Protocol):
    """What a runtime has beside that can bring a model into a form whose weights processes share."""

    PACKED_FILE: str
    """What such a model's file is called. `load` reads it as it reads any other."""

    WAYS: int
    """How many ways of packing there are, the best one first: what does not work for a model may do in another way."""

    def pack(self, path: str, file: str, way: int) -> None:
        """Write a model in that form, and what belongs to it beside. Raises ModelError."""


class _Onnx(Runtime, Packer, Protocol):
    """The one runtime that packs."""


def _onnx() -> _Onnx:
    from slotwise.edges.runtimes import onnx

    return onnx


def _emulated() -> Runtime:
    from slotwise.edges.runtimes import emulated

    return emulated


RUNTIMES: dict[str, Callable[[], Runtime]] = {
    ".onnx": _onnx,
    ".emulated.json": _emulated,
}
"""How a file's name ends, and what imports the runtime for it."""
PACKERS: dict[str, Callable[[], Packer]] = {".onnx": _onnx}
"""The same for those that pack."""


def load(path: str, threads: int) -> Model:
    """Load a model with the runtime that its file's ending names. Raises ModelError, whose text is for its owner."""
    ending = next((ending for ending in RUNTIMES if path.endswith(ending)), None)
    if ending is None:
        raise ModelError(f"no runtime reads {path!r}: its name must end in one of {', '.join(RUNTIMES)}")
    if not Path(path).is_file():
        raise ModelError(f"there is no file {path!r}")
    return RUNTIMES[ending]().load(path, threads)


def packer(path: str) -> Packer | None:
    """What can pack a model; None where its runtime has no such form."""
    return next((load_library() for ending, load_library in PACKERS.items() if path.endswith(ending)), None)


def preload() -> None:
    """Import and warm up every runtime's library now, so that processes forked from this one share it."""
    for runtime in RUNTIMES.values():
        runtime().warm_up()
