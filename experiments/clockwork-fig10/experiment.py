"""How far are predictions from what happens? Of durations and of completions, live on this machine and simulated.

Live: a server with real models is asked open loop, and its log of actions says for every batch what was expected of
it and what it came to. Simulated: the same policies on the GPUs of Clockwork's paper, with a spread of run times that
is stated. There the books can be checked: a completion may be off by no more than the durations of what ran before it.
Both once more with memory for some of the models only, so that they are loaded and evicted all the time: the errors of
loads.

An error is what happened less what was expected: above it, the prediction was under; below it, over.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
from slotwise.laboratory.live import ZOO, batches, live, loads, read_actions, some_of
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
REAL_SHORT, SIMULATED_SHORT = "real-short", "simulated-short"
"""Of memory: there, loads count as well."""
RUN, LOAD = "run", "load"
LIVE_MODELS = {
    REAL: ("ocr-angle", "pitch", "file-type", "sentence-embed", "ocr-read-128"),
    REAL_SHORT: ("ocr-angle", "pitch", "file-type", "page-orientation", "voice-activity"),
}
LIVE_MEMORY = {REAL: (), REAL_SHORT: ("--memory-mib", "110")}
"""The five models of the second form take 190 MiB together, and 84 the largest."""
LIVE_LOAD = 0.7
"""Of what the machine has just sustained with the same models."""
CALIBRATION_S, CALIBRATION_QUICK_S = 5.0, 3.0
SETTLING_S = 2.0
"""The first part of a run, in which estimates still settle, does not count."""
MODELS = ("resnet50", "resnet18", "densenet169", "inceptionv3", "mobile_pose_mobilenetv3", "resnet152")
COPIES = 2
DEVICES = 2
UTILISATION = {SIMULATED: 0.8, MIXED: 0.6, SIMULATED_SHORT: 0.6}
PAGES_SHORT = 24
"""Of each device where memory is short; the models take 74 together, and 15 the largest."""
SLOWNESS = 2.0
"""Of one of the devices, where they are mixed."""
SPREAD = 0.02
"""Of run times in the simulation: the standard deviation of their logarithms."""
LOAD_SPREAD = 0.05
"""The same of loads, whose errors in the paper are about this part of what a load takes."""
LINK_NS = 50 * US
"""Between controller and executors in the simulation, one way, as between processes."""
AHEAD_MAX = 16
"""Batches that can be before another at an executor."""
DURATION, COMPLETION, UNEXPLAINED = "duration", "completion", "unexplained"
"""Errors of: a duration; an end; and an end less what the books say of what came before it and of its own duration."""
PANELS = ((REAL, RUN), (SIMULATED, RUN), (MIXED, RUN), (REAL_SHORT, LOAD), (SIMULATED_SHORT, LOAD))
LEAST_MS = 1e-3
"""Smaller errors are drawn here."""
SHARES = {"ms_p50": 0.5, "ms_p90": 0.9, "ms_p99": 0.99, "ms_p999": 0.999, "ms_max": 1.0}
PUBLISHED_MS = {
    (RUN, DURATION): {"over": 0.144, "under": 0.055},
    (RUN, COMPLETION): {"over": 1.0, "under": 1.0},
    (LOAD, DURATION): {"over": 0.431, "under": 0.348},
}
"""The paper's 99th percentiles on GPUs; of completions it has about one millisecond for both sides."""
RATIO_MAX = 8.0
"""How many times the error of durations that of completions may be at the 99th percentile."""
BOOKS_MS = 2 * LINK_NS / MS
"""What may be left of a completion's error: the links, which the books do not have."""
MIXED_TOLERANCE = 0.5
"""By so much more than a slow device's times its errors may grow."""
UNDER_MS_MAX = {(REAL, RUN): 10.0, (REAL_SHORT, RUN): 50.0, (REAL_SHORT, LOAD): 50.0}
"""By so much they may take longer than expected at the 99th percentile, on a machine that others share; loads and runs
share a core as well, and each takes up to twice or three times as long while the other is under way."""
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
    calibration_s: float = CALIBRATION_S


class Row(msgspec.Struct, frozen=True):
    """The size of one kind of error on one side, in milliseconds; `what` was done, and `share` is that of all such."""

    form: str
    policy: str
    what: str
    error: str
    side: str
    actions: int
    share: float
    ms_p50: float
    ms_p90: float
    ms_p99: float
    ms_p999: float
    ms_max: float


@value
class Done:
    """All actions of a run, and the time that counts."""

    actions: Sequence[ActionRow]
    began_ns: int
    ended_ns: int


def cases(is_quick: bool) -> tuple[Run, ...]:
    """Both policies in all forms, and on mixed devices Clockwork as published, too; a quick run leaves one out."""
    virtual_s, real_s = (10.0, 6.0) if is_quick else (120.0, 60.0)
    seconds = {REAL: real_s, REAL_SHORT: real_s, SIMULATED: virtual_s, MIXED: virtual_s, SIMULATED_SHORT: virtual_s}
    return tuple(
        Run(
            id=f"{form}-{policy}",
            policy=policy,
            is_measured=form in LIVE_MODELS,
            form=form,
            seconds=seconds[form],
            calibration_s=CALIBRATION_QUICK_S if is_quick else CALIBRATION_S,
        )
        for form in seconds
        for policy in (*POLICIES, *((PUBLISHED,) if form == MIXED else ()))
        if not is_quick or form != REAL_SHORT or policy == POLICIES[0]
    )


def run(case: Run) -> list[Row]:
    """The errors of one case: a row for each kind and side."""
    done = _real(case) if case.is_measured else _simulated(case)
    counted = {RUN: batches(done.actions, done.began_ns, done.ended_ns)}
    if case.form in (REAL_SHORT, SIMULATED_SHORT):
        counted[LOAD] = loads(done.actions, done.began_ns, done.ended_ns)
    return [
        _row(case, what, error, side, found, len(rows))
        for what, rows in counted.items()
        for error, sides in _errors(rows, what).items()
        for side, found in sides.items()
    ]


def _real(case: Run) -> Done:
    """What a live server did."""
    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(_played(case, Path(name)))


async def _played(case: Run, folder: Path) -> Done:
    repository = some_of(ZOO, LIVE_MODELS[case.form], folder / "models")
    shown = exhibits(repository)
    options = ("--policy", case.policy, "--cores", str(max(cores.available())), *LIVE_MEMORY[case.form])
    async with live(repository, shown, folder, options) as server:
        plan = await server.calibrated(case.calibration_s)
        mixed = streams(shown, plan.rates, LIVE_LOAD)
        act = await server.play(Workload(streams=mixed, phases=(Phase(duration_s=case.seconds),), seed=1))
    return Done(actions=read_actions(folder), began_ns=act.began_ns + int(SETTLING_S * S), ended_ns=act.ended_ns)


def _simulated(case: Run) -> Done:
    """What a simulated one did."""
    models = [copy for name in MODELS for copy in copies(name, shipped_profile(name), COPIES, slo_ns=100 * MS)]
    profiles, slos_ns = {spec.id: spec.profile for spec in models}, {spec.id: spec.slo_ns for spec in models}
    asked = mix(profiles, slos_ns, share=Share.WORK, utilisation=UTILISATION[case.form], executors=DEVICES)
    fleet = clockwork_fleet(DEVICES, link_ns=LINK_NS, noise=Noise(spread=SPREAD))
    if case.form == SIMULATED_SHORT:
        noise = Noise(spread=SPREAD, load_spread=LOAD_SPREAD)
        fleet = clockwork_fleet(DEVICES, pages=PAGES_SHORT, link_ns=LINK_NS, noise=noise)
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
    return Done(actions=actions, began_ns=began_ns, ended_ns=began_ns + int(case.seconds * S) + COOL_DOWN_NS)


def _errors(rows: Sequence[ActionRow], what: str) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Sizes in milliseconds, by kind and side."""
    told = [row for row in rows if row.expected_exec_complete is not None]
    durations = np.array([_duration_ns(row) for row in rows]) / MS
    completions = np.array([_completion_ns(row) for row in told]) / MS
    unexplained = np.array(_unexplained_runs_ns(rows) if what == RUN else _unexplained_loads_ns(rows)) / MS
    return {
        DURATION: {"over": -durations[durations < 0], "under": durations[durations >= 0]},
        COMPLETION: {"over": -completions[completions < 0], "under": completions[completions >= 0]},
        UNEXPLAINED: {"both": np.abs(unexplained)},
    }


def _duration_ns(row: ActionRow) -> int:
    return (row.worker_exec_duration or 0) - (row.expected_exec_duration or 0)


def _completion_ns(row: ActionRow) -> int:
    return (row.worker_exec_complete or 0) - (row.expected_exec_complete or 0)


def _unexplained_runs_ns(rows: Sequence[ActionRow]) -> list[int]:
    """Errors of completions that those of durations leave: of a batch's own, and of those that were out before it."""
    return [
        _completion_ns(row) - sum(map(_duration_ns, (*ahead, row)))
        for row, ahead in _queued(rows)
        if row.expected_exec_complete is not None
    ]


def _unexplained_loads_ns(rows: Sequence[ActionRow]) -> list[int]:
    """The same of loads, each of which is expected to end after the one before it was, whenever that does."""
    return [
        _completion_ns(row) - _duration_ns(row) - sum(map(_completion_ns, ahead[-1:])) for row, ahead in _queued(rows)
    ]


def _queued(rows: Sequence[ActionRow]) -> Iterator[tuple[ActionRow, list[ActionRow]]]:
    """Each with those that were out at its executor before it when it was sent."""
    queues: defaultdict[str, list[ActionRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.t, row.action_id)):
        queues[row.worker_id].append(row)
    for queue in queues.values():
        for place, row in enumerate(queue):
            before = queue[max(0, place - AHEAD_MAX) : place]
            yield row, [one for one in before if one.t + one.controller_action_duration > row.t]


def _row(case: Run, what: str, error: str, side: str, ms: NDArray[np.float64], actions: int) -> Row:
    sizes = {field: float(f"{np.quantile(ms, share):.4g}") if len(ms) else 0.0 for field, share in SHARES.items()}
    return Row(
        form=case.form,
        policy=case.policy,
        what=what,
        error=error,
        side=side,
        actions=actions,
        share=round(len(ms) / max(1, actions), 4),
        **sizes,
    )


Key = tuple[str, str, str, str, str]
"""Of a row: its form, policy, what was done, error and side."""


def claims(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """Simulated, that the books are right; live, that completions are off by little more than durations are."""
    found = {(row.form, row.policy, row.what, row.error, row.side): row for row in rows if row.actions}
    made: list[Claim] = []
    for form, policy, what in dict.fromkeys((row.form, row.policy, row.what) for row in rows if row.actions):
        prefix = f"fig10.{form}." if what == RUN else f"fig10.{form}.load_"
        duration, completion = (_worse(found, form, policy, what, error) for error in (DURATION, COMPLETION))
        ratio, source = completion / duration, SOURCES[COMPLETION]
        made.append(at_most(f"{prefix}completion_over_duration", ratio, RATIO_MAX, policy=policy, source=source))
        if form == MIXED:
            beside = found.get((SIMULATED, policy, RUN, DURATION, "under"))
            row = found[form, policy, RUN, DURATION, "under"]
            made += _survived(f"{prefix}durations_beside_alike", policy, row, beside)
            continue
        if form in LIVE_MODELS:
            size, kind = found[form, policy, what, DURATION, "under"].ms_p99, DURATION
            most = UNDER_MS_MAX[form, what]
        else:
            size, most, kind = found[form, policy, what, UNEXPLAINED, "both"].ms_p99, BOOKS_MS, UNEXPLAINED
        made.append(at_most(f"{prefix}{kind}_ms_p99", size, most, policy=policy, source=SOURCES[kind]))
    return tuple(made)


def _survived(name: str, policy: str, row: Row, beside: Row | None) -> list[Claim]:
    """That one slow device spoils no prediction: its own errors are larger as its times are, and no more."""
    if beside is None:
        return []
    most, source = SLOWNESS, "the same devices without a slow one"
    ratio = row.ms_p99 / beside.ms_p99
    return [at_most(name, ratio, most, policy=policy, tolerance=MIXED_TOLERANCE, source=source)]


def _worse(found: Mapping[Key, Row], form: str, policy: str, what: str, error: str) -> float:
    """The larger of both sides' 99th percentiles."""
    return max(found[form, policy, what, error, side].ms_p99 for side in ("over", "under"))


def draw(rows: Sequence[Row], path: Path) -> None:
    """The tails of every error, a panel for each form and kind, the paper's 99th percentiles beside."""
    panels = [
        Panel(
            title=f"{form}: error of {what}s' {error}s",
            x_label="ms",
            y_label="share of errors that are larger",
            curves=[*_curves(rows, form, what, error), *_published(what, error)],
            is_x_log=True,
            is_y_log=True,
        )
        for form, what in PANELS
        for error in (DURATION, COMPLETION)
    ]
    draw_panels("How far predictions are off", panels, path)


def _curves(rows: Sequence[Row], form: str, what: str, error: str) -> list[Curve]:
    shares = {field: 1 - share for field, share in SHARES.items() if share < 1}
    return [
        Curve(
            label=f"{row.policy}, {row.side}",
            xs=[max(getattr(row, field), LEAST_MS) for field in shares],
            ys=list(shares.values()),
        )
        for row in rows
        if (row.form, row.what, row.error) == (form, what, error) and row.share
    ]


def _published(what: str, error: str) -> list[Curve]:
    sides = PUBLISHED_MS.get((what, error), {})
    return [Curve(label=f"paper, {side}", xs=[ms], ys=[0.01], is_reference=True) for side, ms in sides.items()]


EXPERIMENT = Experiment(
    name="clockwork-fig10",
    title="How far predictions are off, live and simulated",
    row=Row,
    cases=cases,
    run=run,
    claims=claims,
    draw=draw,
)
