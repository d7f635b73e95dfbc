"""Inputs made up to try a model with: random numbers or zeros, in shapes that its owner may give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.random import Generator, default_rng

from slotwise.edges.runtimes import Description, Model, RunError
from slotwise.edges.runtimes.tensors import NUMPY_TYPES, Array
from slotwise.engine.ports import ModelError
from slotwise.facts.types import TensorSpec
from slotwise.facts.value import value

VARYING_SIZE = 1
"""What a dimension that varies measures in an example, the batch apart, unless example shapes say more."""
SEED = 7


@value
class Example:
    """How inputs are made up: random numbers or zeros, and shapes for what varies."""

    inputs: tuple[TensorSpec, ...]
    shapes: Mapping[str, tuple[int, ...]]
    is_random: bool = True

    def feeds(self, rows: int, seed: int = SEED) -> dict[str, Array]:
        """Inputs of so many rows; the same seed gives the same."""
        source = default_rng(seed)
        return {spec.name: self._array(spec, rows, source) for spec in self.inputs}

    def _array(self, spec: TensorSpec, rows: int, source: Generator) -> Array:
        shape = self._shape(spec, rows)
        if spec.datatype == "BYTES":
            return np.full(shape, "a", np.object_)
        dtype = NUMPY_TYPES[spec.datatype]
        if not self.is_random:
            return np.zeros(shape, dtype)
        if dtype.kind == "f":
            return source.standard_normal(shape).astype(dtype)
        return source.integers(0, 2, shape).astype(dtype)

    def _shape(self, spec: TensorSpec, rows: int) -> tuple[int, ...]:
        given = self.shapes.get(spec.name, ())
        sizes = [size if size >= 0 else VARYING_SIZE for size in spec.shape]
        if given:
            if len(given) != len(sizes) or any(a != b for a, b in zip(given, spec.shape, strict=True) if b >= 0):
                raise ModelError(
                    f"input {spec.name!r} has shape {list(spec.shape)}, which {list(given)} is no example of"
                )
            sizes = list(given)
        if spec.shape and spec.shape[0] < 0:
            sizes[0] = rows
        return tuple(sizes)


def working_example(path: str, model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Example:
    """Inputs that the model runs on; this also warms it up."""
    described = model.describe()
    unknown = shapes.keys() - {spec.name for spec in described.inputs}
    if unknown:
        raise ModelError(f"{path!r} has no input {', '.join(sorted(unknown))}")
    example = Example(inputs=described.inputs, shapes=shapes)
    zeros = Example(inputs=described.inputs, shapes=shapes, is_random=False)
    if _failure(model, described, example) is None:
        return example
    message = _failure(model, described, zeros)
    if message is None:
        return zeros
    shown = {name: list(array.shape) for name, array in example.feeds(1).items()}
    raise ModelError(
        f"{path!r} does not run on example inputs of shapes {shown}: {message}; give example shapes that fit"
    )


def _failure(model: Model, described: Description, example: Example) -> str | None:
    """The runtime's complaint about an example of one row; None when it runs."""
    try:
        run(model, described, example.feeds(1))
    except RunError as error:
        return str(error)
    return None


def run(model: Model, described: Description, feeds: Mapping[str, Array]) -> Sequence[Array]:
    """All outputs of one run."""
    rows = next((array.shape[0] for array in feeds.values() if array.ndim), 1)
    return model.run(feeds, rows, [spec.name for spec in described.outputs], {})
