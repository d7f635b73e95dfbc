"""How many devices can one controller have? In virtual time, where deciding costs nothing; by the wall, where it does.

Virtual: more and more of the paper's GPUs, each with the share of requests that it can just serve; the scheduler must
fill all of them. Wall: one process with the controller and devices that wait their profiles out, asked more and more
until it no longer keeps up, and what it spends on a request. That is Python on one core of this machine, and no match
for the paper's controller of 18 cores and C++.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from slotwise.edges.plots.panels import Curve, Panel, draw_panels
from slotwise.facts.units import S
from slotwise.facts.value import value
from slotwise.laboratory.azure import Day, day
from slotwise.laboratory.clockwork import MENDED, OURS, PUBLISHED, fleet, settings_of
from slotwise.laboratory.values import Case, Claim, Experiment, at_least
from slotwise.laboratory.virtual import WARM_UP_NS, Watch, play
from slotwise.workload.player import player_of
from slotwise.workload.values import scaled

sys.path.insert(0, str(Path(__file__).parent))
from pretended import Outcomes, Pretended  # the other file of this folder

sys.path.pop(0)

VIRTUAL, WALL = "virtual", "wall"
MODELS = 265
"""Five of each type; the paper had 4,026 for any number of workers."""
AHEAD_MS, BATCH_MAX = 5.0, 8
"""As in the figure's scripts."""
RATE_PER_DEVICE = 1000.0
DEVICES = (10, 20, 40, 80, 110, 150)
QUICK_DEVICES = (2, 4, 8)
SETTLING_S, COUNTED_S = 1.0, 1.0
"""Of virtual time, for each number of devices."""
WALL_DEVICES = (10, 40)
WALL_RATE_PER_S, WALL_GROWTH = 500.0, 1.25
WALL_STEPS_MAX = 24
KEPT_UP_SHARE = 0.99
"""A controller keeps up with a rate when it answers so much of it in time."""
LINEAR_TOLERANCE = 0.02
SUSTAINED_PER_S = 1000.0
"""What one process is to keep up with at least."""
PUBLISHED_PER_S = {10: 10_000, 40: 40_000, 80: 80_000, 110: 103_387, 120: 92_000, 150: 75_000}
"""The paper's goodput by devices; about 1,000 for each up to 110, where it peaks."""
SOURCE_LINEAR = "figure 11, right: about 1,000 a second for each of up to 110 workers"
SOURCE_WALL = "thousands are expected of one Python process; the paper's peak is 103,387 a second, and no equal"


@value
class Scale(Case):
    """A policy on so many devices; `seconds` are those of one step by the wall."""

    form: str
    devices: int
    seconds: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One number of devices in virtual time, or one rate by the wall. Microseconds are of processor, for a request."""

    form: str
    policy: str
    devices: int
    offered_per_s: float
    goodput_per_s: float
    batch_mean: float = 0.0
    busy: float = 0.0
    """Of the devices' time."""
    process_us: float = 0.0
    """The whole process, with the devices that it pretends."""
    controller_us: float = 0.0
    arrival_us: float = 0.0
    """Of it, what the scheduler does with an arrival;"""
    choose_us: float = 0.0
    """with choosing;"""
    result_us: float = 0.0
    """and with results."""


def cases(is_quick: bool) -> tuple[Scale, ...]:
    """Two policies in virtual time, three by the wall."""
    virtual = [
        Scale(id=f"{VIRTUAL}-{policy}-{devices}", policy=policy, form=VIRTUAL, devices=devices, seconds=COUNTED_S)
        for policy in (PUBLISHED, OURS)
        for devices in (QUICK_DEVICES if is_quick else DEVICES)
    ]
    wall = [
        Scale(
            id=f"{WALL}-{policy}-{devices}",
            policy=policy,
            is_measured=True,
            form=WALL,
            devices=devices,
            seconds=1.0 if is_quick else 3.0,
        )
        for policy in (MENDED, OURS)
        for devices in (WALL_DEVICES[:1] if is_quick else WALL_DEVICES)
    ]
    return (*virtual, *wall)


def run(case: Scale) -> list[Row]:
    """One row in virtual time; by the wall one for each rate, up to the first that is too much."""
    return [_virtual(case)] if case.form == VIRTUAL else asyncio.run(_wall(case))


def _day(rate_per_s: float, seconds: float) -> Day:
    return day(models=MODELS, rate_per_s=rate_per_s, seconds=seconds)


def _virtual(case: Scale) -> Row:
    seconds = SETTLING_S + case.seconds
    today = _day(RATE_PER_DEVICE * case.devices, seconds)
    begin_ns = WARM_UP_NS + int(SETTLING_S * S)
    watch = Watch([begin_ns, begin_ns + int(case.seconds * S)])
    play(
        policy=case.policy,
        models=today.models,
        fleet=fleet(case.devices),
        player=player_of(today.workload),
        seconds=seconds,
        watch=watch,
        settings=settings_of(case.policy, ahead_ms=AHEAD_MS, batch_max=BATCH_MAX),
    )
    (found,), (machinery,) = watch.stretches(), watch.machinery()
    return Row(
        form=VIRTUAL,
        policy=case.policy,
        devices=case.devices,
        offered_per_s=round(found.offered / case.seconds, 1),
        goodput_per_s=round(found.in_time / case.seconds, 1),
        batch_mean=round(machinery.batch_mean, 3),
        busy=round(machinery.run_s / case.seconds / case.devices, 4),
    )


async def _wall(case: Scale) -> list[Row]:
    """Rates that grow until one is too much, twice."""
    today = _day(1.0, case.seconds)
    settings = dict(settings_of(case.policy, ahead_ms=AHEAD_MS, batch_max=BATCH_MAX))
    system = Pretended(case.policy, settings, today.models, fleet(case.devices))
    await system.start()
    await system.play(replace(scaled(today.workload, WALL_RATE_PER_S), seed=WALL_STEPS_MAX))  # first loads do not count
    rows: list[Row] = []
    for step in range(WALL_STEPS_MAX):
        workload = scaled(today.workload, WALL_RATE_PER_S * WALL_GROWTH**step)
        row = _wall_row(case, await system.play(replace(workload, seed=step)))
        if not _keeps_up(row):  # once may be the machine's fault
            row = _wall_row(case, await system.play(replace(workload, seed=-step)))
        rows.append(row)
        if not _keeps_up(row):
            break
    return rows


def _wall_row(case: Scale, came: Outcomes) -> Row:
    spent, requests_us = came.spent, 1000 * max(1, came.offered)
    return Row(
        form=WALL,
        policy=case.policy,
        devices=case.devices,
        offered_per_s=round(came.offered / case.seconds, 1),
        goodput_per_s=round(came.in_time / case.seconds, 1),
        process_us=round(spent.process_ns / requests_us, 2),
        controller_us=round(spent.controller_ns / requests_us, 2),
        arrival_us=round(spent.arrival_ns / requests_us, 2),
        choose_us=round(spent.choose_ns / requests_us, 2),
        result_us=round(spent.result_ns / requests_us, 2),
    )


def _keeps_up(row: Row) -> bool:
    return row.goodput_per_s >= KEPT_UP_SHARE * row.offered_per_s


def claims(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """Goodput grows with devices in virtual time; by the wall, a rate that is kept up with."""
    made: list[Claim] = []
    for form, policy in dict.fromkeys((row.form, row.policy) for row in rows):
        own = [row for row in rows if (row.form, row.policy) == (form, policy)]
        made += _linear(policy, own) if form == VIRTUAL else _sustained(policy, own)
    return tuple(made)


def _linear(policy: str, rows: Sequence[Row]) -> list[Claim]:
    return [
        at_least(
            f"fig11.devices{row.devices}.goodput_share",
            row.goodput_per_s / row.offered_per_s,
            1.0,
            policy=policy,
            tolerance=LINEAR_TOLERANCE,
            source=SOURCE_LINEAR,
        )
        for row in rows
    ]


def _sustained(policy: str, rows: Sequence[Row]) -> list[Claim]:
    return [
        at_least(
            f"fig11.wall{devices}.kept_up_with_per_s",
            max((row.goodput_per_s for row in rows if row.devices == devices and _keeps_up(row)), default=0.0),
            SUSTAINED_PER_S,
            policy=policy,
            source=SOURCE_WALL,
        )
        for devices in dict.fromkeys(row.devices for row in rows)
    ]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Goodput by devices, batches, and by the wall goodput and cost by rate."""
    virtual = [row for row in rows if row.form == VIRTUAL]
    published = Curve(label="paper", xs=list(PUBLISHED_PER_S), ys=list(PUBLISHED_PER_S.values()), is_reference=True)
    panels = [
        Panel(
            title="virtual: answers in time",
            x_label="devices",
            y_label="per s",
            curves=[*_by(virtual, "devices", "goodput_per_s"), published],
        ),
        Panel(
            title="virtual: batches",
            x_label="devices",
            y_label="requests",
            curves=_by(virtual, "devices", "batch_mean"),
        ),
        _wall_panel(rows, "one process: answers in time", "per s", "goodput_per_s"),
        _wall_panel(rows, "one process: the controller", "us of processor for a request", "controller_us"),
    ]
    draw_panels("Devices that one controller can have", panels, path)


def _by(rows: Sequence[Row], x: str, y: str) -> list[Curve]:
    return [
        Curve(
            label=policy,
            xs=[getattr(row, x) for row in rows if row.policy == policy],
            ys=[getattr(row, y) for row in rows if row.policy == policy],
        )
        for policy in dict.fromkeys(row.policy for row in rows)
    ]


def _wall_panel(rows: Sequence[Row], title: str, y_label: str, field: str) -> Panel:
    groups = dict.fromkeys((row.policy, row.devices) for row in rows if row.form == WALL)
    return Panel(
        title=title,
        x_label="requests a second",
        y_label=y_label,
        curves=[
            Curve(
                label=f"{policy}, {devices} devices",
                xs=[row.offered_per_s for row in own],
                ys=[getattr(row, field) for row in own],
            )
            for policy, devices in groups
            for own in [[row for row in rows if (row.form, row.policy, row.devices) == (WALL, policy, devices)]]
        ],
    )


EXPERIMENT = Experiment(
    name="clockwork-fig11",
    title="How many devices one controller can have",
    row=Row,
    cases=cases,
    run=run,
    claims=claims,
    draw=draw,
)
