"""The demo's numbers: counted from what the client saw, judged in a sentence, and laid out for a table. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus

import msgspec
import numpy as np

from slotwise.demo.load import Act, Kill
from slotwise.facts.units import MS
from slotwise.load.ending import Ending, Sending

COLUMNS = (
    *("load", "offered/s", "in time/s", "refused", "late", "failed", "unanswered"),
    *("p50 ms", "p99 ms", "refusal p50 ms", "client lag p50/p99 ms"),
)
HELD_SHARE = 0.7
"""Under overload, answers in time are said to have held when they are at least this share of those at a load of 1."""


class PhaseReport(msgspec.Struct, frozen=True):
    """One phase. Rates are per second, the rest of the endings are counts; None where there is no sample."""

    load: float
    offered: float
    goodput: float
    """Answers within their deadline as the client saw them."""
    refused: int
    late: int
    failed: int
    unanswered: int
    latency_ms_p50: float | None
    """Of answers, from when their requests were due."""
    latency_ms_p99: float | None
    refusal_ms_p50: float | None


class Report(msgspec.Struct, frozen=True):
    """The whole demo."""

    models: int
    executors_killed: int
    memory_mb: float
    phases: tuple[PhaseReport, ...]

    @property
    def unanswered(self) -> int:
        """Requests that were never answered, in all phases."""
        return sum(phase.unanswered for phase in self.phases)


def phase_report(act: Act) -> PhaseReport:
    """The numbers of a phase."""
    sendings = act.played.sendings
    counts = Counter(sending.ending for sending in sendings)
    answers_ms = _times_ms(sendings, HTTPStatus.OK)
    return PhaseReport(
        load=act.load,
        offered=round(len(sendings) / act.duration_s, 1),
        goodput=round(counts[Ending.IN_TIME] / act.duration_s, 1),
        refused=counts[Ending.REFUSED],
        late=counts[Ending.LATE],
        failed=counts[Ending.FAILED],
        unanswered=counts[Ending.UNANSWERED],
        latency_ms_p50=quantile(answers_ms, 0.5),
        latency_ms_p99=quantile(answers_ms, 0.99),
        refusal_ms_p50=quantile(_times_ms(sendings, HTTPStatus.SERVICE_UNAVAILABLE), 0.5),
    )


def rows(acts: Sequence[Act], phases: Sequence[PhaseReport]) -> list[list[str]]:
    """The table's lines."""
    return [_row(act, phase) for act, phase in zip(acts, phases, strict=True)]


def verdict(report: Report, kill: Kill | None, away_ms: float | None) -> str:
    """What the numbers say, in one line."""
    parts = [_goodput_words(report.phases), _kill_words(kill, away_ms)]
    if report.unanswered:
        parts.append(f"{report.unanswered} requests went unanswered, which must not be")
    else:
        parts.append("every request got its one answer")
    return "; ".join(part for part in parts if part) + "."


def client_cost_us(acts: Sequence[Act]) -> float:
    """Processor time of the client for each request, of all phases together."""
    sent = sum(len(act.played.sendings) for act in acts)
    return sum(act.cpu_s for act in acts) * 1e6 / max(1, sent)


def quantile(samples: Sequence[float], share: float) -> float | None:
    """A quantile, None where there is no sample."""
    return round(float(np.quantile(samples, share)), 3) if samples else None


def _times_ms(sendings: Sequence[Sending], status: HTTPStatus) -> list[float]:
    return [
        (sending.ended_ns - sending.due_ns) / MS
        for sending in sendings
        if sending.status == status and sending.ended_ns is not None
    ]


def _row(act: Act, phase: PhaseReport) -> list[str]:
    lags = [sending.lag_ns / MS for sending in act.played.sendings]
    return [
        f"{phase.load:g}x",
        f"{phase.offered:.1f}",
        f"{phase.goodput:.1f}",
        *(str(count) for count in (phase.refused, phase.late, phase.failed, phase.unanswered)),
        *(_number(time_ms) for time_ms in (phase.latency_ms_p50, phase.latency_ms_p99, phase.refusal_ms_p50)),
        f"{_number(quantile(lags, 0.5))} / {_number(quantile(lags, 0.99))}",
    ]


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f}"


def _goodput_words(phases: Sequence[PhaseReport]) -> str:
    by_load = {phase.load: phase for phase in phases}
    most = max(by_load)
    base = by_load.get(1.0)
    if base is None or most <= 1 or not base.goodput:
        return ""
    words = f"at {most:g}x the load {by_load[most].goodput:.0f} answers/s came in time, {base.goodput:.0f}/s at 1x"
    return words if by_load[most].goodput >= HELD_SHARE * base.goodput else words + ", which is a collapse"


def _kill_words(kill: Kill | None, away_ms: float | None) -> str:
    if kill is None:
        return ""
    if not kill.restarts:
        return f"{kill.executor} was killed and did not come back"
    when = f" after {away_ms:.0f} ms" if away_ms is not None else ""
    return f"{kill.executor} was killed under load and another process took its place{when}"
