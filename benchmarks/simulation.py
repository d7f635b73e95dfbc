"""How fast virtual time goes: simulated requests per second of processor time, on one core.

The whole system is in it: arrivals, loop, controller, fleet, statistics. Two tables:

    sizes   the policy `slotwise` on few and on more executors, at load within capacity and far above it
    many    1,000 models, asked 2,000 times a second in all with skewed rates, on eight executors; with memory for all
            models on each executor (`resident`), and for 50 (`swapped`), so that one request in eight finds its
            model nowhere

`is_compiled` tells whether what decides was (`make compiled`, `make interpreted`). Requests per second of wall time
stand beside those of processor time, which alone count on a machine that is shared.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Sequence

from harness.report import Report, is_quick, median

from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec
from slotwise.facts.units import MS, US, S
from slotwise.facts.value import value
from slotwise.policy import controller
from slotwise.policy.presets import build_controller
from slotwise.sim.fleet import FleetSettings, Noise, SimSlice
from slotwise.sim.world import World
from slotwise.workload.mixes import Share, mix
from slotwise.workload.player import player_of
from slotwise.workload.values import Phase, Stream, Workload

SIZES = ((2, 10), (8, 100))
"""Executors and models."""
UTILISATIONS = (0.8, 2.0)
BUDGET_PER_S = 20_000

POLICIES = ("slotwise", "clockwork", "fifo")
MANY_MODELS = 1_000
MANY_PER_S = 2_000
MANY_EXECUTORS = 8
HELD = {"resident": MANY_MODELS, "swapped": 50}
"""How many models an executor has memory for."""
RESNET50 = Profile(
    rows=(1, 2, 4, 8, 16),
    run_ns=(2_610 * US, 3_780 * US, 5_610 * US, 9_130 * US, 15_670 * US),
    load_ns=8_330 * US,
    memory_bytes=1,
)
"""As in table 1 of Clockwork (OSDI 2020); a model counts as one byte."""

LOADING_NS = 10 * S
"""Nothing is asked until then, so that loads are over."""


@value
class Found:
    """One run. `in_time` is a share of what was asked."""

    cpu_per_s: float
    wall_per_s: float
    in_time: float


def main() -> None:
    quick = is_quick(__doc__)
    requests, runs = (3_000, 1) if quick else (20_000, 3)
    report = Report("simulation", is_quick=quick)
    title = f"Median of {runs} runs of {requests:,} requests (budget: {BUDGET_PER_S:,} a second)"
    for (executors, models), utilisation in itertools.product(SIZES, UTILISATIONS):
        specs = [_spec(number) for number in range(models)]
        streams = _equal(specs, utilisation, executors)
        found = [run("slotwise", specs, streams, executors, models, requests, seed) for seed in range(runs)]
        report.add(executors=executors, models=models, utilisation=utilisation, **_figures(found))
    report.print_table(title)
    first = len(report)
    specs = [_copy(number) for number in range(MANY_MODELS)]
    for (case, held), policy in itertools.product(HELD.items(), POLICIES):
        found = [run(policy, specs, _skewed(specs), MANY_EXECUTORS, held, requests, seed) for seed in range(runs)]
        report.add(case=case, policy=policy, **_figures(found))
    report.print_table(title, first)
    report.keep()


def run(
    policy: str,
    specs: Sequence[ModelSpec],
    streams: tuple[Stream, ...],
    executors: int,
    held: int,
    requests: int,
    seed: int,
) -> Found:
    """One run. `held` is how many models an executor has memory for."""
    duration_s = requests / sum(stream.rate_per_s for stream in streams)
    workload = Workload(streams=streams, phases=(Phase(duration_s=duration_s),), seed=seed)
    slices = tuple(SimSlice(executor=f"core{number}", memory_bytes=held) for number in range(executors))
    world = World(
        controller=build_controller(policy),
        models=specs,
        fleet=FleetSettings(slices=slices, noise=Noise(spread=0.05)),
        seed=seed,
    )
    world.run(LOADING_NS)
    world.play(player_of(workload), LOADING_NS)
    gc.collect()
    gc.freeze()
    begin_ns, begin_cpu_ns = time.perf_counter_ns(), time.process_time_ns()
    world.run(LOADING_NS + int((duration_s + 5) * S))
    took_cpu_ns, took_ns = time.process_time_ns() - begin_cpu_ns, time.perf_counter_ns() - begin_ns
    gc.unfreeze()
    tally = world.front.tally()
    assert world.front.unanswered() == 0, "every request is answered once"
    return Found(
        cpu_per_s=tally.offered / took_cpu_ns * S,
        wall_per_s=tally.offered / took_ns * S,
        in_time=tally.in_time / tally.offered,
    )


def _figures(found: Sequence[Found]) -> dict[str, str | float]:
    return {
        "is_compiled": "yes" if controller.__file__.endswith(".so") else "no",
        "requests_per_s": median([one.cpu_per_s for one in found]),
        "us_per_request": median([1e6 / one.cpu_per_s for one in found]),
        "per_wall_s": median([one.wall_per_s for one in found]),
        "in_time": median([one.in_time for one in found]),
    }


def _equal(specs: Sequence[ModelSpec], utilisation: float, executors: int) -> tuple[Stream, ...]:
    """As much work of every model."""
    return mix(
        {spec.id: spec.profile for spec in specs},
        {spec.id: spec.slo_ns for spec in specs},
        share=Share.WORK,
        utilisation=utilisation,
        executors=executors,
    )


def _skewed(specs: Sequence[ModelSpec]) -> tuple[Stream, ...]:
    """The n-th model is asked one n-th as often as the first (Zipf's law)."""
    first_per_s = MANY_PER_S / sum(1 / rank for rank in range(1, len(specs) + 1))
    return tuple(
        Stream(model=spec.id, rate_per_s=first_per_s / rank, slo_ns=spec.slo_ns) for rank, spec in enumerate(specs, 1)
    )


def _spec(number: int) -> ModelSpec:
    """Models of 1 to 10 ms; a batch of eight takes five times as long as one."""
    one_ns = 1 * MS + (number * 7919 % 9_000) * US
    return _model(number, Profile(rows=(1, 8), run_ns=(one_ns, one_ns * 5), load_ns=20 * MS, memory_bytes=1))


def _copy(number: int) -> ModelSpec:
    return _model(number, RESNET50)


def _model(number: int, profile: Profile) -> ModelSpec:
    name = f"model{number}"
    return ModelSpec(
        id=f"{name}/1",
        name=name,
        version="1",
        profile=profile,
        slo_ns=100 * MS,
        batch_max=profile.rows[-1],
        batchable=True,
    )


if __name__ == "__main__":
    main()
