"""Runs a scenario in virtual time, in the product's own system (`app.simulated`), and reports what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import IO

from slotwise.app import simulated, simulated_logs
from slotwise.config import ConfigError
from slotwise.edges.logs.settings import Logs
from slotwise.engine.journal import Journal
from slotwise.engine.ports import Recorder
from slotwise.facts.actions import Reply
from slotwise.facts.limits import LIMIT_MAX
from slotwise.facts.statistics import LogUse
from slotwise.facts.types import Request
from slotwise.facts.units import S
from slotwise.sim.checks import Checks
from slotwise.sim.faults import Injector
from slotwise.sim.fleet import SimFleet
from slotwise.sim.world import World
from slotwise.simulation.course import Course
from slotwise.simulation.report import Report, attainment, model_report
from slotwise.simulation.scenario import Fault, FaultKind, Group, Scenario
from slotwise.workload.player import player_of

COOL_DOWN_NS = 600 * S
"""How long replies are waited for after the last arrival."""
STEPS = 100
"""In which progress is told."""
INTERVALS_MAX = 100
"""Of the report's course, but for those of a run beyond all counting."""
INTERVALS_S = tuple(first * 10.0**power for power in range(-6, 8) for first in (1, 2, 5))
"""As long as people count in."""


Progress = Callable[[float, float], None]
"""Told of how many seconds of the workload have been simulated, of how many."""


def run(
    scenario: Scenario,
    *,
    journal: IO[bytes] | None = None,
    logs: Path | None = None,
    is_checked: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Simulate. `logs` is a folder; if `is_checked`, every invariant is checked after every turn.

    Raises PresetError, or ConfigError for a workload without an end or a folder that cannot be used.
    """
    seconds = scenario.workload.duration_s
    if math.isinf(seconds):
        raise ConfigError("the workload never ends; say how many seconds are to be simulated")
    log_files = simulated_logs(Logs(folder=str(logs), bytes_max=LIMIT_MAX)) if logs is not None else None
    interval_s = next(length for length in INTERVALS_S if seconds <= length * INTERVALS_MAX)
    course = Course(
        start_ns=scenario.warm_up_ns,
        end_ns=scenario.warm_up_ns + int(seconds * S),
        interval_ns=int(interval_s * S),
        executors=[slice_.executor for slice_ in scenario.fleet.slices],
    )
    recorders: list[Recorder] = [course]
    if is_checked:
        recorders.append(Checks({model.id: model for model in scenario.models}))
    if journal is not None:
        recorders.append(Journal(journal, {"policy": scenario.policy, "settings": dict(scenario.settings)}))
    if log_files is not None:
        recorders.append(log_files)

    def ended(request: Request, reply: Reply) -> None:
        course.ended(request, reply, world.clock.now_ns())

    world: World = simulated(
        policy=scenario.policy,
        settings=scenario.settings,
        models=scenario.models,
        fleet=scenario.fleet,
        seed=scenario.seed,
        recorders=recorders,
        pipeline_recorders=[log_files] if log_files is not None else [],
        on_reply=ended,
    )
    _play(world, scenario, progress)
    if log_files is not None:
        _check_written(log_files.close())
    return _report(world, scenario, course, interval_s)


def _play(world: World, scenario: Scenario, progress: Progress | None) -> None:
    """Warm up, let everybody ask while things go wrong, and wait for the last answers."""
    start_ns = scenario.warm_up_ns
    end_ns = start_ns + int(scenario.workload.duration_s * S)
    for fault in scenario.faults:
        world.clock.call_at(start_ns + fault.at_ns, partial(_happen, world, fault))
    world.run(start_ns)
    names = tuple(slice_.executor for slice_ in scenario.fleet.slices)
    Injector(world, scenario.chance, names, scenario.seed).run(end_ns)
    world.play(player_of(scenario.workload), start_ns)
    if progress is not None:
        for step in range(1, STEPS + 1):
            world.run(start_ns + (end_ns - start_ns) * step // STEPS)
            progress(scenario.workload.duration_s * step / STEPS, scenario.workload.duration_s)
    world.run(end_ns + COOL_DOWN_NS)


def _happen(world: World, fault: Fault) -> None:
    for executor in fault.executors:
        _strike(world.fleet, fault, executor)
        if fault.kind is FaultKind.SLOW and fault.for_ns is not None:
            world.clock.call_at(world.clock.now_ns() + fault.for_ns, partial(world.fleet.slow, executor, 1.0))


def _strike(fleet: SimFleet, fault: Fault, executor: str) -> None:
    match fault.kind:
        case FaultKind.KILL:
            fleet.kill(executor, away_ns=fault.for_ns)
        case FaultKind.HANG:
            fleet.hang(executor)
        case FaultKind.SLOW:
            fleet.slow(executor, fault.factor)


def _check_written(logs: Iterable[LogUse]) -> None:
    lost = sum(log.rows_unwritable for log in logs)
    if lost:
        raise ConfigError(f"the disk did not take {lost} rows of the logs; name a folder with more room")


def _report(world: World, scenario: Scenario, course: Course, interval_s: float) -> Report:
    seconds = scenario.workload.duration_s
    groups = scenario.groups or tuple(Group(name=model.name, models=(model.id,)) for model in scenario.models)
    total = model_report("all", world.front.tally())
    return Report(
        simulated=True,
        policy=scenario.policy,
        seed=scenario.seed,
        seconds=seconds,
        goodput_per_s=total.in_time / seconds if seconds else 0.0,
        attainment=attainment(total),
        unanswered=world.front.unanswered(),
        total=total,
        models=tuple(model_report(group.name, world.front.tally(*group.models)) for group in groups),
        executors=course.executors(),
        interval_s=interval_s,
        course=course.points(),
    )
