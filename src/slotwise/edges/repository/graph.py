"""What a pipeline's steps come to together: a spec of their whole, or why they do not fit. Pure.

A step is checked against the models on offer as they are now; whoever changes one of them asks again.
"""

from __future__ import annotations

import graphlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from slotwise.edges.repository.pipeline import PipelineText, StepText
from slotwise.engine.ports import ModelError, ModelStatus
from slotwise.facts.pipeline import expected_ns, expected_rest_ns
from slotwise.facts.profile import Profile
from slotwise.facts.shapes import VARIABLE
from slotwise.facts.types import ModelSpec, Step, TensorSpec, Wire
from slotwise.facts.value import value

Find = Callable[[str, str], ModelStatus | None]
"""A version of a model by name; without one, the newest that is ready."""


@value
class Whole:
    """What there is to know of a pipeline beside its owner's wishes."""

    steps: tuple[Step, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool
    batch_max: int
    profile: Profile
    """That of the longest way through the steps."""
    digest: str


def assemble(text: PipelineText, find: Find, steps_max: int) -> Whole:
    """The steps in an order in which each comes after those it needs. Raises ModelError with what to do."""
    if not 1 <= len(text.steps) <= steps_max:
        raise ModelError(f"it has {len(text.steps)} steps; 1 to {steps_max} can be chained")
    makers = _makers(text)
    members = [_member(at, step, find) for at, step in enumerate(text.steps)]
    order = _order(text, makers)
    tensors = _tensors(text, members, order)
    used = {name for step in text.steps for name in step.inputs.values()} | set(text.outputs)
    steps = tuple(_step(at, text.steps[at], members[at], used) for at in order)
    specs = {spec.id: spec for spec in members}
    batch_max = min(spec.batch_max for spec in members)
    batchable = all(spec.batchable for spec in members)
    return Whole(
        steps=steps,
        inputs=tuple(_named(tensors, name, "inputs") for name in text.inputs),
        outputs=tuple(_named(tensors, name, "outputs") for name in text.outputs),
        batchable=batchable,
        batch_max=batch_max if batchable else 1,
        profile=_profile(steps, specs, batch_max if batchable else 1),
        digest=_digest(text, specs),
    )


def _makers(text: PipelineText) -> dict[str, int | None]:
    """Which step makes each tensor; None for those that clients send."""
    if not text.inputs or not text.outputs:
        raise ModelError("`inputs` and `outputs` must each name a tensor at least")
    for key, names in (("inputs", text.inputs), ("outputs", text.outputs)):
        if len(set(names)) < len(names):
            raise ModelError(f"`{key}` names a tensor twice")
    makers: dict[str, int | None] = dict.fromkeys(text.inputs)
    for at, step in enumerate(text.steps):
        for name in step.outputs.values():
            if name in makers:
                other = makers[name]
                first = "comes from the client" if other is None else f"is made by {_label(other, text.steps[other])}"
                raise ModelError(f"{_label(at, step)} makes tensor {name!r}, which {first}; give it another name")
            makers[name] = at
    for at, step in enumerate(text.steps):
        for name in step.inputs.values():
            if name not in makers:
                raise ModelError(f"{_label(at, step)} takes tensor {name!r}, which nobody makes")
    for name in text.outputs:
        if makers.get(name) is None:
            raise ModelError(f"`outputs` names {name!r}, which no step makes")
    return makers


def _member(at: int, step: StepText, find: Find) -> ModelSpec:
    version = "" if step.version is None else str(step.version)
    status = find(step.model, version)
    if status is None:
        which = f"version {version} of model {step.model!r}" if version else f"model {step.model!r}"
        raise ModelError(f"{_label(at, step)}: there is no {which} in the repository")
    spec = status.spec
    if spec is None:
        why = f": {status.reason}" if status.reason else ""
        raise ModelError(f"{_label(at, step)}: model {step.model!r} is {status.state.value}{why}")
    if spec.steps:
        raise ModelError(f"{_label(at, step)}: {step.model!r} is a pipeline itself; name its steps here instead")
    for role, named, there in (("input", step.inputs, spec.inputs), ("output", step.outputs, spec.outputs)):
        names = [tensor.name for tensor in there]
        for name in named:
            if name not in names:
                raise ModelError(f"{_label(at, step)} has no {role} {name!r}; it has {', '.join(names)}")
    for tensor in spec.inputs:
        if tensor.name not in step.inputs:
            raise ModelError(f"{_label(at, step)}: nothing goes to its input {tensor.name!r}")
    return spec


def _order(text: PipelineText, makers: Mapping[str, int | None]) -> list[int]:
    sorter: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
    for at, step in enumerate(text.steps):
        before = {makers[name] for name in step.inputs.values()}
        sorter.add(at, *sorted(maker for maker in before if maker is not None))
    try:
        return list(sorter.static_order())
    except graphlib.CycleError as error:
        ring = " needs ".join(_label(at, text.steps[at]) for at in reversed(error.args[1]))
        raise ModelError(f"the steps go in a circle: {ring}") from error


def _tensors(text: PipelineText, members: list[ModelSpec], order: list[int]) -> dict[str, TensorSpec]:
    """Every tensor with what all who make and take it agree on."""
    tensors: dict[str, TensorSpec] = {}
    for at in order:
        step, spec = text.steps[at], members[at]
        for name, tensor in step.inputs.items():
            declared = next(one for one in spec.inputs if one.name == name)
            known = tensors.get(tensor)
            tensors[tensor] = replace(declared, name=tensor) if known is None else _agreed(known, declared, at, step)
        for name, tensor in step.outputs.items():
            tensors[tensor] = replace(next(one for one in spec.outputs if one.name == name), name=tensor)
    return tensors


def _agreed(known: TensorSpec, taken: TensorSpec, at: int, step: StepText) -> TensorSpec:
    given = f"input {taken.name!r} of {_label(at, step)} takes {taken.datatype} {list(taken.shape)}"
    problem = f"{given}, but tensor {known.name!r} is {known.datatype} {list(known.shape)}"
    if known.datatype != taken.datatype or len(known.shape) != len(taken.shape):
        raise ModelError(problem)
    pairs = list(zip(known.shape, taken.shape, strict=True))
    if any(a != b and VARIABLE not in (a, b) for a, b in pairs):
        raise ModelError(problem)
    return replace(known, shape=tuple(max(a, b) for a, b in pairs))


def _step(at: int, step: StepText, spec: ModelSpec, used: set[str]) -> Step:
    outputs = tuple(Wire(name=name, tensor=tensor) for name, tensor in step.outputs.items() if tensor in used)
    if not outputs:
        raise ModelError(f"{_label(at, step)}: nothing that it makes is used; leave it out")
    inputs = tuple(Wire(name=name, tensor=tensor) for name, tensor in step.inputs.items())
    return Step(model=spec.id, inputs=inputs, outputs=outputs)


def _named(tensors: Mapping[str, TensorSpec], name: str, key: str) -> TensorSpec:
    if name not in tensors:
        raise ModelError(f"`{key}` names {name!r}, which no step takes")
    return tensors[name]


def _profile(steps: tuple[Step, ...], specs: Mapping[str, ModelSpec], batch_max: int) -> Profile:
    """Without memory of its own. At the sizes at which some step was measured, between which all are linear."""
    measured = {size for spec in specs.values() for size in spec.profile.rows if size <= batch_max}
    rows = tuple(sorted({1} | measured))
    times = tuple(max(expected_rest_ns(steps, expected_ns(steps, specs, size))) for size in rows)
    return Profile(rows=rows, run_ns=times, load_ns=0, memory_bytes=0)


def _digest(text: PipelineText, specs: Mapping[str, ModelSpec]) -> str:
    parts = [repr(text), *(f"{name} {specs[name].digest}" for name in sorted(specs))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _label(at: int, step: StepText) -> str:
    return f"step {at + 1} ({step.model})"
