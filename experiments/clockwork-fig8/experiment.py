"""Clockwork's figure 8: six models with tight SLOs on six GPUs, beside tenants that keep these full and have a day.

One case is one policy beside one kind of tenants; it has a row for each step of the ramp of SLOs.
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
STEP_S, QUICK_STEP_S = 5.0, 1.5
TIGHT, PATIENT = "tight", "patient"
TENANTS = {"none": (0, 1), "big": (12, 16), "small": (48, 4)}
"""Models in the background, and clients of each."""
PAPER = {
    "none": (0.1, 0.65, 0.96, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    "big": (0.0, 0.0, 0.0, 0.68, 0.88, 1.0, 1.0, 1.0, 1.0),
    "small": (0.0, 0.0, 0.0, 0.85, 0.98, 1.0, 1.0, 1.0, 1.0),
}
"""The share of tight requests answered in time at each step, as read off the plot."""
PAPER_TOLERANCE = 0.07
PAPER_PATIENT_PER_S = {"big": (3000, 2500), "small": (2200, 2050)}
"""What the tenants got: at the first step, and at the last."""
PATIENT_TOLERANCE = 0.15
TARGETS = {3: 0.95, 2: 0.5}
"""Ours, by step: at 10 ms and at 6.5."""
QUICK_STEPS = (2, 3, 4)


@value
class Point(Case):
    """A policy beside tenants of one kind, over some steps of the ramp."""

    tenants: str
    steps: tuple[int, ...]
    step_s: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One step. `satisfaction` is the share of tight requests answered in time; `patient_per_s` what tenants got."""

    policy: str
    tenants: str
    step: int
    slo_ms: float
    offered: int
    satisfaction: float
    patient_per_s: float
    batch_mean: float
    busy_share: float
    latency_ms_p99: float
    told_ms_p50: float


def cases(is_quick: bool) -> tuple[Point, ...]:
    """Clockwork as published and ours beside every kind of tenants, the others beside big ones."""
    policies = (PUBLISHED, OURS) if is_quick else POLICIES
    return tuple(
        Point(
            id=f"{policy}.{tenants}",
            policy=policy,
            tenants=tenants,
            steps=QUICK_STEPS if is_quick else tuple(range(len(SLOS_MS))),
            step_s=QUICK_STEP_S if is_quick else STEP_S,
        )
        for policy in policies
        for tenants in (("big",) if is_quick or policy not in (PUBLISHED, OURS) else TENANTS)
    )


def run(case: Point) -> list[Row]:
    """Let the tight models' SLOs grow step by step."""
    first, last = SLOS_MS[case.steps[0]], SLOS_MS[case.steps[-1]]
    count, clients = TENANTS[case.tenants]
    front = copies(TIGHT, RESNET50, 6, slo_ns=int(last * MS))
    models = front + copies(PATIENT, RESNET50, count, slo_ns=86_400 * S)
    asked = build(
        "slo-exp-2",
        {
            "copies_bg": count,
            "concurrency_bg": clients,
            "slo_start": first / SLOS_MS[0],
            "slo_end": last / SLOS_MS[0],
            "period_s": case.step_s,
            "jitter_bg_s": 0.5,
        },
        models=[spec.id for spec in models],
    )
    watch = Watch(
        [WARM_UP_NS + int(step * case.step_s * S) for step in range(len(case.steps) + 1)],
        lambda model: TIGHT if model.startswith(TIGHT) else PATIENT,
    )
    play(
        policy=case.policy,
        settings=settings_of(case.policy, ahead_ms=5, batch_max=8),
        models=models,
        fleet=fleet(6),
        player=player_of(asked.workload),
        seconds=asked.workload.duration_s,
        watch=watch,
    )
    return [_row(case, place, watch) for place in range(len(case.steps))]


def _row(case: Point, place: int, watch: Watch) -> Row:
    found = {stretch.group: stretch for stretch in watch.stretches() if stretch.index == place}
    tight, machinery = found[TIGHT], watch.machinery()[place]
    return Row(
        policy=case.policy,
        tenants=case.tenants,
        step=case.steps[place],
        slo_ms=round(SLOS_MS[case.steps[place]], 2),
        offered=tight.offered,
        satisfaction=tight.in_time / tight.offered,
        patient_per_s=found[PATIENT].in_time / case.step_s if PATIENT in found else 0.0,
        batch_mean=machinery.batch_mean,
        busy_share=machinery.run_s / (6 * case.step_s),
        latency_ms_p99=tight.latency_ms_p99,
        told_ms_p50=tight.told_ms_p50,
    )


def claims(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """Hold the steps against the plot, and ours against our targets and Clockwork's."""
    return (*_of_the_paper(rows), *_of_the_papers_tenants(rows), *_of_ours(rows), *_beside(rows))


def _name(row: Row) -> str:
    return f"fig8.{row.tenants}.slo{NAMES_MS[row.step]}"


def _of_the_paper(rows: Sequence[Row]) -> Iterator[Claim]:
    for row in rows:
        if row.policy == PUBLISHED:
            yield near(
                f"{_name(row)}.published",
                row.satisfaction,
                PAPER[row.tenants][row.step],
                policy=row.policy,
                tolerance=PAPER_TOLERANCE,
                source="figure 8, top",
            )


def _of_the_papers_tenants(rows: Sequence[Row]) -> Iterator[Claim]:
    last = len(SLOS_MS) - 1
    for row in rows:
        if row.policy == PUBLISHED and row.tenants in PAPER_PATIENT_PER_S and row.step in (0, last):
            oracle = PAPER_PATIENT_PER_S[row.tenants][row.step == last]
            yield near(
                f"{_name(row)}.patient-published",
                row.patient_per_s,
                oracle,
                policy=row.policy,
                tolerance=PATIENT_TOLERANCE * oracle,
                source="figure 8, bottom",
            )


def _of_ours(rows: Sequence[Row]) -> Iterator[Claim]:
    for row in rows:
        if row.policy == OURS and row.tenants != "none" and row.step in TARGETS:
            oracle = TARGETS[row.step]
            yield at_least(f"{_name(row)}.target", row.satisfaction, oracle, policy=OURS, source="our target")


def _beside(rows: Sequence[Row]) -> Iterator[Claim]:
    tight: dict[str, dict[str, float]] = defaultdict(dict)
    patient: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        tight[_name(row)][row.policy] = row.satisfaction
        if row.tenants != "none":
            patient[_name(row)][row.policy] = row.patient_per_s
    for name, by_policy in tight.items():
        yield from not_below(f"{name}.not-below", by_policy)
    for name, by_policy in patient.items():
        yield from not_below(f"{name}.patient-not-below", by_policy)


def draw(rows: Sequence[Row], path: Path) -> None:
    """What the tight models got, and what the tenants beside them got."""
    kinds = list(dict.fromkeys(row.tenants for row in rows))
    panels = [_panel(rows, kind, field) for kind in kinds for field in ("satisfaction", "patient_per_s")]
    draw_panels("Six models with tight SLOs beside tenants with a day to wait, six GPUs, virtual time", panels, path)


def _panel(rows: Sequence[Row], kind: str, field: str) -> Panel:
    here = [row for row in rows if row.tenants == kind]
    curves = [_curve(here, policy, field) for policy in dict.fromkeys(row.policy for row in here)]
    is_tight = field == "satisfaction"
    if is_tight:
        curves.append(Curve(label="the paper's Clockwork", xs=SLOS_MS, ys=PAPER[kind], is_reference=True))
    elif kind in PAPER_PATIENT_PER_S:
        ends = (SLOS_MS[0], SLOS_MS[-1])
        curves.append(Curve(label="the paper's Clockwork", xs=ends, ys=PAPER_PATIENT_PER_S[kind], is_reference=True))
    count, clients = TENANTS[kind]
    beside = f"{count} tenants x {clients}" if count else "no tenants"
    return Panel(
        title=f"{beside}: {'tight models' if is_tight else 'tenants'}",
        x_label="SLO of the tight models, ms",
        y_label="share in time" if is_tight else "answers, 1/s",
        curves=curves,
        is_x_log=True,
    )


def _curve(rows: Sequence[Row], policy: str, field: str) -> Curve:
    own = [row for row in rows if row.policy == policy]
    return Curve(label=policy, xs=[SLOS_MS[row.step] for row in own], ys=[getattr(row, field) for row in own])


EXPERIMENT = Experiment(
    name="clockwork-fig8",
    title="Clockwork's figure 8: tight SLOs beside tenants that keep the GPUs full and have a day to wait",
    row=Row,
    cases=cases,
    run=run,
    claims=claims,
    draw=draw,
)
