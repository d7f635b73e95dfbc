"""Does virtual time tell what a live server does? The same workloads on both, side by side.

Live: a server in processes of its own, asked over HTTP by this one. Virtual: the same controller with the same models
and workloads, run by the simulator. Twice over: with real models on this machine's cores, whose run times and spread
are taken from a calibration before the workloads are played; and with emulated models, which wait their profile out,
so that the machine's cores have no part in the outcome and only the clocks differ.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from slotwise.demo.mix import Exhibit, exhibits, streams
from slotwise.edges.logs.rows import ActionRow
from slotwise.edges.plots.panels import Curve, Panel, draw_panels
from slotwise.edges.runtimes.emulated import EmulatedFile
from slotwise.edges.slices import cores
from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, TensorSpec
from slotwise.facts.units import MS, S
from slotwise.facts.value import value
from slotwise.laboratory.live import NETWORK_NS, ZOO, Act, Live, batches, live, read_actions, read_specs, some_of
from slotwise.laboratory.values import Case, Claim, Experiment, at_most, near
from slotwise.laboratory.virtual import COOL_DOWN_NS, WARM_UP_NS, Stretch, Watch
from slotwise.load.ending import Ending
from slotwise.policy.presets import build_controller
from slotwise.sim.fleet import FleetSettings, Noise, SimSlice
from slotwise.sim.world import World
from slotwise.workload.arrivals import arrivals
from slotwise.workload.mixes import Share, mix
from slotwise.workload.player import Player
from slotwise.workload.values import Clients, Phase, Stream, Workload

REAL, EMULATED = "real", "emulated"
LIVE, VIRTUAL = "live", "virtual"
REAL_MODELS = ("ocr-angle", "pitch", "file-type", "sentence-embed", "ocr-read-128")
EMULATED_RUN_MS = {"swift": 10.0, "brisk": 20.0, "steady": 40.0, "heavy": 80.0}
EMULATED_EXECUTORS = 4
EMULATED_ROWS = (1, 2, 4, 8)
ROW_COST = 0.5
"""What a further row of an emulated batch takes, beside the first."""
SLO_RUNS = 8
"""An emulated model's SLO, in times of one row."""
LOADS = (0.5, 1.0, 2.0)
CLOSED = "closed"
CLIENTS_PER_MODEL = {REAL: 1, EMULATED: 2}
PAUSE_NS = 5 * MS
"""Closed-loop clients pause so long after each answer."""
CALIBRATION_S = 6.0
SAMPLES_MIN = 10
"""Batches of one size, of which a time is told from its own runs."""
SEED = 11
GOODPUT_SHARE = {REAL: 0.10, EMULATED: 0.02}
"""How far live goodput may be from virtual, as a share."""
REFUSED_SHARE = {REAL: 0.10, EMULATED: 0.05}
"""How far the shares of requests that got no answer in time may lie apart."""


@value
class Comparison(Case):
    """A policy on one kind of executors; each workload lasts so long."""

    executors: str
    seconds: float


class Row(msgspec.Struct, frozen=True):
    """What came of one workload in one kind of time. Late ones are those told so, too."""

    executors: str
    policy: str
    workload: str
    time: str
    offered: int
    goodput_per_s: float
    in_time: int
    late: int
    refused: int
    other: int
    ms_p50: float
    ms_p99: float
    refusal_ms_p50: float


@value
class Truth:
    """What the simulator is told of the live system: what its models take, and the way to its executors."""

    models: tuple[ModelSpec, ...]
    executors: int
    link_ns: int
    spread: float


def cases(is_quick: bool) -> tuple[Comparison, ...]:
    """Real executors under `slotwise`; emulated ones under `clockwork` too."""
    seconds = 4.0 if is_quick else 15.0
    return tuple(
        Comparison(id=f"{executors}-{policy}", policy=policy, is_measured=True, executors=executors, seconds=seconds)
        for executors, policy in ((REAL, "slotwise"), (EMULATED, "slotwise"), (EMULATED, "clockwork"))
    )


def run(case: Comparison) -> list[Row]:
    """Play every workload live, then in virtual time: two rows for each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        acts = asyncio.run(_real(case, folder) if case.executors == REAL else _emulated(case, folder))
        truth = _truth(folder, next(iter(acts.values())).began_ns)
    played = {called: _live_row(case, called, act) for called, act in acts.items()}
    first = next(iter(acts))
    way_ms = played[first].ms_p50 - _virtual(case, truth, acts)[first].ms_p50
    simulated = _virtual(case, truth, acts, way_ns=max(0, int(way_ms * MS)))
    return [row for called in acts for row in (played[called], simulated[called])]


async def _real(case: Comparison, folder: Path) -> dict[str, Act]:
    """Models of the zoo, loaded in multiples of what the machine sustains."""
    repository = some_of(ZOO, REAL_MODELS, folder / "models")
    shown = exhibits(repository)
    async with live(repository, shown, folder, ("--policy", case.policy)) as server:
        plan = await server.calibrated(CALIBRATION_S)
        mixes = {load: streams(shown, plan.rates, load) for load in LOADS}
        return await _played(server, _workloads(case, mixes))


async def _emulated(case: Comparison, folder: Path) -> dict[str, Act]:
    """Models that wait their profile out, loaded in multiples of what their executors can do row by row."""
    repository = folder / "models"
    shown = [_put(repository, model, run_ms) for model, run_ms in EMULATED_RUN_MS.items()]
    profiles = {model: _emulated_profile(run_ms) for model, run_ms in EMULATED_RUN_MS.items()}
    slos_ns = {one.model: one.slo_ns for one in shown}
    named = (cores.available() * EMULATED_EXECUTORS)[:EMULATED_EXECUTORS]
    options = ("--policy", case.policy, "--cores", ",".join(map(str, named)))
    async with live(repository, shown, folder, options) as server:
        mixes = {
            load: mix(profiles, slos_ns, share=Share.WORK, utilisation=load, executors=EMULATED_EXECUTORS)
            for load in LOADS
        }
        gentle = Workload(streams=mixes[LOADS[0]], phases=(Phase(duration_s=CALIBRATION_S),), seed=SEED + 1)
        await server.play(gentle)
        return await _played(server, _workloads(case, mixes))


def _workloads(case: Comparison, mixes: Mapping[float, tuple[Stream, ...]]) -> dict[str, Workload]:
    """Poisson mixes, and closed-loop clients of the same models."""
    phases = (Phase(duration_s=case.seconds),)
    made = {f"{load:g}x": Workload(streams=mixed, phases=phases, seed=SEED) for load, mixed in mixes.items()}
    clients = tuple(
        Clients(
            models=(stream.model,),
            concurrency=CLIENTS_PER_MODEL[case.executors],
            slo_ns=stream.slo_ns,
            pause_ns=PAUSE_NS,
            start_within_s=PAUSE_NS / S,
        )
        for stream in mixes[LOADS[0]]
    )
    return {**made, CLOSED: Workload(streams=(), phases=phases, seed=SEED, clients=clients)}


async def _played(server: Live, workloads: Mapping[str, Workload]) -> dict[str, Act]:
    return {called: await server.play(workload) for called, workload in workloads.items()}


def _truth(folder: Path, first_ns: int) -> Truth:
    """What the server's journal and logs tell of the time before the first workload, in which it was calibrated."""
    specs, actions = read_specs(folder), read_actions(folder)
    ran = batches(actions, first_ns - int(CALIBRATION_S * S), first_ns)
    returns_ns = [row.controller_action_duration - (row.worker_exec_complete or 0) for row in ran]
    models, spread = _as_run(specs, ran)
    return Truth(
        models=models,
        executors=len({row.worker_id for row in actions}),
        link_ns=int(np.median(returns_ns)),
        spread=spread,
    )


def _as_run(specs: Iterable[ModelSpec], ran: Iterable[ActionRow]) -> tuple[tuple[ModelSpec, ...], float]:
    """The models with the times that they took, and the spread of these about their means."""
    took_ns: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for row in ran:
        took_ns[row.model_id, row.batch_size].append(row.worker_exec_duration or 0)
    logs = [math.log(ns / np.mean(taken)) for taken in took_ns.values() if len(taken) >= SAMPLES_MIN for ns in taken]
    low, high = np.quantile(logs, [0.16, 0.84]) if logs else (0.0, 0.0)
    spread = float(high - low) / 2
    return tuple(replace(spec, profile=_profile_as_run(spec, took_ns, spread)) for spec in specs), spread


def _profile_as_run(spec: ModelSpec, took_ns: Mapping[tuple[str, int], Sequence[int]], spread: float) -> Profile:
    """A profile with the times of batches of one row, and the same ratio for others; means stay under the spread."""
    alone = took_ns.get((spec.id, 1), ())
    ratio = float(np.mean(alone)) / spec.profile.expected_ns(1) if len(alone) >= SAMPLES_MIN else 1.0
    ratio /= math.exp(spread**2 / 2)
    return replace(spec.profile, run_ns=tuple(max(1, int(ns * ratio)) for ns in spec.profile.run_ns))


def _live_row(case: Comparison, called: str, act: Act) -> Row:
    counts = Counter(sending.ending for sending in act.played.sendings)
    took_ms = {
        ending: [
            sending.took_ns / MS
            for sending in act.played.sendings
            if sending.ending is ending and sending.took_ns is not None
        ]
        for ending in (Ending.IN_TIME, Ending.REFUSED)
    }
    return Row(
        executors=case.executors,
        policy=case.policy,
        workload=called,
        time=LIVE,
        offered=len(act.played.sendings),
        goodput_per_s=round(counts[Ending.IN_TIME] / case.seconds, 2),
        in_time=counts[Ending.IN_TIME],
        late=counts[Ending.LATE],
        refused=counts[Ending.REFUSED],
        other=counts[Ending.FAILED] + counts[Ending.UNANSWERED],
        ms_p50=_at(took_ms[Ending.IN_TIME], 0.5),
        ms_p99=_at(took_ms[Ending.IN_TIME], 0.99),
        refusal_ms_p50=_at(took_ms[Ending.REFUSED], 0.5),
    )


def _virtual(case: Comparison, truth: Truth, acts: Mapping[str, Act], way_ns: int = 0) -> dict[str, Row]:
    """The workloads in one world, each as long after the first as the server was asked it."""
    first_ns, length_ns = next(iter(acts.values())).began_ns, int(case.seconds * S)
    begins_ns = [WARM_UP_NS + act.began_ns - first_ns for act in acts.values()]
    watch = Watch([at_ns for begin_ns in begins_ns for at_ns in (begin_ns, begin_ns + length_ns)])
    world = World(
        controller=build_controller(case.policy),
        models=truth.models,
        fleet=FleetSettings(
            slices=tuple(SimSlice(executor=f"executor{index}") for index in range(truth.executors)),
            link_ns=truth.link_ns,
            noise=Noise(spread=truth.spread),
        ),
        seed=SEED,
        recorders=(watch,),
    )
    for begin_ns, act in zip(begins_ns, acts.values(), strict=True):
        world.play(_player(act.workload, way_ns), begin_ns)
    world.run(begins_ns[-1] + length_ns + COOL_DOWN_NS)
    found = {stretch.index: stretch for stretch in watch.stretches()}
    return {called: _virtual_row(case, called, found[2 * place]) for place, called in enumerate(acts)}


def _virtual_row(case: Comparison, called: str, found: Stretch) -> Row:
    return Row(
        executors=case.executors,
        policy=case.policy,
        workload=called,
        time=VIRTUAL,
        offered=found.offered,
        goodput_per_s=round(found.in_time / case.seconds, 2),
        in_time=found.in_time,
        late=found.late + found.dropped,
        refused=found.refused,
        other=found.failed,
        ms_p50=found.latency_ms_p50,
        ms_p99=found.latency_ms_p99,
        refusal_ms_p50=found.told_ms_p50 if found.refused else 0.0,
    )


def _player(workload: Workload, way_ns: int) -> Player:
    """The very requests that the server was asked, as it was told them: without the time that the network is given.

    Clients pause for the way there and back, too.
    """
    coming = (replace(one, model=f"{one.model}/1", slo_ns=one.slo_ns - NETWORK_NS) for one in arrivals(workload))
    clients = [
        replace(
            part,
            models=tuple(f"{name}/1" for name in part.models),
            slo_ns=part.slo_ns - NETWORK_NS,
            pause_ns=part.pause_ns + way_ns,
        )
        for part in workload.clients
    ]
    return Player(coming, clients, end_ns=int(workload.duration_s * S), seed=workload.seed)


def _emulated_profile(run_ms: float) -> Profile:
    times_ns = tuple(int(run_ms * MS * (1 + ROW_COST * (rows - 1))) for rows in EMULATED_ROWS)
    return Profile(rows=EMULATED_ROWS, run_ns=times_ns, load_ns=1 * MS, memory_bytes=1 << 20)


def _put(repository: Path, model: str, run_ms: float) -> Exhibit:
    """An emulated model in a repository, and what to ask it."""
    folder = repository / model / "1"
    folder.mkdir(parents=True)
    tensor = TensorSpec(name="x", datatype="FP32", shape=(-1, 4))
    content = EmulatedFile(
        profile=_emulated_profile(run_ms), inputs=(tensor,), outputs=(replace(tensor, name="y"),), batchable=True
    )
    (folder / "model.emulated.json").write_bytes(msgspec.json.encode(content))
    slo_ms = run_ms * SLO_RUNS
    (repository / model / "slotwise.toml").write_text(f"slo_ms = {slo_ms}\nbatch_max = {EMULATED_ROWS[-1]}\n")
    inputs = {"x": np.zeros((1, 4), np.float32)}
    return Exhibit(model=model, slo_ns=int(slo_ms * MS), inputs=inputs, expected={})


def _at(figures: Sequence[float], share: float) -> float:
    return round(float(np.quantile(figures, share)), 3) if figures else 0.0


def claims(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """Goodput agrees within a share, and so does the share of requests that were refused or late."""
    virtual = {(row.executors, row.policy, row.workload): row for row in rows if row.time == VIRTUAL}
    made: list[Claim] = []
    for row in rows:
        beside = virtual.get((row.executors, row.policy, row.workload))
        if row.time == LIVE and beside is not None and beside.in_time:
            made += _compared(row, beside)
    return tuple(made)


def _compared(row: Row, beside: Row) -> tuple[Claim, Claim]:
    name, source = f"live.{row.executors}.{row.workload}", "the same in virtual time"
    tolerance = GOODPUT_SHARE[row.executors] * beside.goodput_per_s
    apart = abs(_failed_share(row) - _failed_share(beside))
    return (
        near(
            f"{name}.goodput",
            row.goodput_per_s,
            beside.goodput_per_s,
            policy=row.policy,
            tolerance=tolerance,
            source=source,
        ),
        at_most(f"{name}.failed_share_apart", apart, REFUSED_SHARE[row.executors], policy=row.policy, source=source),
    )


def _failed_share(row: Row) -> float:
    return (row.offered - row.in_time) / max(1, row.offered)


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each figure, a curve for each kind of executors, policy and time."""
    shown = {
        "answers in time, per s": lambda row: row.goodput_per_s,
        "share refused or late": _failed_share,
        "latency p50, ms": lambda row: row.ms_p50,
        "latency p99, ms": lambda row: row.ms_p99,
    }
    groups = list(dict.fromkeys((row.executors, row.policy, row.time) for row in rows))
    order = list(dict.fromkeys(row.workload for row in rows))
    panels = [
        Panel(
            title=title,
            x_label="workload: " + ", ".join(f"{place} {name}" for place, name in enumerate(order)),
            y_label=title,
            curves=[
                Curve(
                    label=f"{executors} {policy}, {time}",
                    xs=[order.index(row.workload) for row in rows if (row.executors, row.policy, row.time) == group],
                    ys=[of(row) for row in rows if (row.executors, row.policy, row.time) == group],
                    is_reference=time == LIVE,
                )
                for group in groups
                for executors, policy, time in [group]
            ],
        )
        for title, of in shown.items()
    ]
    draw_panels("The same workloads live (dots) and in virtual time (lines)", panels, path)


EXPERIMENT = Experiment(
    name="live-against-virtual",
    title="What virtual time tells of a live server",
    row=Row,
    cases=cases,
    run=run,
    claims=claims,
    draw=draw,
)
