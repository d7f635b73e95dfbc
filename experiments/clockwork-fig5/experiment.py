"""Clockwork's figure 5: fifteen models on one GPU, each asked by sixteen clients that never let go.

One case is one policy under one SLO with one kind of client; its row counts what was asked after a second of warm-up.
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
from slotwise.laboratory.values import Case, Claim, Experiment, at_least, at_most, near
from slotwise.laboratory.virtual import WARM_UP_NS, Watch, play
from slotwise.simulation.models import copies
from slotwise.simulation.profiles import shipped_profile
from slotwise.workload.named import build
from slotwise.workload.player import player_of

SLOS_MS = (10, 25, 50, 100, 250, 500)
PAPER_PER_S = {10: 140, 25: 740, 50: 800, 100: 800, 250: 785, 500: 800}
"""Clockwork's bars, as read off the plot."""
PAPER_TOLERANCE = 0.1
BEGIN_S, END_TIGHT_S, END_S = 1.0, 11.0, 11.0
"""What counts, in seconds after the first client asked; below an SLO of 250 ms it is less, as much more is asked."""
END_PATIENT_S = 11.0
SLO_EASY_MS = 250
UNTIRED = ("bounded",)
"""Not tried here: with clients that ask again at once it would refuse 240,000 requests a second, as ours does."""
INSISTENT, PATIENT = "insistent", "patient"
"""The paper's client, which asks again at once; and one that comes again when it is told to, as `Retry-After` does."""
TABLE, PLOT = "table-1", "resnet50-v2"
"""Table 1's ResNet50 in batches up to 16, as the paper says; and ResNet50 v2 of its code's manual in batches up to 8,
as the code is set, with which 800 answers a second are all that a GPU can do."""
PROFILES = {TABLE: (RESNET50, 16), PLOT: (shipped_profile("resnet50_v2"), 8)}
CEILING_PER_S = 16 / (RESNET50.run_ns[-1] / S)
SLO_TIGHT_MS, GOODPUT_TIGHT_PER_S, TOLD_MS = 10, 600.0, 2.0
REACTIVE = "infaas"
"""Held against what the plot says of INFaaS in quality alone, as that ran on other machines."""
SLO_LOOSE_MS, MET_SHARE = 500, 0.99
"""Under this SLO INFaaS met it for this share."""


@value
class Point(Case):
    """A policy under an SLO."""

    slo_ms: int
    client: str
    profile: str
    end_s: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one case. `told_ms_p50` is how long those waited who got no answer."""

    policy: str
    slo_ms: int
    client: str
    profile: str
    offered_per_s: float
    goodput_per_s: float
    rejected_share: float
    batch_mean: float
    latency_ms_p50: float
    latency_ms_p99: float
    latency_ms_max: float
    told_ms_p50: float


def cases(is_quick: bool) -> tuple[Point, ...]:
    """Every policy and SLO, two also with patient clients; and Clockwork as published with the plot's profile."""
    slos, policies = ((10, 100), (PUBLISHED, OURS)) if is_quick else (SLOS_MS, POLICIES)
    clients = (PATIENT,) if is_quick else (INSISTENT, PATIENT)
    points = [
        _point(policy, slo_ms, client, TABLE)
        for client in clients
        for policy in policies
        for slo_ms in slos
        if policy not in UNTIRED
        if client == INSISTENT or policy in (PUBLISHED, OURS)
    ]
    points += [_point(PUBLISHED, slo_ms, INSISTENT, PLOT) for slo_ms in slos]
    return tuple(points)


def _point(policy: str, slo_ms: int, client: str, profile: str) -> Point:
    end_s = END_PATIENT_S if client == PATIENT else END_TIGHT_S if slo_ms < SLO_EASY_MS else END_S
    name = f"{policy}.slo{slo_ms}.{client}.{profile}"
    return Point(id=name, policy=policy, slo_ms=slo_ms, client=client, profile=profile, end_s=end_s)


def run(case: Point) -> list[Row]:
    """Play the clients against the policy."""
    profile, batch_max = PROFILES[case.profile]
    models = copies("resnet50", profile, 15, slo_ns=case.slo_ms * MS)
    asked = build(
        "comparison_experiment2",
        {"slo_ms": case.slo_ms, "seconds": case.end_s, "heeds_retry_after": case.client == PATIENT},
        models=[spec.id for spec in models],
    )
    watch = Watch([WARM_UP_NS + int(at_s * S) for at_s in (BEGIN_S, case.end_s)])
    play(
        policy=case.policy,
        settings=settings_of(case.policy, ahead_ms=5, batch_max=batch_max),
        models=models,
        fleet=fleet(1),
        player=player_of(asked.workload),
        seconds=case.end_s,
        watch=watch,
    )
    (counted,), (machinery,) = watch.stretches(), watch.machinery()
    seconds = case.end_s - BEGIN_S
    return [
        Row(
            policy=case.policy,
            slo_ms=case.slo_ms,
            client=case.client,
            profile=case.profile,
            offered_per_s=counted.offered / seconds,
            goodput_per_s=counted.in_time / seconds,
            rejected_share=(counted.refused + counted.dropped) / counted.offered,
            batch_mean=machinery.batch_mean,
            latency_ms_p50=counted.latency_ms_p50,
            latency_ms_p99=counted.latency_ms_p99,
            latency_ms_max=counted.latency_ms_max,
            told_ms_p50=counted.told_ms_p50,
        )
    ]


def claims(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """Hold the rows against the plot, against what a GPU can do, and ours against Clockwork's."""
    return (*_of_the_paper(rows), *_of_ours(rows), *_beside(rows), *_of_the_reactive(rows))


def _of_the_paper(rows: Sequence[Row]) -> Iterator[Claim]:
    for row in rows:
        if row.profile == PLOT:
            oracle = PAPER_PER_S[row.slo_ms]
            yield near(
                f"fig5.slo{row.slo_ms}.published",
                row.goodput_per_s,
                oracle,
                policy=row.policy,
                tolerance=PAPER_TOLERANCE * 800,
                source="figure 5, with resnet50_v2 in batches up to 8",
            )
    best = max(rows, key=lambda row: row.goodput_per_s if (row.policy, row.profile) == (PUBLISHED, TABLE) else 0.0)
    yield near(
        "fig5.ceiling",
        best.goodput_per_s,
        CEILING_PER_S,
        policy=best.policy,
        tolerance=0.03 * CEILING_PER_S,
        source="batches of 16 back to back, of table 1",
    )


def _of_ours(rows: Sequence[Row]) -> Iterator[Claim]:
    for row in rows:
        if row.policy != OURS:
            continue
        name = f"fig5.slo{row.slo_ms}.{row.client}"
        if row.slo_ms == SLO_TIGHT_MS:
            yield at_least(f"{name}.goodput", row.goodput_per_s, GOODPUT_TIGHT_PER_S, policy=OURS, source="our target")
        if row.rejected_share:
            yield at_most(f"{name}.told-ms", row.told_ms_p50, TOLD_MS, policy=OURS, source="our target")


def _beside(rows: Sequence[Row]) -> Iterator[Claim]:
    found: dict[tuple[int, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row.profile == TABLE:
            found[row.slo_ms, row.client][row.policy] = row.goodput_per_s
    for (slo_ms, client), by_policy in found.items():
        yield from not_below(f"fig5.slo{slo_ms}.{client}.not-below", by_policy)


def _of_the_reactive(rows: Sequence[Row]) -> Iterator[Claim]:
    """That who reacts to load and refuses nobody is below under tight SLOs, and in time under a loose one."""
    published = {
        row.slo_ms: row.goodput_per_s
        for row in rows
        if (row.policy, row.client, row.profile) == (PUBLISHED, INSISTENT, TABLE)
    }
    for row in rows:
        if row.policy != REACTIVE:
            continue
        name = f"fig5.slo{row.slo_ms}.{REACTIVE}"
        if row.slo_ms < SLO_EASY_MS and row.slo_ms in published:
            beside = published[row.slo_ms]
            yield at_most(f"{name}-below", row.goodput_per_s, beside, policy=REACTIVE, source=f"{PUBLISHED}, run here")
        if row.slo_ms == SLO_LOOSE_MS:
            share = row.goodput_per_s / row.offered_per_s
            yield at_least(f"{name}-met", share, MET_SHARE, policy=REACTIVE, source="section 6.1")


def draw(rows: Sequence[Row], path: Path) -> None:
    """Goodput, what was offered, and how soon a no is told."""
    paper = Curve(label="the paper's Clockwork", xs=SLOS_MS, ys=tuple(PAPER_PER_S.values()), is_reference=True)
    plot = _curve(rows, PUBLISHED, INSISTENT, "goodput_per_s", PLOT, "clockwork-published, resnet50_v2")
    panels = [
        _panel(
            rows, "Goodput, clients that ask again at once", "in time, 1/s", INSISTENT, "goodput_per_s", (paper, plot)
        ),
        _panel(rows, "Goodput, clients that heed Retry-After", "in time, 1/s", PATIENT, "goodput_per_s"),
        _panel(
            rows, "Offered, clients that ask again at once", "requests, 1/s", INSISTENT, "offered_per_s", is_log=True
        ),
        _panel(rows, "Time until a no, median", "ms", INSISTENT, "told_ms_p50"),
    ]
    draw_panels("15 ResNet50 on one GPU, 16 clients each, virtual time", panels, path)


def _panel(
    rows: Sequence[Row],
    title: str,
    y_label: str,
    client: str,
    field: str,
    more: tuple[Curve, ...] = (),
    *,
    is_log: bool = False,
) -> Panel:
    policies = dict.fromkeys(row.policy for row in rows)
    curves = [_curve(rows, policy, client, field, TABLE, policy) for policy in policies]
    return Panel(
        title=title, x_label="SLO, ms", y_label=y_label, curves=(*curves, *more), is_x_log=True, is_y_log=is_log
    )


def _curve(rows: Sequence[Row], policy: str, client: str, field: str, profile: str, label: str) -> Curve:
    points = [row for row in rows if (row.policy, row.client, row.profile) == (policy, client, profile)]
    return Curve(label=label, xs=[row.slo_ms for row in points], ys=[getattr(row, field) for row in points])


EXPERIMENT = Experiment(
    name="clockwork-fig5",
    title="Clockwork's figure 5: goodput by SLO, fifteen models on one GPU under clients that never let go",
    row=Row,
    cases=cases,
    run=run,
    claims=claims,
    draw=draw,
)
