"""From a simulation's file to what is run: models with profiles, executors, requests, faults. Pure.

The file has been read and agrees with itself (`reading`), so nothing here fails but for rates that only become too
large by the scale. What comes of it, a `Scenario`, can as well be made in code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from slotwise.config import MIB
from slotwise.facts.pipeline import expected_ns, expected_rest_ns
from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, Step, TensorSpec, Wire
from slotwise.facts.units import MS, US, S
from slotwise.sim.faults import Faults
from slotwise.sim.fleet import FleetSettings, Noise, SimSlice
from slotwise.simulation.fleets import CLOCKWORK_PAGE_BYTES, CLOCKWORK_PAGES
from slotwise.simulation.form import DevicePart, FaultPart, KindPart, ModelPart, NodePart, PipelinePart, SlicePart, Spec
from slotwise.simulation.models import copies, copy_names
from slotwise.simulation.scenario import Fault, FaultKind, Group, Scenario, lasting
from slotwise.workload.form import Lines, made, wants
from slotwise.workload.values import Phase, Stream, Workload

KIB = 1 << 10
BYTES_PER_MBIT = 1e6 / 8
LOAD_MS, MEMORY_MIB = 50.0, 10.0
"""Of a model whose times stand in the file, where nothing is said."""
SLO_MS = 100.0
"""The usual allowance of models that a workload by name brings along; its requests have their own."""
SECONDS = 60.0
EXECUTORS = 2
UNLIMITED_BYTES = 1 << 62
WHOLE = SlicePart(share=1.0)


CORE = KindPart(name="core")
V100 = KindPart(
    name="v100",
    memory_mib=CLOCKWORK_PAGES * CLOCKWORK_PAGE_BYTES / MIB,
    page_mib=CLOCKWORK_PAGE_BYTES / MIB,
)


def kinds_of(spec: Spec) -> dict[str, KindPart]:
    """All kinds by name: those that need no description, unless the file describes them otherwise, and its own."""
    return {kind.name: kind for kind in (CORE, V100, *spec.kinds)}


def scenario_of(spec: Spec, profiles: Mapping[str, Profile], lines: Lines) -> Scenario:
    """What a file describes; `lines` hands over what the workload is replayed from. Raises WorkloadError."""
    kinds = kinds_of(spec)
    used = {device.kind for node in spec.nodes for device in node.devices}
    own = kinds[next(iter(used))].profiles if len(used) == 1 else {}
    parts = [_copies(part, _profile(part, own, profiles)) for part in spec.models]
    members = [model for models in parts for model in models]
    pipelines = [_pipeline(part, members) for part in spec.pipelines]
    return Scenario(
        models=(*members, *pipelines),
        groups=(
            *(_group(part.name, models) for part, models in zip(spec.models, parts, strict=True)),
            *(_group(model.name, [model]) for model in pipelines),
        ),
        fleet=_fleet(spec),
        workload=workload_of(spec, lines),
        policy=spec.policy,
        settings=spec.policy_settings,
        seed=spec.seed,
        faults=tuple(_fault(part, spec) for part in spec.faults),
        chance=Faults(
            kill_s=spec.chance.kill_every_s,
            hang_s=spec.chance.hang_every_s,
            cancelled_share=spec.chance.cancelled_share,
            patience_ns=int(spec.chance.patience_ms * MS),
        ),
        warm_up_ns=int(spec.warm_up_s * S),
    )


def executors_of(spec: Spec, where: str) -> tuple[str, ...]:
    """The executors at a place: one by its name, a device with all its slices, or a node with all its devices."""
    names = [slice_.executor for slice_ in _fleet(spec).slices]
    return tuple(name for name in names if name == where or name.startswith((f"{where}:", f"{where}.")))


def own_profile(part: ModelPart) -> Profile:
    """The times that stand in the file."""
    return Profile(
        rows=part.rows,
        run_ns=tuple(int(run_ms * MS) for run_ms in part.run_ms),
        load_ns=int((LOAD_MS if part.load_ms is None else part.load_ms) * MS),
        memory_bytes=int((MEMORY_MIB if part.memory_mib is None else part.memory_mib) * MIB),
    )


def _profile(part: ModelPart, own: Mapping[str, str], profiles: Mapping[str, Profile]) -> Profile:
    """That of the kind of device, if it has its own for this model; else what the model says."""
    name = own.get(part.name, part.profile)
    return profiles[name] if name else own_profile(part)


def _copies(part: ModelPart, profile: Profile) -> tuple[ModelSpec, ...]:
    return copies(
        part.name,
        profile,
        part.copies,
        slo_ns=int(part.slo_ms * MS),
        batch_max=part.batch_max or None,
        priority=part.priority,
        weight=part.weight,
    )


def _group(name: str, models: Sequence[ModelSpec]) -> Group:
    return Group(name=name, models=tuple(model.id for model in models))


def workload_of(spec: Spec, lines: Lines) -> Workload:
    """As the file says in a table of its own, or at the rates of the models. Raises WorkloadError."""
    if spec.workload is None:
        phase = Phase(duration_s=SECONDS if spec.seconds is None else spec.seconds)
        return Workload(streams=tuple(_streams(spec)), phases=(phase,), seed=spec.seed)
    names = [name for part in spec.models for name in copy_names(part.name, part.copies)]
    names += [part.name for part in spec.pipelines]
    workload = made(spec.workload, {name: f"{name}/1" for name in names}, seed=spec.seed, lines=lines).workload
    return workload if spec.seconds is None else lasting(workload, spec.seconds)


def _streams(spec: Spec) -> Iterator[Stream]:
    parts: tuple[ModelPart | PipelinePart, ...] = (*spec.models, *spec.pipelines)
    for part in parts:
        count = part.copies if isinstance(part, ModelPart) else 1
        for name in copy_names(part.name, count):
            yield Stream(
                model=f"{name}/1",
                rate_per_s=part.rate_per_s / count,
                slo_ns=int(part.slo_ms * MS),
                priority=part.priority,
            )


def with_wanted_models(spec: Spec) -> Spec:
    """The same; where a workload by name finds no models, those that it wants. Raises WorkloadError."""
    if spec.models or spec.workload is None:
        return spec
    seen: Counter[str] = Counter()
    parts: list[ModelPart] = []
    for want in wants(spec.workload):
        again = f".{seen[want.model_type]}" if seen[want.model_type] else ""
        seen[want.model_type] += 1
        name = f"{want.model_type}{again}"
        parts.append(ModelPart(name=name, profile=want.model_type, copies=want.copies, slo_ms=SLO_MS))
    return replace(spec, models=tuple(parts))


def _pipeline(part: PipelinePart, members: Sequence[ModelSpec]) -> ModelSpec:
    """Every step makes one tensor, which all of the next stage take in."""
    steps: list[Step] = []
    before: tuple[Wire, ...] = (Wire(name="0", tensor="in"),)
    for stage in part.stages:
        made = tuple(Wire(name=str(at), tensor=str(len(steps) + at)) for at in range(len(stage)))
        steps += [Step(model=f"{name}/1", inputs=before, outputs=(made[at],)) for at, name in enumerate(stage)]
        before = made
    times_ns = expected_ns(steps, {spec.id: spec for spec in members}, 1)
    run_ns = max(expected_rest_ns(steps, times_ns))
    return ModelSpec(
        id=f"{part.name}/1",
        name=part.name,
        version="1",
        profile=Profile(rows=(1,), run_ns=(run_ns,), load_ns=0, memory_bytes=0),
        slo_ns=int(part.slo_ms * MS),
        priority=part.priority,
        inputs=(TensorSpec(name="in", datatype="FP32", shape=()),),
        outputs=tuple(TensorSpec(name=wire.tensor, datatype="FP32", shape=()) for wire in before),
        steps=tuple(steps),
    )


# Executors: of a node `NODE:DEVICE`, of a device that is cut `NODE:DEVICE.SLICE`.


def _fleet(spec: Spec) -> FleetSettings:
    part = spec.fleet
    kinds = kinds_of(spec)
    slices = [slice_ for node in spec.nodes for slice_ in _node(node, kinds)]
    return FleetSettings(
        slices=tuple(slices) if spec.nodes else _alike(part.executors or EXECUTORS, part.memory_mib),
        link_ns=int(part.link_us * US),
        link_spread=part.link_spread,
        link_bytes_per_s=part.link_mbit_s * BYTES_PER_MBIT,
        row_bytes=_row_bytes(spec.models),
        is_far=bool(spec.nodes),
        noise=Noise(
            spread=part.spread,
            load_spread=part.load_spread,
            overrun_share=part.overrun_share,
            overrun_factor=part.overrun_factor,
        ),
        restart_ns=int(part.restart_ms * MS),
    )


def _row_bytes(parts: Sequence[ModelPart]) -> dict[str, int]:
    return {
        f"{name}/1": int(part.input_kib * KIB)
        for part in parts
        if part.input_kib
        for name in copy_names(part.name, part.copies)
    }


def _alike(executors: int, memory_mib: float) -> tuple[SimSlice, ...]:
    share_bytes = int(memory_mib * MIB) // executors or UNLIMITED_BYTES
    return tuple(
        SimSlice(executor=f"sim{index}", memory_bytes=share_bytes, page_bytes=MIB) for index in range(executors)
    )


def _node(node: NodePart, kinds: Mapping[str, KindPart]) -> Iterator[SimSlice]:
    link_ns = None if node.link_us is None else int(node.link_us * US)
    for name in copy_names(node.name, node.count):
        places: dict[str, int] = {}
        for device in node.devices:
            for _ in range(device.count):
                index = places[device.kind] = places.get(device.kind, -1) + 1
                own = f"{name}:{device.kind}-{index}"
                yield from device_slices(device, kinds[device.kind], own, node=name, link_ns=link_ns)


def device_slices(
    device: DevicePart, kind: KindPart, name: str, *, node: str = "", link_ns: int | None = None
) -> Iterator[SimSlice]:
    """The executors of one device of that name."""
    for index, slice_ in enumerate(device.slices or (WHOLE,)):
        memory_bytes = int(kind.memory_mib * slice_.share * MIB) if kind.memory_mib else UNLIMITED_BYTES
        yield SimSlice(
            executor=f"{name}.{index}" if device.slices else name,
            memory_bytes=memory_bytes,
            page_bytes=max(1, int(kind.page_mib * MIB)),
            slowness=kind.slowness * (1 / slice_.share if slice_.slowness is None else slice_.slowness),
            node=node,
            link_ns=link_ns,
        )


def _fault(part: FaultPart, spec: Spec) -> Fault:
    return Fault(
        at_ns=int(part.at_s * S),
        kind=FaultKind(part.do),
        executors=executors_of(spec, part.where),
        for_ns=None if part.for_s is None else int(part.for_s * S),
        factor=part.factor,
    )
