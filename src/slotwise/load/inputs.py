"""What models are asked: inputs in the shapes that the server tells, filled from a seed, made once and sent again.

Random numbers for floats, 0 and 1 for whole numbers, a letter for strings: the values are of no matter to a server.
Models with the same inputs share them. Where inputs are given, as a file's samples, none are made. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from slotwise.client.errors import BadRequest
from slotwise.client.pages import InputSpec, ServerModel
from slotwise.client.question import Question
from slotwise.client.wire import DTYPES, Array
from slotwise.facts.types import FOREVER_NS, PRIORITY_DEFAULT
from slotwise.facts.value import value
from slotwise.load.given import Given, Sample
from slotwise.workload.values import Arrival

VARYING_SIZE = 1
"""What a dimension that varies measures, the rows apart, unless a shape is given."""
BYTES = "BYTES"


@value
class Shape:
    """A shape that was given. With a `datatype` it makes an input of a model whose server tells of none."""

    sizes: tuple[int, ...]
    datatype: str = ""


Shapes = Mapping[str, Shape]
"""By input, or by MODEL:INPUT where only that model's is meant."""


@value
class Taken:
    """The shape that was taken for an input where the server leaves it open."""

    model: str
    input: str
    told: tuple[int, ...]
    taken: tuple[int, ...]


class Questions:
    """What is asked for an arrival. `margin_ns` is what the server is told less than the client allows."""

    def __init__(
        self,
        models: Sequence[ServerModel],
        shapes: Shapes,
        *,
        seed: int,
        margin_ns: int,
        given: Given | None = None,
    ) -> None:
        self._shapes = shapes
        self._given = given
        self._inputs = (
            {model.name: model.inputs or self._declared(model.name) for model in models} if given is None else {}
        )
        self._seed = seed
        self._margin_ns = margin_ns
        self._made: dict[tuple[str, tuple[int, ...]], Array] = {}

    def samples(self, model: str) -> int:
        """How many different questions there are for arrivals of a model that are alike. Raises InputsError."""
        return 1 if self._given is None else self._given.count(model)

    def of(self, arrival: Arrival, sample: int = 0) -> Question:
        """A question. Raises BadRequest for rows or inputs that the model cannot have, InputsError for a file's."""
        model = arrival.model
        return Question(
            model=model,
            inputs=self._made_for(arrival) if self._given is None else _given(self._given, arrival, sample),
            timeout_us=self._timeout_us(arrival.slo_ns),
            priority=None if arrival.priority == PRIORITY_DEFAULT else arrival.priority,
        )

    def taken(self) -> list[Taken]:
        """Where the server leaves a shape open, for one row: what was taken."""
        return [
            Taken(model=model, input=spec.name, told=spec.shape, taken=self._shape(model, spec, 1))
            for model, specs in self._inputs.items()
            for spec in specs
            if any(size < 0 for size in spec.shape[1:])
        ]

    def _made_for(self, arrival: Arrival) -> dict[str, Array]:
        specs = self._inputs[arrival.model]
        return {spec.name: self._array(arrival.model, spec, arrival.rows) for spec in specs}

    def _declared(self, model: str) -> tuple[InputSpec, ...]:
        """The inputs of a model whose server tells of none. Raises BadRequest where they were not given either."""
        given = {name.removeprefix(f"{model}:"): shape for name, shape in self._shapes.items() if shape.datatype}
        if not given:
            raise BadRequest(f"the server does not tell what {model} takes; name its inputs as --shape x=1,64:FP32")
        return tuple(
            InputSpec(name, shape.datatype, (-1, *shape.sizes[1:])) for name, shape in given.items() if ":" not in name
        )

    def _timeout_us(self, slo_ns: int) -> int | None:
        """What the server is told; half of the time at least, and nothing where there is no deadline."""
        if slo_ns >= FOREVER_NS:
            return None
        return max(1, max(slo_ns - self._margin_ns, slo_ns // 2) // 1000)

    def _array(self, model: str, spec: InputSpec, rows: int) -> Array:
        shape = self._shape(model, spec, rows)
        key = (spec.datatype, shape)
        if key not in self._made:
            self._made[key] = _filled(spec, shape, self._seed)
        return self._made[key]

    def _shape(self, model: str, spec: InputSpec, rows: int) -> tuple[int, ...]:
        given = self._shapes.get(f"{model}:{spec.name}", self._shapes.get(spec.name))
        sizes = [VARYING_SIZE if size < 0 else size for size in spec.shape] if given is None else list(given.sizes)
        if len(sizes) != len(spec.shape) or any(a != b for a, b in zip(sizes, spec.shape, strict=True) if b >= 0):
            raise BadRequest(
                f"input {spec.name!r} of {model} has the shape {list(spec.shape)}, which {sizes} does not fit"
            )
        if spec.shape and spec.shape[0] < 0:
            sizes[0] = rows if given is None or rows > 1 else sizes[0]
        elif rows > 1:
            raise BadRequest(f"{model} takes one row at a time, and the workload asks {rows} at once")
        return tuple(sizes)


def _given(given: Given, arrival: Arrival, sample: int) -> Sample:
    if arrival.rows > 1:
        raise BadRequest(
            f"the workload asks {arrival.rows} rows of {arrival.model} at once, and samples of a file go as they are"
        )
    return given.inputs(arrival.model, sample)


def _filled(spec: InputSpec, shape: tuple[int, ...], seed: int) -> Array:
    if spec.datatype == BYTES:
        return np.full(shape, "a", np.object_)
    dtype = DTYPES.get(spec.datatype)
    if dtype is None:
        raise BadRequest(f"input {spec.name!r} has the type {spec.datatype}, which this client does not know")
    source = np.random.default_rng(seed)
    if dtype.kind == "f":
        return source.standard_normal(shape).astype(dtype)
    return source.integers(0, 2, shape).astype(dtype)
