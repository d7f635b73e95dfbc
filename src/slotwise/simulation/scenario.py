"""What is simulated, as one value: models, executors, requests, faults, the policy and the seed.

Files are made into it (`building`) and experiments make it in code; `running` runs it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import field, replace
from enum import Enum

from slotwise.facts.types import ModelSpec
from slotwise.facts.units import S
from slotwise.facts.value import value
from slotwise.sim.faults import Faults
from slotwise.sim.fleet import FleetSettings
from slotwise.workload.values import Phase, Workload, scaled

WARM_UP_NS = 10 * S


class FaultKind(Enum):
    """What can be done to an executor."""

    KILL = "kill"
    HANG = "hang"
    SLOW = "slow"


@value
class Fault:
    """Something that goes wrong `at_ns` after the first requests may come, at all of `executors` at once.

    `for_ns` is how long those that are killed stay away (None: as is usual), and when those that are slow, by `factor`,
    are mended (None: never).
    """

    at_ns: int
    kind: FaultKind
    executors: tuple[str, ...]
    for_ns: int | None = None
    factor: float = 1.0


@value
class Group:
    """Models, by their ids, that a report tells of together."""

    name: str
    models: tuple[str, ...]


@value
class Scenario:
    """All that a run depends on: two runs of the same value are the same to the byte.

    Models are loaded for `warm_up_ns` before the workload begins. Without `groups` the report has a line a model.
    """

    models: tuple[ModelSpec, ...]
    fleet: FleetSettings
    workload: Workload
    policy: str = "slotwise"
    settings: Mapping[str, object] = field(default_factory=dict)
    """Of the policy: what is to be other than usual."""
    seed: int = 1
    faults: tuple[Fault, ...] = ()
    chance: Faults = field(default_factory=Faults)
    warm_up_ns: int = WARM_UP_NS
    groups: tuple[Group, ...] = ()


def changed(
    scenario: Scenario,
    *,
    policy: str | None = None,
    seed: int | None = None,
    scale: float = 1.0,
    seconds: float | None = None,
) -> Scenario:
    """The same scenario, but for what is given. Another policy has its usual settings. Raises WorkloadError.

    `seconds` is how long requests come: rates that change go on changing until then, or stay as they are at their end.
    """
    workload = scaled(scenario.workload, scale)
    if seconds is not None:
        workload = lasting(workload, seconds)
    if seed is not None:
        workload = replace(workload, seed=seed)
        scenario = replace(scenario, seed=seed)
    if policy is not None and policy != scenario.policy:
        scenario = replace(scenario, policy=policy, settings={})
    return replace(scenario, workload=workload)


def lasting(workload: Workload, seconds: float) -> Workload:
    """The same for so many seconds: cut short, or with rates that stay as they are at their end."""
    end = bisect_left(workload.recorded, int(seconds * S), key=lambda arrival: arrival.at_ns)
    return replace(
        workload,
        streams=tuple(replace(stream, phases=_lasting(stream.phases, seconds)) for stream in workload.streams),
        phases=_lasting(workload.phases, seconds) or (Phase(duration_s=seconds),),
        recorded=workload.recorded[:end],
    )


def _lasting(phases: tuple[Phase, ...], seconds: float) -> tuple[Phase, ...]:
    """The same phases, cut short or with a longer last one; none, where there is none."""
    kept: list[Phase] = []
    left_s = seconds
    for index, phase in enumerate(phases):
        if left_s > 0:
            is_last = index == len(phases) - 1
            kept.append(replace(phase, duration_s=left_s if is_last else min(phase.duration_s, left_s)))
            left_s -= phase.duration_s
    return tuple(kept)
