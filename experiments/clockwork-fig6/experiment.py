"""Clockwork's figure 6: 3,601 models on one GPU that has room for 196, and one more of them wakes up each second.

One case is one policy; it has a row for each ten seconds of the paper's hour.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from slotwise.edges.plots.panels import Curve, Panel, draw_panels
from slotwise.facts.actions import Action, Unload
from slotwise.facts.events import Event
from slotwise.facts.units import MS, S
from slotwise.facts.value import value
from slotwise.laboratory.clockwork import OURS, POLICIES, PUBLISHED, RESNET50, fleet, not_below, settings_of
from slotwise.laboratory.values import Case, Claim, Experiment, at_least, at_most, near
from slotwise.laboratory.virtual import WARM_UP_NS, Machinery, Stretch, Watch, play
from slotwise.simulation.fleets import CLOCKWORK_PAGES
from slotwise.simulation.models import copies
from slotwise.workload.named import build
from slotwise.workload.player import player_of

SLO_MS = 100
FULL_POLICIES = (PUBLISHED, OURS)
MODELS, LEAD_IN_S, GROWTH_PER_S, BUCKET_S = 3600, 300, 1, 10
"""The paper's hour."""
TENTH_MODELS, TENTH_LEAD_IN_S, TENTH_PAGES, TENTH_GROWTH_PER_S, TENTH_BUCKET_S = 360, 5, 138, 12, 1
"""A tenth of the models and of the memory, at the same rates; twelve wake up each second."""
MINOR, MAJOR = "minor", "major"
WINDOWS = 12
"""Points at which we hold ours against Clockwork's: five minutes of the paper's hour each."""
END_ROWS = 10
"""The end state is that of the last rows: a hundred seconds of the hour, ten of the tenth."""
END_PER_S, END_TOLERANCE_PER_S = 174.0, 5.0
COLD_SHARE, COLD_TOLERANCE = 0.69, 0.03
FULL_MINUTES, FULL_TOLERANCE = 3.5, 0.35
SOURCE = "figure 6; 120 loads a second and 196 of 3,600 models resident come to it"


@value
class Point(Case):
    """A policy, at a scale."""

    models: int
    lead_in_s: int
    pages: int
    growth_per_s: int
    bucket_s: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Some seconds of a case. `at_s` counts from the first model's waking; goodput is by when requests came."""

    policy: str
    is_full: bool
    at_s: int
    minor_per_s: float
    major_per_s: float
    major_cold_share: float
    minor_ms_p50: float
    major_ms_p50: float
    ms_max: float
    late: int
    told_ms_p50: float
    load_share: float
    run_share: float
    batch_mean: float
    first_unload_s: float
    """When memory was full; the same in all rows of a case."""


class FirstUnload:
    """A recorder that notes when memory was full for the first time."""

    def __init__(self) -> None:
        self.at_ns = 0

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Look for it."""
        if not self.at_ns and any(type(action) is Unload for action in actions):
            self.at_ns = now_ns


def cases(is_quick: bool) -> tuple[Point, ...]:
    """Every policy at a tenth of the scale, and two of them at full scale; a quick run has these two at a tenth."""
    tenth = (TENTH_MODELS, TENTH_LEAD_IN_S, TENTH_PAGES, TENTH_GROWTH_PER_S, TENTH_BUCKET_S)
    small = tuple(_point(policy, *tenth) for policy in (FULL_POLICIES if is_quick else POLICIES))
    if is_quick:
        return small
    return small + tuple(
        _point(policy, MODELS, LEAD_IN_S, CLOCKWORK_PAGES, GROWTH_PER_S, BUCKET_S) for policy in FULL_POLICIES
    )


def _point(policy: str, models: int, lead_in_s: int, pages: int, growth_per_s: int, bucket_s: int) -> Point:
    return Point(
        id=f"{policy}.m{models}",
        policy=policy,
        models=models,
        lead_in_s=lead_in_s,
        pages=pages,
        growth_per_s=growth_per_s,
        bucket_s=bucket_s,
    )


def run(case: Point) -> list[Row]:
    """Wake one model after the other."""
    models = copies("resnet50", RESNET50, case.models + 1, slo_ns=SLO_MS * MS)
    minor = models[0].id
    asked = build(
        "bursty_experiment",
        {"copies": case.models, "growth_per_s": case.growth_per_s, "lead_in_s": case.lead_in_s, "slo_ms": SLO_MS},
        models=[spec.id for spec in models],
    )
    seconds = int(asked.workload.duration_s)
    begin_ns = WARM_UP_NS + case.lead_in_s * S
    instants_s = range(0, seconds - case.lead_in_s + 1, case.bucket_s)
    watch = Watch([begin_ns + at_s * S for at_s in instants_s], lambda model: MINOR if model == minor else MAJOR)
    full = FirstUnload()
    play(
        policy=case.policy,
        settings=settings_of(case.policy, ahead_ms=10, batch_max=8),
        models=models,
        fleet=fleet(1, case.pages),
        player=player_of(asked.workload),
        seconds=seconds,
        watch=watch,
        recorders=(full,),
    )
    found = {(stretch.group, stretch.index): stretch for stretch in watch.stretches()}
    full_s = (full.at_ns - begin_ns) / S
    return [
        _row(case, instants_s[one.index], found[MINOR, one.index], found[MAJOR, one.index], one, full_s)
        for one in watch.machinery()
    ]


def _row(case: Point, at_s: int, minor: Stretch, major: Stretch, machinery: Machinery, full_s: float) -> Row:
    return Row(
        policy=case.policy,
        is_full=case.models == MODELS,
        at_s=at_s,
        minor_per_s=minor.in_time / case.bucket_s,
        major_per_s=major.in_time / case.bucket_s,
        major_cold_share=major.cold / max(1, major.in_time),
        minor_ms_p50=minor.latency_ms_p50,
        major_ms_p50=major.latency_ms_p50,
        ms_max=max(minor.latency_ms_max, major.latency_ms_max),
        late=minor.late + major.late,
        told_ms_p50=major.told_ms_p50,
        load_share=machinery.load_s / case.bucket_s,
        run_share=machinery.run_s / case.bucket_s,
        batch_mean=machinery.batch_mean,
        first_unload_s=full_s,
    )


def claims(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """Hold the end state against the plot, and ours against Clockwork's in each twelfth of the time, at both scales."""
    found: list[Claim] = []
    for is_full, prefix in ((True, "fig6"), (False, "fig6.tenth")):
        by_policy: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if row.is_full == is_full:
                by_policy[row.policy].append(row)
        for policy in (PUBLISHED, OURS):
            found += _punctual(prefix, policy, by_policy[policy])
        if is_full and by_policy[PUBLISHED]:
            found += _of_the_paper(by_policy[PUBLISHED])
        if is_full and by_policy[OURS]:
            goodput = _mean(_end(by_policy[OURS]), _major)
            target = at_least("fig6.end.major-target", goodput, END_PER_S, policy=OURS, source="our target: above it")
            found.append(target)
        found += _beside(prefix, by_policy)
    return tuple(found)


def _punctual(prefix: str, policy: str, rows: Sequence[Row]) -> Iterator[Claim]:
    if rows:
        latest_ms = max(row.ms_max for row in rows)
        yield at_most(f"{prefix}.ms-max", latest_ms, SLO_MS, policy=policy, source="figure 6b")


def _of_the_paper(rows: Sequence[Row]) -> Iterator[Claim]:
    end, policy = _end(rows), PUBLISHED
    goodput, minutes = _mean(end, _major), rows[0].first_unload_s * GROWTH_PER_S / 60
    cold = sum(row.major_cold_share * row.major_per_s for row in end) / sum(row.major_per_s for row in end)
    yield near("fig6.end.major", goodput, END_PER_S, policy=policy, tolerance=END_TOLERANCE_PER_S, source=SOURCE)
    yield near("fig6.end.cold-share", cold, COLD_SHARE, policy=policy, tolerance=COLD_TOLERANCE, source=SOURCE)
    yield near("fig6.full-minutes", minutes, FULL_MINUTES, policy=policy, tolerance=FULL_TOLERANCE, source="figure 6d")


def _beside(prefix: str, by_policy: Mapping[str, Sequence[Row]]) -> Iterator[Claim]:
    for window in range(WINDOWS):
        for name, rate in (("all", _both), ("minor", _minor)):
            found = {policy: _mean(_window(rows, window), rate) for policy, rows in by_policy.items() if rows}
            yield from not_below(f"{prefix}.part{window + 1}.{name}.not-below", found)


def _major(row: Row) -> float:
    return row.major_per_s


def _minor(row: Row) -> float:
    return row.minor_per_s


def _both(row: Row) -> float:
    return row.minor_per_s + row.major_per_s


def _end(rows: Sequence[Row]) -> Sequence[Row]:
    return rows[-END_ROWS:]


def _window(rows: Sequence[Row], window: int) -> Sequence[Row]:
    return rows[len(rows) * window // WINDOWS : len(rows) * (window + 1) // WINDOWS]


def _mean(rows: Sequence[Row], of: Callable[[Row], float]) -> float:
    return sum(map(of, rows)) / len(rows)


def draw(rows: Sequence[Row], path: Path) -> None:
    """The paper's panels; at full scale where that was run."""
    rows = [row for row in rows if row.is_full] or rows
    panels = [
        _panel(rows, "Major models", "in time, 1/s", _major),
        _panel(rows, "Minor model", "in time, 1/s", _minor),
        _panel(rows, "Latency of major models, median", "ms", lambda row: row.major_ms_p50),
        _panel(rows, "Latency, largest", "ms", lambda row: row.ms_max),
        _panel(rows, "Cold starts of major models", "share of answers", lambda row: row.major_cold_share),
        _panel(rows, "Loads", "share of the time", lambda row: row.load_share),
        _panel(rows, "Runs", "share of the time", lambda row: row.run_share),
        _panel(rows, "Time until a no, median", "ms", lambda row: row.told_ms_p50),
    ]
    draw_panels("Thousands of ResNet50 on one GPU, one more each second, virtual time", panels, path)


def _panel(rows: Sequence[Row], title: str, y_label: str, of: Callable[[Row], float]) -> Panel:
    policies = dict.fromkeys(row.policy for row in rows)
    curves = [
        Curve(
            label=policy,
            xs=[row.at_s / 60 for row in rows if row.policy == policy],
            ys=[of(row) for row in rows if row.policy == policy],
        )
        for policy in policies
    ]
    return Panel(title=title, x_label="minutes", y_label=y_label, curves=curves)


EXPERIMENT = Experiment(
    name="clockwork-fig6",
    title="Clockwork's figure 6: 3,601 models on one GPU with room for 196, one more of them each second",
    row=Row,
    cases=cases,
    run=run,
    claims=claims,
    draw=draw,
)
