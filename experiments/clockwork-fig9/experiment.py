"""A day of many functions on one GPU: nearly every request keeps its 100 ms, though most models are asked seldom.

The trace of Azure Functions is replayed in virtual time over models of Clockwork's zoo, of which memory holds about
half, on one GPU instead of twelve, with as many models, functions and requests for it as the paper had. Where a file of
the public trace lies in the folder `trace` beside this one it is used, else a synthetic stand-in; every row says which.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from slotwise.edges.logs.recorder import LogRecorder
from slotwise.edges.logs.rows import INFER, ActionRow, RequestRow
from slotwise.edges.plots.panels import Curve, Panel, draw_panels
from slotwise.facts.units import S
from slotwise.facts.value import value
from slotwise.laboratory.azure import day, scaled_models, scaled_rate_per_s
from slotwise.laboratory.clockwork import MENDED, OURS, PUBLISHED, fleet, not_below, settings_of
from slotwise.laboratory.values import Case, Claim, Experiment, at_least, at_most, near
from slotwise.laboratory.virtual import WARM_UP_NS, Machinery, Stretch, Watch, play
from slotwise.simulation.fleets import CLOCKWORK_PAGES
from slotwise.workload.player import player_of

TRACES = Path(__file__).with_name("trace")
POLICIES = (PUBLISHED, MENDED, OURS)
MINUTE_NS = 60 * S
SLO_MS = 100.0
AHEAD_MS, BATCH_MAX = 10.0, 8
"""The figure's scripts leave Clockwork's defaults."""
DEVICES = 1
PAGES = {"paper": CLOCKWORK_PAGES, "short": 576}
"""Of a GPU. The stand-in asks fewer models in a minute than the paper's trace did, so that the same memory is less
strained; the short one is to the models asked in a minute what the paper's was."""
SETTLING_SHARE = 1 / 6
"""Of the time, at its begin, which does not count: memory fills. The paper left out 10 minutes."""
FAILED_SHARE = 0.001
"""What may fail; of the paper's 208 million requests 58 did."""
READ_OFF = "figure 9, read off"
NEAR_SHARE = 0.5
"""How far what the paper's figure shows may be from what a scaled run comes to, as a share of it."""


@value
class Replay(Case):
    """A policy over the first minutes of a day; `trace` is a file, or empty for the stand-in."""

    memory: str
    minutes: int
    trace: str


class Row(msgspec.Struct, frozen=True):
    """One minute, by when requests arrived. `batch_mean` is what a request sees, so large batches count for more."""

    policy: str
    memory: str
    source: str
    minute: int
    counts: bool
    """Whether claims are made of it."""
    offered_per_s: float
    goodput_per_s: float
    failed: int
    """Refused, dropped, late or failed."""
    late: int
    ms_p50: float
    ms_p99: float
    ms_max: float
    batch_mean: float
    cold_models: int
    """Models that a request came for while no GPU had them ready."""
    warm_models: int
    cold_per_s: float
    gpu_busy: float
    load_busy: float


def cases(is_quick: bool) -> tuple[Replay, ...]:
    """Half an hour with the paper's memory, half of that with less; or two minutes each."""
    file = next((str(path) for path in sorted(TRACES.glob("*.csv"))), "")
    minutes = {"paper": 2, "short": 2} if is_quick else {"paper": 30, "short": 15}
    return tuple(
        Replay(id=f"{memory}-{policy}", policy=policy, memory=memory, minutes=minutes[memory], trace=file)
        for memory in PAGES
        for policy in POLICIES
    )


def run(case: Replay) -> list[Row]:
    """Replay: a row for each minute."""
    seconds = case.minutes * 60.0
    today = day(models=scaled_models(DEVICES), rate_per_s=scaled_rate_per_s(DEVICES), seconds=seconds, file=case.trace)
    stretches_ns = [WARM_UP_NS + minute * MINUTE_NS for minute in range(case.minutes + 1)]
    watch, minutes = Watch(stretches_ns), Minutes()
    play(
        policy=case.policy,
        models=today.models,
        fleet=fleet(DEVICES, PAGES[case.memory]),
        player=player_of(today.workload),
        seconds=seconds,
        watch=watch,
        settings=settings_of(case.policy, ahead_ms=AHEAD_MS, batch_max=BATCH_MAX),
        recorders=[LogRecorder(minutes.take_request, minutes.take_action)],
    )
    machinery = watch.machinery()
    return [_row(case, today.source, stretch, machinery[stretch.index], minutes) for stretch in watch.stretches()]


class Minutes:
    """Counts by minute that need a request's model, or a batch's size."""

    def __init__(self) -> None:
        self.cold: defaultdict[int, set[str]] = defaultdict(set)
        self.asked: defaultdict[int, set[str]] = defaultdict(set)
        self._batches: Counter[int] = Counter()
        self._answers: Counter[int] = Counter()

    def take_request(self, row: RequestRow) -> None:
        """A request has ended."""
        minute = _minute(row.t - row.latency)
        self.asked[minute].add(row.model_id)
        if row.is_coldstart:
            self.cold[minute].add(row.model_id)

    def take_action(self, row: ActionRow) -> None:
        """An action has come back."""
        if row.action_type == INFER:
            minute = _minute(row.t)
            self._batches[minute] += row.request_count**2
            self._answers[minute] += row.request_count

    def batch_mean(self, minute: int) -> float:
        """The mean over requests of the size of the batch that they were in."""
        return self._batches[minute] / max(1, self._answers[minute])


def _minute(at_ns: int) -> int:
    return (at_ns - WARM_UP_NS) // MINUTE_NS


def _row(case: Replay, source: str, stretch: Stretch, machinery: Machinery, minutes: Minutes) -> Row:
    minute = stretch.index
    cold = len(minutes.cold[minute])
    return Row(
        policy=case.policy,
        memory=case.memory,
        source=source,
        minute=minute,
        counts=minute >= case.minutes * SETTLING_SHARE,
        offered_per_s=round(stretch.offered / 60, 2),
        goodput_per_s=round(stretch.in_time / 60, 2),
        failed=stretch.offered - stretch.in_time,
        late=stretch.late,
        ms_p50=stretch.latency_ms_p50,
        ms_p99=stretch.latency_ms_p99,
        ms_max=stretch.latency_ms_max,
        batch_mean=round(minutes.batch_mean(minute), 3),
        cold_models=cold,
        warm_models=len(minutes.asked[minute]) - cold,
        cold_per_s=round(stretch.cold / 60, 3),
        gpu_busy=round(machinery.run_s / 60 / DEVICES, 4),
        load_busy=round(machinery.load_s / 60 / DEVICES, 4),
    )


def claims(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """Goodput is the load, nothing comes late, and the rest is like the paper's figure; ours is not below theirs."""
    made: list[Claim] = []
    for memory in dict.fromkeys(row.memory for row in rows):
        shares: dict[str, float] = {}
        for policy in dict.fromkeys(row.policy for row in rows if row.memory == memory):
            counted = [row for row in rows if (row.policy, row.memory) == (policy, memory) and row.counts]
            shares[policy] = sum(row.goodput_per_s for row in counted) / sum(row.offered_per_s for row in counted)
            made += _claims(f"fig9.{memory}", policy, counted, shares[policy])
        made += not_below(f"fig9.{memory}.not_below", shares)
    return tuple(made)


def _claims(name: str, policy: str, rows: Sequence[Row], share: float) -> tuple[Claim, ...]:
    goodput_per_s = sum(row.goodput_per_s for row in rows)
    cold_share = sum(row.cold_per_s for row in rows) / goodput_per_s
    batch = sum(row.batch_mean for row in rows) / len(rows)
    found = {
        "p50_ms": (median([row.ms_p50 for row in rows]), 17.0),
        "p99_ms": (median([row.ms_p99 for row in rows]), 38.0),
    }
    return (
        at_least(
            f"{name}.goodput_share",
            share,
            1.0,
            policy=policy,
            tolerance=FAILED_SHARE,
            source="58 of 208 million failed (section 6.5)",
        ),
        at_most(
            f"{name}.max_ms",
            max(row.ms_max for row in rows),
            SLO_MS,
            policy=policy,
            source="no request took longer than 100 ms (section 6.5)",
        ),
        at_most(f"{name}.cold_share", cold_share, 0.013, policy=policy, tolerance=0.037, source=READ_OFF),
        near(f"{name}.batch_mean", batch, 1.8, policy=policy, tolerance=NEAR_SHARE * 1.8, source=READ_OFF),
        *(
            at_most(f"{name}.{what}", ms, shown, policy=policy, tolerance=NEAR_SHARE * shown, source=READ_OFF)
            for what, (ms, shown) in found.items()
        ),
    )


def draw(rows: Sequence[Row], path: Path) -> None:
    """The paper's five panels, and how busy the GPU was, with the paper's memory."""
    shown = [row for row in rows if row.memory == "paper"]
    panels = [
        _panel(
            shown, "a: load, and answers in time", "per s", {"offered": "offered_per_s", "in time": "goodput_per_s"}
        ),
        _panel(shown, "b: latency", "ms", {"p50": "ms_p50", "p99": "ms_p99", "max": "ms_max"}),
        _panel(shown, "c: batch that a request was in", "requests", {"mean": "batch_mean"}),
        _panel(shown, "d: models asked in a minute", "models", {"cold": "cold_models", "warm": "warm_models"}),
        _panel(shown, "e: cold starts in time", "per s", {"cold": "cold_per_s"}),
        _panel(shown, "how busy the GPU was", "share", {"runs": "gpu_busy", "loads": "load_busy"}),
    ]
    draw_panels(f"A day of functions on one GPU; from {rows[0].source}", panels, path)


def _panel(rows: Sequence[Row], title: str, y_label: str, fields: dict[str, str]) -> Panel:
    return Panel(
        title=title,
        x_label="minute",
        y_label=y_label,
        curves=[
            Curve(
                label=f"{policy}, {label}",
                xs=[row.minute for row in rows if row.policy == policy],
                ys=[getattr(row, field) for row in rows if row.policy == policy],
            )
            for policy in dict.fromkeys(row.policy for row in rows)
            for label, field in fields.items()
        ],
    )


EXPERIMENT = Experiment(
    name="clockwork-fig9",
    title="A day of serverless functions, scaled to one GPU",
    row=Row,
    cases=cases,
    run=run,
    claims=claims,
    draw=draw,
)
