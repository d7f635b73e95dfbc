"""What parts of a simulation's file must agree on: names that there must be, numbers that must fit together. Pure.

Each finding names the key that is wrong, so that whoever reads the file can say on which line it stands.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from slotwise.facts.profile import Profile, problems
from slotwise.facts.value import value
from slotwise.simulation.building import executors_of, kinds_of, own_profile
from slotwise.simulation.form import ModelPart, NodePart, PipelinePart, Spec
from slotwise.simulation.models import copy_names

MODELS_MAX = 100_000
EXECUTORS_MAX = 10_000
"""More would be built, slowly; that is mostly a slip of the pen."""
SHARES_MAX = 1 + 1e-9
"""Of the slices of a device; thirds may not add up to 1 to the last bit."""


@value
class Finding:
    """What is wrong, at a path such as `$.models[1].rows`."""

    path: str
    message: str


def findings(spec: Spec, profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Everything that does not fit together; the profiles are all that can be named."""
    if not spec.models:
        yield Finding(path="$.models", message="a simulation needs a model at least")
    for index, model in enumerate(spec.models):
        yield from _model(model, f"$.models[{index}]", profiles)
    yield from _pipelines(spec)
    yield from _rates(spec)
    yield from _names(spec)
    yield from _kinds(spec, profiles)
    yield from _fleet(spec)
    yield from _faults(spec)


def _model(model: ModelPart, path: str, profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    times = {"rows": model.rows, "run_ms": model.run_ms, "load_ms": model.load_ms, "memory_mib": model.memory_mib}
    if model.profile:
        yield from _known(model.profile, profiles, f"{path}.profile", "profile")
        for key, given in times.items():
            if given not in ((), None):
                yield Finding(path=f"{path}.{key}", message="the profile says so already; leave out one of the two")
        return
    if not model.rows or not model.run_ms:
        yield Finding(path=path, message="a model needs a `profile` by name, or `rows` and `run_ms`")
        return
    wrong = problems(own_profile(model))
    if wrong:
        yield Finding(path=f"{path}.rows", message="; ".join(wrong).replace("run_ns", "run_ms"))


def _pipelines(spec: Spec) -> Iterator[Finding]:
    names = [name for model in spec.models for name in _first_copies(model)]
    for index, pipeline in enumerate(spec.pipelines):
        yield from _stages(pipeline, f"$.pipelines[{index}].stages", names)


def _first_copies(model: ModelPart) -> Sequence[str]:
    return copy_names(model.name, min(model.copies, MODELS_MAX))


def _stages(pipeline: PipelinePart, path: str, names: Sequence[str]) -> Iterator[Finding]:
    if not pipeline.stages or not all(pipeline.stages):
        yield Finding(path=path, message="each of `stages`, one at least, must name a model")
    for stage, members in enumerate(pipeline.stages):
        for place, member in enumerate(members):
            yield from _known(member, names, f"{path}[{stage}][{place}]", "model")


def _rates(spec: Spec) -> Iterator[Finding]:
    tables: dict[str, Sequence[ModelPart | PipelinePart]] = {"models": spec.models, "pipelines": spec.pipelines}
    for table, parts in tables.items() if spec.workload is not None else ():
        for index, part in enumerate(parts):
            if part.rate_per_s:
                message = "`[workload]` says who asks how often; leave out one of the two"
                yield Finding(path=f"$.{table}[{index}].rate_per_s", message=message)


def _names(spec: Spec) -> Iterator[Finding]:
    if sum(model.copies for model in spec.models) > MODELS_MAX:
        yield Finding(path="$.models", message=f"{MODELS_MAX} models, copies counted, are the most")
        return
    models = [(name, f"$.models[{at}].name") for at, part in enumerate(spec.models) for name in _first_copies(part)]
    pipelines = [(part.name, f"$.pipelines[{at}].name") for at, part in enumerate(spec.pipelines)]
    yield from _twice("models", [*models, *pipelines])
    yield from _twice("kinds", [(kind.name, f"$.kinds[{at}].name") for at, kind in enumerate(spec.kinds)])
    yield from _twice("nodes", [(node.name, f"$.nodes[{at}].name") for at, node in enumerate(spec.nodes)])


def _twice(what: str, named: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    seen: set[str] = set()
    for name, path in named:
        if name in seen:
            yield Finding(path=path, message=f"two {what} have the same name, {name}; give each its own")
        seen.add(name)


def _kinds(spec: Spec, profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    models = [model.name for model in spec.models]
    for index, kind in enumerate(spec.kinds):
        for model, profile in kind.profiles.items():
            path = f"$.kinds[{index}].profiles.{model}"
            yield from _known(model, models, path, "model")
            yield from _known(profile, profiles, path, "profile")
    for index, name in enumerate(spec.capacity.kinds):
        yield from _known(name, [kind.name for kind in spec.kinds], f"$.capacity.kinds[{index}]", "kind")


def _fleet(spec: Spec) -> Iterator[Finding]:
    if spec.nodes and spec.fleet.executors is not None:
        yield Finding(path="$.fleet.executors", message="the nodes say which executors there are; leave it out")
    if spec.nodes and spec.fleet.memory_mib:
        yield Finding(path="$.fleet.memory_mib", message="the kinds of the devices say so; leave it out")
    for index, node in enumerate(spec.nodes):
        yield from _node(node, f"$.nodes[{index}]", spec)
    if sum(_count(node) for node in spec.nodes) > EXECUTORS_MAX:
        yield Finding(path="$.nodes", message=f"{EXECUTORS_MAX} executors are the most")
    used = {device.kind for node in spec.nodes for device in node.devices}
    for index, kind in enumerate(spec.kinds):
        if kind.profiles and kind.name in used and len(used) > 1:
            message = "where kinds are mixed, they differ by `slowness`; profiles of its own are for a kind alone"
            yield Finding(path=f"$.kinds[{index}].profiles", message=message)


def _node(node: NodePart, path: str, spec: Spec) -> Iterator[Finding]:
    kinds = kinds_of(spec)
    if not node.devices:
        yield Finding(path=f"{path}.devices", message="a node needs a device at least")
    for index, device in enumerate(node.devices):
        yield from _known(device.kind, kinds, f"{path}.devices[{index}].kind", "kind")
        if sum(slice_.share for slice_ in device.slices) > SHARES_MAX:
            yield Finding(path=f"{path}.devices[{index}].slices", message="the slices are more than the device")


def _count(node: NodePart) -> int:
    return node.count * sum(device.count * max(1, len(device.slices)) for device in node.devices)


def _faults(spec: Spec) -> Iterator[Finding]:
    if not spec.faults or sum(_count(node) for node in spec.nodes) > EXECUTORS_MAX:
        return
    known = {device.kind for node in spec.nodes for device in node.devices}
    if not known <= kinds_of(spec).keys():
        return  # which is told of already
    for index, fault in enumerate(spec.faults):
        if not executors_of(spec, fault.where):
            message = f"there is nothing called {fault.where!r}; name a node, NODE:DEVICE or an executor"
            yield Finding(path=f"$.faults[{index}].where", message=message)
        if fault.do == "hang" and fault.for_s is not None:
            message = "whoever hangs does so until it is replaced; leave it out"
            yield Finding(path=f"$.faults[{index}].for_s", message=message)


def _known(name: str, names: Iterable[str], path: str, what: str) -> Iterator[Finding]:
    known = list(names)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        yield Finding(path=path, message=f"there is no {what} {name!r}{hint}")
