"""How many devices of which kind a load needs: one simulation for each count that is tried, on all cores.

Every count of every kind is simulated with the same seed, so with the same requests. A kind is tried alone, never mixed
with others.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import replace

import msgspec

from slotwise.config import ConfigError
from slotwise.facts.value import value
from slotwise.simulation.form import DevicePart, KindPart, NodePart
from slotwise.simulation.reading import Read, scenario_in
from slotwise.simulation.report import Report
from slotwise.simulation.running import run
from slotwise.simulation.scenario import Scenario, changed
from slotwise.simulation.search import counts_to_try, least_enough

NODE = "node"
S_PER_H = 3600
MILLION = 1_000_000

Progress = Callable[[str, int, int], None]
"""Told of a count that has been tried, and how many that makes of those known to be tried."""


class Trial(msgspec.Struct, frozen=True):
    """One count of one kind. Prices are in whatever the file states prices in."""

    kind: str
    devices: int
    attainment: float
    is_enough: bool
    goodput_per_s: float
    latency_ms_p50: float
    latency_ms_p99: float
    busy: float
    """The mean share of time in which devices ran batches."""
    price_per_h: float
    price_per_million: float | None
    """Of a million requests answered in time; None where none was."""


class CapacityReport(msgspec.Struct, frozen=True):
    """All that was tried, by kind and count, and what it comes to."""

    policy: str
    seed: int
    seconds: float
    target: float
    every_model: bool
    devices_max: int
    trials: tuple[Trial, ...]
    least: dict[str, int | None]
    """By kind, the least count that is enough; null where `devices_max` is not."""
    cheapest: Trial | None
    """The one of these with the lowest price, the fewest devices among equals."""


@value
class Wanted:
    """A search: what is asked of each count, and how far to go. `every_model` is as in the file."""

    kinds: tuple[KindPart, ...]
    target: float
    every_model: bool
    devices_max: int
    scenarios: Callable[[KindPart, int], Scenario]
    """The load on so many devices of a kind."""


def wanted(
    read: Read,
    *,
    target: float | None = None,
    devices_max: int | None = None,
    policy: str | None = None,
    seed: int | None = None,
    scale: float = 1.0,
    seconds: float | None = None,
) -> Wanted:
    """What a file asks, but for what is given. Raises ConfigError."""
    spec, asked = read.spec, read.spec.capacity
    if not spec.kinds:
        raise ConfigError(f"{read.path}: there is no kind of device to count; describe one in [[kinds]]")
    if spec.nodes or spec.faults or spec.fleet.executors is not None or spec.fleet.memory_mib:
        raise ConfigError(
            f"{read.path}: capacity makes its own fleets; leave out [[nodes]], [[faults]], and in [fleet]"
            " `executors` and `memory_mib`"
        )

    def scenario(kind: KindPart, count: int) -> Scenario:
        node = NodePart(name=NODE, devices=(DevicePart(kind=kind.name, count=count),))
        built = scenario_in(replace(read, spec=msgspec.structs.replace(spec, nodes=(node,))))
        return changed(built, policy=policy, seed=seed, scale=scale, seconds=seconds)

    return Wanted(
        kinds=tuple(kind for kind in spec.kinds if not asked.kinds or kind.name in asked.kinds),
        target=asked.target if target is None else target,
        every_model=asked.every_model,
        devices_max=asked.devices_max if devices_max is None else devices_max,
        scenarios=scenario,
    )


def find_capacity(wanted: Wanted, *, jobs: int, progress: Progress | None = None) -> CapacityReport:
    """Try counts of each kind until the least that is enough is known. Raises ConfigError and PresetError."""
    first = wanted.scenarios(wanted.kinds[0], 1)
    trials: dict[str, dict[int, Trial]] = {kind.name: {} for kind in wanted.kinds}
    for trial in _tried(wanted, trials, jobs, progress or _silent):
        trials[trial.kind][trial.devices] = trial
    least = {kind: least_enough(_enough(found)) for kind, found in trials.items()}
    best = [trials[kind][count] for kind, count in least.items() if count is not None]
    return CapacityReport(
        policy=first.policy,
        seed=first.seed,
        seconds=first.workload.duration_s,
        target=wanted.target,
        every_model=wanted.every_model,
        devices_max=wanted.devices_max,
        trials=tuple(found[count] for found in trials.values() for count in sorted(found)),
        least=least,
        cheapest=min(best, key=lambda trial: (trial.price_per_h, trial.devices), default=None),
    )


def _tried(wanted: Wanted, trials: dict[str, dict[int, Trial]], jobs: int, progress: Progress) -> Iterator[Trial]:
    """Every trial as it is done; whoever takes one puts it among `trials`, which say what to try next."""
    if jobs == 1:
        yield from _in_turn(wanted, trials, progress)
        return
    # Fresh processes: a fork of one with threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        try:
            yield from _side_by_side(pool, wanted, trials, progress)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_turn(wanted: Wanted, trials: dict[str, dict[int, Trial]], progress: Progress) -> Iterator[Trial]:
    done = 0
    for kind in wanted.kinds:
        while counts := counts_to_try(_enough(trials[kind.name]), wanted.devices_max):
            for count in counts:
                done += 1
                yield _trial(wanted, kind, count, run(wanted.scenarios(kind, count), is_checked=False))
                progress(f"{count} x {kind.name}", done, done + 1)


def _side_by_side(
    pool: Executor, wanted: Wanted, trials: dict[str, dict[int, Trial]], progress: Progress
) -> Iterator[Trial]:
    """The counts of one kind that are tried together are all waited for before the next of that kind."""
    under_way: dict[Future[Report], tuple[KindPart, int]] = {}
    done = 0

    def submit(kind: KindPart) -> None:
        if not any(other.name == kind.name for other, _ in under_way.values()):
            for count in counts_to_try(_enough(trials[kind.name]), wanted.devices_max):
                under_way[pool.submit(_run, wanted.scenarios(kind, count))] = (kind, count)

    for kind in wanted.kinds:
        submit(kind)
    while under_way:
        finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
        for future in finished:
            kind, count = under_way.pop(future)
            done += 1
            yield _trial(wanted, kind, count, future.result())
            submit(kind)
            progress(f"{count} x {kind.name}", done, done + len(under_way))


def _silent(name: str, done: int, total: int) -> None:
    """Nobody watches."""


def _run(scenario: Scenario) -> Report:
    return run(scenario, is_checked=False)


def _enough(trials: dict[int, Trial]) -> dict[int, bool]:
    return {count: trial.is_enough for count, trial in trials.items()}


def _trial(wanted: Wanted, kind: KindPart, count: int, report: Report) -> Trial:
    reached = _attainment(report, wanted.every_model)
    price_per_h = kind.price_per_h * count
    answers_per_h = report.goodput_per_s * S_PER_H
    return Trial(
        kind=kind.name,
        devices=count,
        attainment=reached,
        is_enough=reached >= wanted.target,
        goodput_per_s=report.goodput_per_s,
        latency_ms_p50=report.total.latency_ms_p50,
        latency_ms_p99=report.total.latency_ms_p99,
        busy=sum(executor.busy for executor in report.executors) / len(report.executors),
        price_per_h=price_per_h,
        price_per_million=price_per_h / answers_per_h * MILLION if answers_per_h else None,
    )


def _attainment(report: Report, every_model: bool) -> float:
    """Of all requests together, or of the model that fares worst."""
    if not every_model:
        return report.attainment
    return min((part.in_time / part.offered for part in report.models if part.offered), default=1.0)


def marks(report: CapacityReport) -> Sequence[str]:
    """A word for each trial: whether it is enough, and which of these is the cheapest."""
    return ["cheapest" if trial == report.cheapest else "enough" if trial.is_enough else "" for trial in report.trials]
