"""Inputs from a file, in place of made ones: samples that are sent in turn.

Two forms. A `.npz` has an array for each input, by the input's name, or as MODEL:INPUT where it is that model's alone;
its first axis counts samples. A `.json` has bodies of requests as the protocol writes them, each of which is a sample.
What does not fit the model that is asked is told before anything is sent. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from slotwise.client.pages import InputSpec, ServerModel
from slotwise.client.wire import Array, array_of, datatype_of, packed

ARRAYS_SUFFIX, BODIES_SUFFIX = ".npz", ".json"
FILE_BYTES_MAX = 1 << 30
SAMPLES_MAX = 100_000
"""Of a model; all are held in memory."""
Sample = Mapping[str, Array]
"""The inputs of one request, by name."""


class InputsError(ValueError):
    """A file of inputs that cannot be asked with; the text says which file, model and tensor, and what is wrong."""


class GivenReport(msgspec.Struct, frozen=True):
    """The samples of a model. Bytes are those of a request's tensors as they travel; text has four more for each."""

    model: str
    samples: int
    bytes_min: int
    bytes_mean: float
    bytes_max: int


class Given:
    """The samples of a file. `read` makes those of a model, when it is first asked for them."""

    def __init__(self, path: Path, models: Sequence[ServerModel], read: Callable[[ServerModel], list[Sample]]) -> None:
        self._path = path
        self._models = {model.name: model for model in models}
        self._read = read
        self._samples: dict[str, list[Sample]] = {}

    def count(self, model: str) -> int:
        """How many samples there are for a model; at least one. Raises InputsError."""
        return len(self._of(model))

    def inputs(self, model: str, sample: int) -> Sample:
        """The sample of that number, from 0. Raises InputsError."""
        return self._of(model)[sample]

    def reports(self) -> tuple[GivenReport, ...]:
        """The samples of the models that were asked for."""
        return tuple(_report(model, samples) for model, samples in sorted(self._samples.items()))

    def _of(self, model: str) -> list[Sample]:
        found = self._samples.get(model)
        if found is None:
            found = self._read(self._models[model])
            if not 0 < len(found) <= SAMPLES_MAX:
                raise InputsError(f"{self._path}: {len(found)} samples for {model}; there must be 1 to {SAMPLES_MAX}")
            self._samples[model] = found
        return found


def read_given(path: Path, models: Sequence[ServerModel]) -> Given:
    """The samples of a file for these models. Raises InputsError, and OSError for a file that cannot be read."""
    if path.suffix not in (ARRAYS_SUFFIX, BODIES_SUFFIX):
        raise InputsError(
            f"{path} is neither a {ARRAYS_SUFFIX} file with arrays nor a {BODIES_SUFFIX} file with bodies"
        )
    if path.stat().st_size > FILE_BYTES_MAX:
        raise InputsError(f"{path} has more than {FILE_BYTES_MAX} bytes; take fewer samples")
    if path.suffix == ARRAYS_SUFFIX:
        arrays = _Arrays(path)
        arrays.check_names(models)
        return Given(path, models, arrays.samples)
    bodies = _Bodies(path)
    bodies.check_names(models)
    return Given(path, models, bodies.samples)


class _Arrays:
    """A file of arrays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._arrays: dict[str, Array] = {}
        try:
            with np.load(path, allow_pickle=False) as file:
                self._arrays = {name: self._array(file, name) for name in file.files}
        except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
            if isinstance(error, InputsError):
                raise
            raise InputsError(f"{path} is no {ARRAYS_SUFFIX} file, as numpy.savez writes them: {error}") from error

    def check_names(self, models: Sequence[ServerModel]) -> None:
        """Raises InputsError for an array that no model takes; where a server tells of no inputs, any may be."""
        known = {name for model in models for spec in model.inputs for name in (spec.name, f"{model.name}:{spec.name}")}
        unknown = [name for name in self._arrays if name not in known]
        if unknown and all(model.inputs for model in models):
            raise InputsError(f"{self._path}: no model takes {unknown[0]!r}; inputs are {', '.join(sorted(known))}")

    def samples(self, model: ServerModel) -> list[Sample]:
        """The samples of a model."""
        split = {spec.name: self._split(model.name, spec) for spec in model.inputs}
        if not model.inputs:
            split = {name: [array[at : at + 1] for at in range(len(array))] for name, array in self._arrays.items()}
        counts = {name: len(items) for name, items in split.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
            raise InputsError(f"{self._path}: {model.name}: inputs have different numbers of samples: {told}")
        return [dict(zip(split, items, strict=True)) for items in zip(*split.values(), strict=True)]

    def _array(self, file: Mapping[str, Array], name: str) -> Array:
        try:
            array = file[name]
        except ValueError as error:
            words = "it holds Python objects; texts are stored as an array of type S or U"
            raise InputsError(f"{self._path}: {name!r} cannot be read: {words}") from error
        if not array.ndim:
            raise InputsError(f"{self._path}: {name!r} is one value; its first axis should count samples")
        return array

    def _split(self, model: str, spec: InputSpec) -> list[Array]:
        """An input's samples: each is one of the first axis, with that axis kept where the input has as many axes."""
        array = self._arrays.get(f"{model}:{spec.name}", self._arrays.get(spec.name))
        if array is None:
            raise InputsError(f"{self._path}: {model}: no array {spec.name!r}; there are {', '.join(self._arrays)}")
        has_more = array.ndim == len(spec.shape) + 1
        shape = array.shape[1:] if has_more else (1, *array.shape[1:])
        _check(self._path, model, spec, datatype_of(array) or str(array.dtype), shape)
        return [array[at] if has_more else array[at : at + 1] for at in range(len(array))]


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    data: msgspec.Raw = msgspec.Raw(b"")


class _Body(msgspec.Struct, frozen=True):
    """A request's body. Deadlines and whatever else it says are the workload's here."""

    inputs: list[_Tensor]
    model_name: str = ""
    """Whose it is; everybody's without one."""


class _Bodies:
    """A file of bodies: a list of them, or one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            found = msgspec.json.decode(path.read_bytes(), type=list[_Body] | _Body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InputsError(f"{path} is no list of bodies of requests: {error}") from error
        self._bodies = found if isinstance(found, list) else [found]

    def check_names(self, models: Sequence[ServerModel]) -> None:
        """Raises InputsError for a body whose model is not asked."""
        known = ["", *(model.name for model in models)]
        for at, body in enumerate(self._bodies):
            if body.model_name not in known:
                raise InputsError(f"{self._path}: body {at} is for {body.model_name!r}, which is not asked")

    def samples(self, model: ServerModel) -> list[Sample]:
        """The samples of a model."""
        return [
            self._sample(f"{model.name}, body {at}", model, body)
            for at, body in enumerate(self._bodies)
            if body.model_name in ("", model.name)
        ]

    def _sample(self, where: str, model: ServerModel, body: _Body) -> Sample:
        given = {tensor.name: tensor for tensor in body.inputs}
        specs = {spec.name: spec for spec in model.inputs} or dict.fromkeys(given)
        for name in (*given, *specs):
            if name not in specs or name not in given:
                wrong = "is missing" if name in specs else f"is not one of {', '.join(specs)}"
                raise InputsError(f"{self._path}: {where}: input {name!r} {wrong}")
        return {name: self._tensor(where, given[name], spec) for name, spec in specs.items()}

    def _tensor(self, where: str, given: _Tensor, spec: InputSpec | None) -> Array:
        if spec is not None:
            _check(self._path, where, spec, given.datatype, given.shape)
        if not bytes(given.data):
            raise InputsError(f"{self._path}: {where}: input {given.name!r} has no data; binary data has no place here")
        try:
            return array_of(given.datatype, given.shape, given.data)
        except ValueError as fault:
            raise InputsError(f"{self._path}: {where}: input {given.name!r} {fault}") from fault


def _check(path: Path, where: str, spec: InputSpec, datatype: str, shape: Sequence[int]) -> None:
    """Raises InputsError for what is not of the type and shape that the model takes."""
    if datatype != spec.datatype:
        raise InputsError(
            f"{path}: {where}: input {spec.name!r} is {datatype}, and {spec.datatype} is taken; convert it"
        )
    fits = len(shape) == len(spec.shape) and all(b < 0 or a == b for a, b in zip(shape, spec.shape, strict=True))
    if not fits:
        raise InputsError(
            f"{path}: {where}: a sample of input {spec.name!r} has the shape {list(shape)}, which {list(spec.shape)}"
            " does not fit"
        )


def _report(model: str, samples: Sequence[Sample]) -> GivenReport:
    sizes = [sum(len(packed(name, array)[1]) for name, array in sample.items()) for sample in samples]
    return GivenReport(
        model=model,
        samples=len(sizes),
        bytes_min=min(sizes),
        bytes_mean=round(sum(sizes) / len(sizes), 1),
        bytes_max=max(sizes),
    )
