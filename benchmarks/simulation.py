"""How fast virtual time goes: simulated requests per second of processor time, on one core.

The whole system is in it: arrivals, loop, controller, fleet, statistics; the policy is `slotwise`. Two sizes, at
load within capacity and far above it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import replace

from harness.report import Report, is_quick, median

from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec
from slotwise.facts.units import MS, US, S
from slotwise.policy.presets import build_controller
from slotwise.sim.fleet import FleetSettings, Noise, SimSlice
from slotwise.sim.world import World
from slotwise.workload.arrivals import arrivals
from slotwise.workload.mixes import Share, mix
from slotwise.workload.values import Arrival, Phase, Workload

SIZES = ((2, 10), (8, 100))
"""Executors and models."""
UTILISATIONS = (0.8, 2.0)
BUDGET_PER_S = 20_000
LOADING_NS = 5 * S
"""Nothing is asked until then, so that loads are over."""


def main() -> None:
    quick = is_quick(__doc__)
    requests, runs = (3_000, 1) if quick else (20_000, 3)
    report = Report("simulation", is_quick=quick)
    for executors, models in SIZES:
        for utilisation in UTILISATIONS:
            found = [run(executors, models, utilisation, requests, seed) for seed in range(runs)]
            report.add(
                executors=executors,
                models=models,
                utilisation=utilisation,
                requests_per_s=median([per_s for per_s, _ in found]),
                us_per_request=median([1e6 / per_s for per_s, _ in found]),
                answered_in_time=median([share for _, share in found]),
            )
    report.print_table(f"Median of {runs} runs of {requests:,} requests (budget: {BUDGET_PER_S:,} a second)")
    report.keep()


def run(executors: int, models: int, utilisation: float, requests: int, seed: int) -> tuple[float, float]:
    """Requests per second of processor time, and the share of them answered in time."""
    specs = [_spec(number) for number in range(models)]
    streams = mix(
        {spec.id: spec.profile for spec in specs},
        {spec.id: spec.slo_ns for spec in specs},
        share=Share.WORK,
        utilisation=utilisation,
        executors=executors,
    )
    duration_s = requests / sum(stream.rate_per_s for stream in streams)
    workload = Workload(streams=streams, phases=(Phase(duration_s=duration_s),), seed=seed)
    slices = tuple(SimSlice(executor=f"core{number}") for number in range(executors))
    world = World(
        controller=build_controller("slotwise"),
        models=specs,
        fleet=FleetSettings(slices=slices, noise=Noise(spread=0.05)),
        seed=seed,
    )
    world.run(LOADING_NS)
    world.feed(_shifted(workload))
    gc.collect()
    gc.freeze()
    begin_ns = time.process_time_ns()
    world.run(LOADING_NS + int((duration_s + 5) * S))
    took_ns = time.process_time_ns() - begin_ns
    gc.unfreeze()
    tally = world.front.tally()
    assert world.front.unanswered() == 0, "every request is answered once"
    return tally.offered / took_ns * S, tally.in_time / tally.offered


def _shifted(workload: Workload) -> Iterator[Arrival]:
    """The arrivals, once loads are over."""
    return (replace(arrival, at_ns=arrival.at_ns + LOADING_NS) for arrival in arrivals(workload))


def _spec(number: int) -> ModelSpec:
    """Models of 1 to 10 ms; a batch of eight takes five times as long as one."""
    one_ns = 1 * MS + (number * 7919 % 9_000) * US
    profile = Profile(rows=(1, 8), run_ns=(one_ns, one_ns * 5), load_ns=20 * MS, memory_bytes=1)
    name = f"model{number}"
    return ModelSpec(
        id=f"{name}/1", name=name, version="1", profile=profile, slo_ns=100 * MS, batch_max=8, batchable=True
    )


if __name__ == "__main__":
    main()
