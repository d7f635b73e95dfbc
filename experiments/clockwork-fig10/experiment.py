"""How far are predictions from what happens? Of durations and of completions, live on this machine and simulated.

Live: a server with real models is asked open loop, and its log of actions says for every batch what was expected of
it and what it came to. Simulated: the same policies on the GPUs of Clockwork's paper, with a spread of run times that
is stated. There the books can be checked: a completion may be off by no more than the durations of what ran before it.

An error is what happened less what was expected: above it, the prediction was under; below it, over.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from slotwise.demo.mix import exhibits, streams
from slotwise.edges.logs.recorder import LogRecorder
from slotwise.edges.logs.rows import ActionRow
from slotwise.edges.plots.panels import Curve, Panel, draw_panels
from slotwise.edges.slices import cores
from slotwise.facts.units import MS, US, S
from slotwise.facts.value import value
from slotwise.laboratory.clockwork import PUBLISHED
from slotwise.laboratory.live import ZOO, batches, live, read_actions, some_of
from slotwise.laboratory.values import Case, Claim, Experiment, at_most
from slotwise.laboratory.virtual import COOL_DOWN_NS, WARM_UP_NS, Watch, play
from slotwise.sim.fleet import Noise
from slotwise.simulation.fleets import clockwork_fleet
from slotwise.simulation.models import copies
from slotwise.simulation.profiles import shipped_profile
from slotwise.workload.mixes import Share, mix
from slotwise.workload.player import player_of
from slotwise.workload.values import Phase, Workload

POLICIES = ("slotwise", "clockwork")
REAL, SIMULATED, MIXED = "real", "simulated", "mixed"
LIVE_MODELS = ("ocr-angle", "pitch", "file-type", "sentence-embed", "ocr-read-128")
LIVE_LOAD = 0.7
"""Of what the machine has just sustained with the same models."""
CALIBRATION_S = 5.0
SETTLING_S = 2.0
"""The first part of a run, in which estimates still settle, does not count."""
MODELS = ("resnet50", "resnet18", "densenet169", "inceptionv3", "mobile_pose_mobilenetv3", "resnet152")
COPIES = 2
DEVICES = 2
UTILISATION = {SIMULATED: 0.8, MIXED: 0.6}
SLOWNESS = 2.0
"""Of one of the devices, where they are mixed."""
SPREAD = 0.02
"""Of run times in the simulation: the standard deviation of their logarithms."""
LINK_NS = 50 * US
"""Between controller and executors in the simulation, one way, as between processes."""
AHEAD_MAX = 16
"""Batches that can be before another at an executor."""
DURATION, COMPLETION, UNEXPLAINED = "duration", "completion", "unexplained"
"""Errors of: a run time; an end; and an end less those of the run times that came before it."""
LEAST_MS = 1e-3
"""Smaller errors are drawn here."""
SHARES = {"ms_p50": 0.5, "ms_p90": 0.9, "ms_p99": 0.99, "ms_p999": 0.999, "ms_max": 1.0}
PUBLISHED_MS = {DURATION: {"over": 0.144, "under": 0.055}, COMPLETION: {"over": 1.0, "under": 1.0}}
"""The paper's 99th percentiles on GPUs; of completions it has about one millisecond for both sides."""
RATIO_MAX = 8.0
"""How many times the error of durations that of completions may be at the 99th percentile."""
BOOKS_MS = 2 * LINK_NS / MS
"""What may be left of a completion's error: the links, which the books do not have."""
MIXED_TOLERANCE = 0.5
"""By so much more than a slow device's times its errors may grow."""
UNDER_MS_MAX = 10.0
"""By so much a run may take longer than expected at the 99th percentile, on a machine that others share."""
SOURCES = {
    COMPLETION: "figure 10: about 1 ms, where durations are off by 0.144 and 0.055 and loads by 0.431",
    DURATION: "figure 10: 0.055 ms on a GPU, not comparable in size",
    UNEXPLAINED: "a completion is off by the durations before it, and by the link, once each way",
}


@value
class Run(Case):
    """One policy, live or simulated, for so long."""

    form: str
    seconds: float


class Row(msgspec.Struct, frozen=True):
    """The size of one kind of error on one side, in milliseconds; `share` is that of all batches."""

    form: str
    policy: str
    error: str
    side: str
    batches: int
    share: float
    ms_p50: float
    ms_p90: float
    ms_p99: float
    ms_p999: float
    ms_max: float


def cases(is_quick: bool) -> tuple[Run, ...]:
    """Both policies in all forms, and on mixed devices Clockwork as published, too."""
    virtual_s = 10.0 if is_quick else 120.0
    seconds = {REAL: 8.0 if is_quick else 60.0, SIMULATED: virtual_s, MIXED: virtual_s}
    return tuple(
        Run(
            id=f"{form}-{policy}",
            policy=policy,
            is_measured=form == REAL,
            form=form,
            seconds=seconds[form],
        )
        for form in seconds
        for policy in (*POLICIES, *((PUBLISHED,) if form == MIXED else ()))
    )


def run(case: Run) -> list[Row]:
    """The errors of one case: a row for each kind and side."""
    rows = _real(case) if case.form == REAL else _simulated(case)
    errors = _errors(rows)
    return [
        _row(case, error, side, found, len(rows)) for error, sides in errors.items() for side, found in sides.items()
    ]


def _real(case: Run) -> list[ActionRow]:
    """The batches of a live server."""
    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(_played(case, Path(name)))


async def _played(case: Run, folder: Path) -> list[ActionRow]:
    repository = some_of(ZOO, LIVE_MODELS, folder / "models")
    shown = exhibits(repository)
    options = ("--policy", case.policy, "--cores", str(max(cores.available())))
    async with live(repository, shown, folder, options) as server:
        plan = await server.calibrated(CALIBRATION_S)
        mixed = streams(shown, plan.rates, LIVE_LOAD)
        act = await server.play(Workload(streams=mixed, phases=(Phase(duration_s=case.seconds),), seed=1))
    return batches(read_actions(folder), act.began_ns + int(SETTLING_S * S), act.ended_ns)


def _simulated(case: Run) -> list[ActionRow]:
    """The batches of a simulated one."""
    models = [copy for name in MODELS for copy in copies(name, shipped_profile(name), COPIES, slo_ns=100 * MS)]
    profiles, slos_ns = {spec.id: spec.profile for spec in models}, {spec.id: spec.slo_ns for spec in models}
    asked = mix(profiles, slos_ns, share=Share.WORK, utilisation=UTILISATION[case.form], executors=DEVICES)
    fleet = clockwork_fleet(DEVICES, link_ns=LINK_NS, noise=Noise(spread=SPREAD))
    if case.form == MIXED:
        first, *others = fleet.slices
        fleet = replace(fleet, slices=(replace(first, slowness=SLOWNESS), *others))
    actions: list[ActionRow] = []
    play(
        policy=case.policy,
        models=models,
        fleet=fleet,
        player=player_of(Workload(streams=asked, phases=(Phase(duration_s=case.seconds),), seed=1)),
        seconds=case.seconds,
        watch=Watch([0, 1]),
        recorders=[LogRecorder(lambda _: None, actions.append)],
    )
    began_ns = WARM_UP_NS + int(SETTLING_S * S)
    return batches(actions, began_ns, began_ns + int(case.seconds * S) + COOL_DOWN_NS)


def _errors(rows: Sequence[ActionRow]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Sizes in milliseconds, by kind and side."""
    told = [row for row in rows if row.expected_exec_complete is not None]
    durations = np.array([_duration_ns(row) for row in rows]) / MS
    completions = np.array([_completion_ns(row) for row in told]) / MS
    unexplained = np.array(_unexplained_ns(rows)) / MS
    return {
        DURATION: {"over": -durations[durations < 0], "under": durations[durations >= 0]},
        COMPLETION: {"over": -completions[completions < 0], "under": completions[completions >= 0]},
        UNEXPLAINED: {"both": np.abs(unexplained)},
    }


def _duration_ns(row: ActionRow) -> int:
    return (row.worker_exec_duration or 0) - (row.expected_exec_duration or 0)


def _completion_ns(row: ActionRow) -> int:
    return (row.worker_exec_complete or 0) - (row.expected_exec_complete or 0)


def _unexplained_ns(rows: Sequence[ActionRow]) -> list[int]:
    """Errors of completions that those of durations leave: of a batch's own, and of those that were out before it."""
    queues: defaultdict[str, list[ActionRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.t, row.action_id)):
        queues[row.worker_id].append(row)
    left = []
    for queue in queues.values():
        for place, row in enumerate(queue):
            if row.expected_exec_complete is None:
                continue
            before = queue[max(0, place - AHEAD_MAX) : place]
            ahead = [one for one in before if one.t + one.controller_action_duration > row.t]
            left.append(_completion_ns(row) - sum(map(_duration_ns, (*ahead, row))))
    return left


def _row(case: Run, error: str, side: str, ms: NDArray[np.float64], batches: int) -> Row:
    sizes = {field: float(f"{np.quantile(ms, share):.4g}") if len(ms) else 0.0 for field, share in SHARES.items()}
    return Row(
        form=case.form,
        policy=case.policy,
        error=error,
        side=side,
        batches=batches,
        share=round(len(ms) / max(1, batches), 4),
        **sizes,
    )


def claims(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """Simulated, that the books are right; live, that completions are off by little more than durations are."""
    found = {(row.form, row.policy, row.error, row.side): row for row in rows if row.batches}
    made: list[Claim] = []
    for form, policy in dict.fromkeys((row.form, row.policy) for row in rows if row.batches):
        name = f"fig10.{form}"
        duration, completion = (_worse(found, form, policy, error) for error in (DURATION, COMPLETION))
        ratio = completion / duration
        made.append(
            at_most(f"{name}.completion_over_duration", ratio, RATIO_MAX, policy=policy, source=SOURCES[COMPLETION])
        )
        if form == MIXED:
            beside = found.get((SIMULATED, policy, DURATION, "under"))
            made += _survived(f"{name}.durations_beside_alike", policy, found[form, policy, DURATION, "under"], beside)
            continue
        if form == SIMULATED:
            size, most, kind = found[form, policy, UNEXPLAINED, "both"].ms_p99, BOOKS_MS, UNEXPLAINED
        else:
            size, most, kind = found[form, policy, DURATION, "under"].ms_p99, UNDER_MS_MAX, DURATION
        made.append(at_most(f"{name}.{kind}_ms_p99", size, most, policy=policy, source=SOURCES[kind]))
    return tuple(made)


def _survived(name: str, policy: str, row: Row, beside: Row | None) -> list[Claim]:
    """That one slow device spoils no prediction: its own errors are larger as its times are, and no more."""
    if beside is None:
        return []
    most, source = SLOWNESS, "the same devices without a slow one"
    ratio = row.ms_p99 / beside.ms_p99
    return [at_most(name, ratio, most, policy=policy, tolerance=MIXED_TOLERANCE, source=source)]


def _worse(found: Mapping[tuple[str, str, str, str], Row], form: str, policy: str, error: str) -> float:
    """The larger of both sides' 99th percentiles."""
    return max(found[form, policy, error, side].ms_p99 for side in ("over", "under"))


def draw(rows: Sequence[Row], path: Path) -> None:
    """The tails of every error, a panel for each form and kind, the paper's 99th percentiles beside."""
    panels = [
        Panel(
            title=f"{form}: error of {error}s",
            x_label="ms",
            y_label="share of errors that are larger",
            curves=[*_curves(rows, form, error), *_published(error)],
            is_x_log=True,
            is_y_log=True,
        )
        for form in (REAL, SIMULATED, MIXED)
        for error in (DURATION, COMPLETION)
    ]
    draw_panels("How far predictions are off", panels, path)


def _curves(rows: Sequence[Row], form: str, error: str) -> list[Curve]:
    shares = {field: 1 - share for field, share in SHARES.items() if share < 1}
    return [
        Curve(
            label=f"{row.policy}, {row.side}",
            xs=[max(getattr(row, field), LEAST_MS) for field in shares],
            ys=list(shares.values()),
        )
        for row in rows
        if (row.form, row.error) == (form, error) and row.share
    ]


def _published(error: str) -> list[Curve]:
    return [
        Curve(label=f"paper, {side}", xs=[ms], ys=[0.01], is_reference=True) for side, ms in PUBLISHED_MS[error].items()
    ]


EXPERIMENT = Experiment(
    name="clockwork-fig10",
    title="How far predictions are off, live and simulated",
    row=Row,
    cases=cases,
    run=run,
    claims=claims,
    draw=draw,
)
