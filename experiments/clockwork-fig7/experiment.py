"""Clockwork's figure 7: how low an SLO can be, on six GPUs under open-loop load.

One case is one policy under one load; it has a row for each step of the ramp of SLOs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from slotwise.edges.plots.panels import Curve, Panel, draw_panels
from slotwise.facts.units import MS, S
from slotwise.facts.value import value
from slotwise.laboratory.clockwork import OURS, POLICIES, PUBLISHED, RESNET50, fleet, not_below, settings_of
from slotwise.laboratory.values import Case, Claim, Experiment, at_least, near
from slotwise.laboratory.virtual import WARM_UP_NS, Watch, play
from slotwise.simulation.models import copies
from slotwise.workload.named import build
from slotwise.workload.player import player_of

SLOS_MS = tuple(2.9 * 1.5**step for step in range(9))
NAMES_MS = ("2.9", "4.4", "6.5", "10", "15", "22", "33", "50", "74")
"""The steps as the paper's axis has them."""
STEP_S = 30.0
FEW_MODELS = 12
"""With these baselines are tried as well."""
LOADS = ((12, 600), (12, 1200), (12, 2400), (48, 600), (48, 1200), (48, 2400))
"""Models, and requests a second of all together."""
FEW = (0.1, 0.86, 0.99, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
MANY = (0.08, 0.66, 0.96, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
PAPER = {
    (12, 600): FEW,
    (48, 600): FEW,
    (12, 1200): MANY,
    (48, 1200): MANY,
    (12, 2400): (0.0, 0.05, 0.27, 0.91, 0.95, 0.99, 1.0, 1.0, 1.0),
    (48, 2400): (0.0, 0.04, 0.21, 0.86, 0.93, 0.98, 1.0, 1.0, 1.0),
}
"""The share answered in time at each step, as read off the plot."""
PAPER_TOLERANCE = 0.07
TARGET, TARGET_STEP, TARGET_RATE = 0.6, 2, 2400
QUICK_LOADS, QUICK_STEPS = ((12, 2400),), (1, 2, 3)


@value
class Point(Case):
    """A policy under a load, over some steps of the ramp."""

    models: int
    rate_per_s: int
    steps: tuple[int, ...]
    step_s: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One step. `satisfaction` is the share of requests answered in time."""

    policy: str
    models: int
    rate_per_s: int
    step: int
    slo_ms: float
    offered: int
    satisfaction: float
    refused_share: float
    late_share: float
    batch_mean: float
    latency_ms_p50: float
    latency_ms_p99: float
    told_ms_p50: float


def cases(is_quick: bool) -> tuple[Point, ...]:
    """Clockwork as published and ours under every load, baselines under half of them."""
    loads, policies = (QUICK_LOADS, (PUBLISHED, OURS)) if is_quick else (LOADS, POLICIES)
    steps = QUICK_STEPS if is_quick else tuple(range(len(SLOS_MS)))
    return tuple(
        Point(
            id=f"{policy}.n{models}.r{rate}",
            policy=policy,
            models=models,
            rate_per_s=rate,
            steps=steps,
            step_s=2.0 if is_quick else STEP_S,
        )
        for policy in policies
        for models, rate in loads
        if policy in (PUBLISHED, OURS) or models == FEW_MODELS
    )


def run(case: Point) -> list[Row]:
    """Let SLOs grow step by step."""
    first, last = SLOS_MS[case.steps[0]], SLOS_MS[case.steps[-1]]
    models = copies("resnet50", RESNET50, case.models, slo_ns=int(last * MS))
    asked = build(
        "slo-exp-1",
        {
            "copies": case.models,
            "rate_per_s": case.rate_per_s,
            "slo_start": first / SLOS_MS[0],
            "slo_end": last / SLOS_MS[0],
            "period_s": case.step_s,
        },
        models=[spec.id for spec in models],
    )
    watch = Watch([WARM_UP_NS + int(step * case.step_s * S) for step in range(len(case.steps) + 1)])
    play(
        policy=case.policy,
        settings=settings_of(case.policy, ahead_ms=5, batch_max=8),
        models=models,
        fleet=fleet(6),
        player=player_of(asked.workload),
        seconds=asked.workload.duration_s,
        watch=watch,
    )
    return [
        Row(
            policy=case.policy,
            models=case.models,
            rate_per_s=case.rate_per_s,
            step=step,
            slo_ms=round(SLOS_MS[step], 2),
            offered=counted.offered,
            satisfaction=counted.in_time / counted.offered,
            refused_share=counted.refused / counted.offered,
            late_share=counted.late / counted.offered,
            batch_mean=machinery.batch_mean,
            latency_ms_p50=counted.latency_ms_p50,
            latency_ms_p99=counted.latency_ms_p99,
            told_ms_p50=counted.told_ms_p50,
        )
        for step, counted, machinery in zip(case.steps, watch.stretches(), watch.machinery(), strict=True)
    ]


def claims(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """Hold the steps against the plot, and ours against our target and Clockwork's."""
    return (*_of_the_paper(rows), *_of_ours(rows), *_beside(rows))


def _name(row: Row) -> str:
    return f"fig7.n{row.models}.r{row.rate_per_s}.slo{NAMES_MS[row.step]}"


def _of_the_paper(rows: Sequence[Row]) -> Iterator[Claim]:
    for row in rows:
        if row.policy == PUBLISHED:
            oracle = PAPER[row.models, row.rate_per_s][row.step]
            yield near(
                f"{_name(row)}.published",
                row.satisfaction,
                oracle,
                policy=row.policy,
                tolerance=PAPER_TOLERANCE,
                source="figure 7",
            )


def _of_ours(rows: Sequence[Row]) -> Iterator[Claim]:
    for row in rows:
        if (row.policy, row.step, row.rate_per_s) == (OURS, TARGET_STEP, TARGET_RATE):
            yield at_least(f"{_name(row)}.target", row.satisfaction, TARGET, policy=OURS, source="our target")


def _beside(rows: Sequence[Row]) -> Iterator[Claim]:
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        found[_name(row)][row.policy] = row.satisfaction
    for name, by_policy in found.items():
        yield from not_below(f"{name}.not-below", by_policy)


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each load."""
    loads = list(dict.fromkeys((row.models, row.rate_per_s) for row in rows))
    draw_panels(
        "Share answered in time by SLO, ResNet50 on six GPUs, virtual time",
        [_panel(rows, *load) for load in loads],
        path,
    )


def _panel(rows: Sequence[Row], models: int, rate: int) -> Panel:
    here = [row for row in rows if (row.models, row.rate_per_s) == (models, rate)]
    paper = Curve(label="the paper's Clockwork", xs=SLOS_MS, ys=PAPER[models, rate], is_reference=True)
    return Panel(
        title=f"{models} models, {rate}/s",
        x_label="SLO, ms",
        y_label="share in time",
        curves=(*(_curve(here, policy) for policy in dict.fromkeys(row.policy for row in here)), paper),
        is_x_log=True,
    )


def _curve(rows: Sequence[Row], policy: str) -> Curve:
    own = [row for row in rows if row.policy == policy]
    return Curve(label=policy, xs=[SLOS_MS[row.step] for row in own], ys=[row.satisfaction for row in own])


EXPERIMENT = Experiment(
    name="clockwork-fig7",
    title="Clockwork's figure 7: how low an SLO can be, on six GPUs under open-loop load",
    row=Row,
    cases=cases,
    run=run,
    claims=claims,
    draw=draw,
)
