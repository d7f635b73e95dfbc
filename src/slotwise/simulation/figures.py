"""What came of simulations as figures: curves, and for a short run a picture of every batch. They need matplotlib."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO

from slotwise.config import ConfigError
from slotwise.engine.timeline import read_timeline
from slotwise.facts.timeline import Mark, Scene
from slotwise.facts.types import Outcome
from slotwise.facts.units import S
from slotwise.simulation.capacity import CapacityReport, Trial
from slotwise.simulation.report import Point, Report
from slotwise.simulation.scenario import Scenario

CURVES_ENDING = ".svg"
PICTURE_ENDING = ".png"
PICTURE_REQUESTS_MAX = 100_000
"""More marks than that are no picture any more."""
PICTURE_MODELS_MAX = 60
"""Each has a colour, and a word in the legend."""
SCENES = 3
SECONDS = "seconds of the workload"


def check_figure(path: Path | None, ending: str) -> None:
    """Raise ConfigError, before anything is run, when there would be no figure at the end."""
    if path is None:
        return
    if path.suffix != ending:
        raise ConfigError(f"{path}: this figure is written as {ending}; give the file that ending")
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("figures need matplotlib; install it with: pip install 'slotwise[experiments]'")


def draw_course(report: Report, path: Path) -> None:
    """Goodput, latency, outcomes and batch sizes over time."""
    from slotwise.edges.plots.panels import Curve, Panel, draw_panels

    times_s = [point.start_s + report.interval_s / 2 for point in report.course]

    def curve(label: str, of: Callable[[Point], float]) -> Curve:
        return Curve(label=label, xs=times_s, ys=[of(point) for point in report.course])

    def per_s(name: str) -> Callable[[Point], float]:
        return lambda point: point.outcomes[name] / report.interval_s

    told = [outcome.value for outcome in Outcome if report.total.outcomes[outcome.value]]
    panels = [
        Panel(
            title="offered, and answered in time",
            x_label=SECONDS,
            y_label="requests/s",
            curves=[
                curve("offered", lambda point: point.offered / report.interval_s),
                curve(Outcome.IN_TIME.value, per_s(Outcome.IN_TIME.value)),
            ],
        ),
        Panel(
            title="latency of answers",
            x_label=SECONDS,
            y_label="ms",
            curves=[
                curve("p50", lambda point: point.latency_ms_p50),
                curve("p99", lambda point: point.latency_ms_p99),
                curve("max", lambda point: point.latency_ms_max),
            ],
        ),
        Panel(
            title="how requests ended",
            x_label=SECONDS,
            y_label="requests/s",
            curves=[curve(name, per_s(name)) for name in told],
        ),
        Panel(
            title="size of batches",
            x_label=SECONDS,
            y_label="rows",
            curves=[curve("mean", lambda point: point.rows_mean)],
        ),
    ]
    if any(point.loads for point in report.course):
        loads = curve("loads", lambda point: point.loads / report.interval_s)
        panels.append(Panel(title="models loaded", x_label=SECONDS, y_label="loads/s", curves=[loads]))
    title = f"simulated: {report.policy}, seed {report.seed}: {report.goodput_per_s:.1f} answers a second in time"
    draw_panels(title, panels, path)


def draw_timeline(journal: IO[bytes], scenario: Scenario, report: Report, path: Path) -> None:
    """Every batch of every executor, with a close look at what went wrong, or at beginning, middle and end."""
    from slotwise.edges.plots.timeline import draw

    if report.total.offered > PICTURE_REQUESTS_MAX or len(scenario.models) > PICTURE_MODELS_MAX:
        raise ConfigError(
            f"{report.total.offered} requests to {len(scenario.models)} models are too many for one picture of all"
            f" batches; {PICTURE_REQUESTS_MAX} to {PICTURE_MODELS_MAX} are the most: simulate fewer seconds"
        )
    marks = [
        Mark(executor=executor, at_ns=scenario.warm_up_ns + fault.at_ns, text=fault.kind.value)
        for fault in scenario.faults
        for executor in fault.executors
    ]
    end_ns = scenario.warm_up_ns + int(report.seconds * S)
    draw(
        read_timeline(journal),
        _scenes(marks, scenario.warm_up_ns, end_ns),
        marks,
        path,
        title=f"Slotwise, simulated: {report.policy}",
        subtitle=f"{report.total.offered} requests, {report.total.in_time} answered in time",
    )


def _scenes(marks: Sequence[Mark], start_ns: int, end_ns: int) -> list[Scene]:
    """Equal parts of the run; each is looked at closely around what went wrong in it, or at its middle."""
    bounds = [start_ns + (end_ns - start_ns) * index // SCENES for index in range(SCENES + 1)]
    return [
        Scene(
            name=f"part {index + 1}",
            caption=", ".join(sorted({mark.text for mark in marks if left <= mark.at_ns < right})),
            start_ns=left,
            end_ns=right,
        )
        for index, (left, right) in enumerate(pairwise(bounds))
    ]


def draw_capacity(report: CapacityReport, path: Path) -> None:
    """Attainment and price by the count of devices, a curve for each kind."""
    from slotwise.edges.plots.panels import Curve, Panel, draw_panels

    kinds = list(report.least)
    trials = {kind: [trial for trial in report.trials if trial.kind == kind] for kind in kinds}
    counts = [trial.devices for trial in report.trials]
    bounds = [min(counts), max(counts)]

    def curves(of: Callable[[Trial], float | None]) -> list[Curve]:
        drawn = []
        for kind in kinds:
            points = [(trial.devices, told) for trial in trials[kind] if (told := of(trial)) is not None]
            drawn.append(Curve(label=kind, xs=[x for x, _ in points], ys=[y for _, y in points]))
        return drawn

    target = Curve(label="target", xs=bounds, ys=[report.target, report.target])
    panels = [
        Panel(
            title="requests answered in time",
            x_label="devices",
            y_label="share",
            curves=[*curves(lambda trial: trial.attainment), target],
            is_x_log=True,
        ),
        Panel(
            title="price of a million requests in time",
            x_label="devices",
            y_label="price",
            curves=curves(lambda trial: trial.price_per_million),
            is_x_log=True,
        ),
    ]
    draw_panels(f"how many devices for {report.target:.2%} in time: {report.policy}", panels, path)
