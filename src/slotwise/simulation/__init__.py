"""A simulation as a file: models with their profiles, a fleet, a workload; and what came of it.

The file is TOML; an unknown key or a value of the wrong kind is an error that names file and key. Running it builds
the product's own system in virtual time (`app.simulated`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Annotated

import msgspec

from slotwise.app import simulated, simulated_logs
from slotwise.config import MIB, ConfigError
from slotwise.edges.logs.settings import Logs
from slotwise.engine.journal import Journal
from slotwise.engine.ports import Recorder
from slotwise.facts.limits import LIMIT_MAX
from slotwise.facts.pipeline import expected_ns, expected_rest_ns
from slotwise.facts.profile import Profile, problems
from slotwise.facts.statistics import LogUse
from slotwise.facts.types import (
    PRIORITY_DEFAULT,
    PRIORITY_HIGHEST,
    PRIORITY_LOWEST,
    ModelSpec,
    Outcome,
    Step,
    TensorSpec,
    Wire,
)
from slotwise.facts.units import MS, US, S
from slotwise.sim.checks import Checks
from slotwise.sim.fleet import FleetSettings, Noise, SimSlice
from slotwise.sim.front import Tally
from slotwise.workload.player import player_of
from slotwise.workload.values import Phase, Stream, Workload, WorkloadError

WARM_UP_NS = 10 * S
"""Loads go first; the workload starts this late."""
COOL_DOWN_NS = 600 * S
"""How long replies are waited for after the last arrival."""

NUMBER_MAX = 1e9
Positive = Annotated[float, msgspec.Meta(gt=0, le=NUMBER_MAX)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=NUMBER_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0, le=int(NUMBER_MAX))]
Priority = Annotated[int, msgspec.Meta(ge=PRIORITY_HIGHEST, le=PRIORITY_LOWEST)]


class ModelPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model: `run_ms[i]` is the time of a batch of `rows[i]`; requests come at `rate_per_s` times the scale."""

    name: str
    rows: tuple[Count, ...]
    run_ms: tuple[Positive, ...]
    rate_per_s: Amount
    slo_ms: Positive
    load_ms: Amount = 50.0
    memory_mib: Amount = 10.0
    batch_max: Count = 0
    """0 takes the largest of `rows`."""
    priority: Priority = PRIORITY_DEFAULT
    weight: Positive = 1.0


class PipelinePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pipeline of models by their names: those of one stage run at once, after all of the stage before."""

    name: str
    stages: tuple[tuple[str, ...], ...]
    rate_per_s: Amount
    slo_ms: Positive
    priority: Priority = PRIORITY_DEFAULT


class FleetPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Executors and how they differ from their profiles. Memory 0 is without limit."""

    executors: Count = 2
    memory_mib: Amount = 0.0
    link_us: Amount = 50.0
    spread: Amount = 0.0
    overrun_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    overrun_factor: Amount = 10.0


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole simulation."""

    models: tuple[ModelPart, ...]
    pipelines: tuple[PipelinePart, ...] = ()
    fleet: FleetPart = FleetPart()
    seconds: Positive = 60.0


class ModelReport(msgspec.Struct, frozen=True):
    """What became of one model's requests, or of all."""

    model: str
    offered: int
    in_time: int
    outcomes: dict[str, int]
    latency_ms_p50: float
    latency_ms_p99: float
    refusal_ms_p50: float


class Report(msgspec.Struct, frozen=True):
    """What came of a simulation. Times are virtual."""

    simulated: bool
    policy: str
    seed: int
    scale: float
    seconds: float
    goodput_per_s: float
    total: ModelReport
    models: tuple[ModelReport, ...]


def read_spec(path: Path) -> Spec:
    """Read a simulation's file. Raises ConfigError."""
    try:
        spec = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Spec)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    for model in spec.models:
        wrong = problems(_profile(model))
        if wrong:
            raise ConfigError(f"{path}: model {model.name}: {'; '.join(wrong)}")
    known = [model.name for model in spec.models]
    for pipeline in spec.pipelines:
        if not pipeline.stages or not all(pipeline.stages):
            raise ConfigError(f"{path}: pipeline {pipeline.name}: each of `stages`, one at least, must name a model")
        unknown = sorted({name for stage in pipeline.stages for name in stage} - set(known))
        if unknown:
            raise ConfigError(f"{path}: pipeline {pipeline.name}: there is no model {', '.join(unknown)}")
    names = known + [pipeline.name for pipeline in spec.pipelines]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path}: two models have the same name; give each its own")
    if not spec.models or spec.fleet.executors < 1:
        raise ConfigError(f"{path}: a simulation needs a model and an executor at least")
    return spec


def run(
    spec: Spec, *, policy: str, scale: float, seed: int, journal: IO[bytes] | None = None, logs: Path | None = None
) -> Report:
    """Simulate, with every invariant checked after every turn; `logs` is a folder for the logs.

    Raises PresetError, or ConfigError for a bad rate or a folder that cannot be used.
    """
    members = [_model(part) for part in spec.models]
    models = [*members, *(_pipeline(part, members) for part in spec.pipelines)]
    recorders: list[Recorder] = [Checks({model.id: model for model in models})]
    if journal is not None:
        recorders.append(Journal(journal, {"policy": policy, "settings": {}}))
    log_files = simulated_logs(Logs(folder=str(logs), bytes_max=LIMIT_MAX)) if logs is not None else None
    if log_files is not None:
        recorders.append(log_files)
    world = simulated(
        policy=policy,
        settings={},
        models=models,
        fleet=_fleet(spec),
        seed=seed,
        recorders=recorders,
        pipeline_recorders=[log_files] if log_files is not None else [],
    )
    world.run(WARM_UP_NS)
    world.play(player_of(_workload(spec, scale, seed)), WARM_UP_NS)
    world.run(WARM_UP_NS + int(spec.seconds * S) + COOL_DOWN_NS)
    if log_files is not None:
        _check_written(log_files.close())
    total = world.front.tally()
    return Report(
        simulated=True,
        policy=policy,
        seed=seed,
        scale=scale,
        seconds=spec.seconds,
        goodput_per_s=total.in_time / spec.seconds,
        total=_report("all", total),
        models=tuple(_report(model.name, world.front.tally(model.id)) for model in models),
    )


def _check_written(logs: Iterable[LogUse]) -> None:
    lost = sum(log.rows_unwritable for log in logs)
    if lost:
        raise ConfigError(f"the disk did not take {lost} rows of the logs; name a folder with more room")


def _workload(spec: Spec, scale: float, seed: int) -> Workload:
    asked: tuple[ModelPart | PipelinePart, ...] = (*spec.models, *spec.pipelines)
    try:
        streams = tuple(
            Stream(
                model=f"{part.name}/1",
                rate_per_s=part.rate_per_s * scale,
                slo_ns=int(part.slo_ms * MS),
                priority=part.priority,
            )
            for part in asked
        )
        return Workload(streams=streams, phases=(Phase(duration_s=spec.seconds),), seed=seed)
    except WorkloadError as error:
        raise ConfigError(str(error)) from error


def _profile(part: ModelPart) -> Profile:
    return Profile(
        rows=part.rows,
        run_ns=tuple(int(run_ms * MS) for run_ms in part.run_ms),
        load_ns=int(part.load_ms * MS),
        memory_bytes=int(part.memory_mib * MIB),
    )


def _model(part: ModelPart) -> ModelSpec:
    return ModelSpec(
        id=f"{part.name}/1",
        name=part.name,
        version="1",
        profile=_profile(part),
        slo_ns=int(part.slo_ms * MS),
        batch_max=part.batch_max or part.rows[-1],
        priority=part.priority,
        weight=part.weight,
        batchable=part.rows[-1] > 1,
    )


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


def _fleet(spec: Spec) -> FleetSettings:
    part = spec.fleet
    share_bytes = int(part.memory_mib * MIB) // part.executors or 1 << 62
    return FleetSettings(
        slices=tuple(
            SimSlice(executor=f"sim{index}", memory_bytes=share_bytes, page_bytes=MIB)
            for index in range(part.executors)
        ),
        link_ns=int(part.link_us * US),
        noise=Noise(spread=part.spread, overrun_share=part.overrun_share, overrun_factor=part.overrun_factor),
    )


def _report(model: str, tally: Tally) -> ModelReport:
    return ModelReport(
        model=model,
        offered=tally.offered,
        in_time=tally.in_time,
        outcomes={outcome.value: tally.outcomes.get(outcome, 0) for outcome in Outcome},
        latency_ms_p50=tally.latency_ns_p50 / MS,
        latency_ms_p99=tally.latency_ns_p99 / MS,
        refusal_ms_p50=tally.refusal_ns_p50 / MS,
    )
