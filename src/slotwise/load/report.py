"""The report of a load: a value that goes into JSON and back, its tables, and two of them side by side. Pure."""

from __future__ import annotations

import msgspec

from slotwise.facts.histogram import LogHistogram
from slotwise.facts.units import MS, S
from slotwise.facts.value import value
from slotwise.load.ending import Ending
from slotwise.load.given import GivenReport
from slotwise.load.sender import Run
from slotwise.load.tally import Part, Tally

ABOVE_MIN = 0.5 - 1e-9
"""So many durations are to be expected above a quantile, for it to be told; but for the rounding of shares."""

TOTAL = "all"
LAG_MS_WARNED = 5.0
"""A client whose own lag is above this at its 99th percentile measures itself as much as the server."""
COUNTS = ("model", "offered", "in time", "late", "refused", "failed", "unanswered", "in time/s")
TIMES = ("ms", "answers", "p50", "p90", "p99", "p99.9", "p99.99", "max")
COMPARED = ("", "before", "now", "now / before")


class Quantiles(msgspec.Struct, frozen=True):
    """How times are spread, in milliseconds; None where there are too few of them to say."""

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    p99_9: float | None
    p99_99: float | None
    max: float | None


class PartReport(msgspec.Struct, frozen=True):
    """One model's requests, or all. Times count from when a request was due."""

    model: str
    offered: int
    """Requests that were due."""
    sent: int
    in_time: int
    late: int
    refused: int
    failed: int
    unanswered: int
    offered_per_s: float
    sent_per_s: float
    goodput_per_s: float
    """Answers within their deadline."""
    latency_ms: Quantiles
    """Of answers, in time or not."""
    refusal_ms: Quantiles
    statuses: dict[str, int]
    """Replies by HTTP status, or by the one that says the same."""


class ErrorReport(msgspec.Struct, frozen=True):
    """Failures of one kind, in the words of the first."""

    model: str
    status: int
    count: int
    words: str


class ClientReport(msgspec.Struct, frozen=True):
    """How the client itself did."""

    connections: int
    lag_ms: Quantiles
    """How much later than due requests were sent, but for those that waited."""
    waits: int
    """Requests that found no free connection."""
    wait_ms: Quantiles
    """How long those of them waited that were sent in the end."""
    cpu_us_per_request: float


class LoadReport(msgspec.Struct, frozen=True):
    """What came of a load."""

    url: str
    workload: str
    seed: int
    seconds: float
    total: PartReport
    models: tuple[PartReport, ...]
    client: ClientReport
    errors: tuple[ErrorReport, ...]
    trouble: str
    """Why the server could not be reached at the end; empty where it could."""
    inputs: tuple[GivenReport, ...] = ()
    """Of a file of inputs: the samples of each model."""


@value
class Facts:
    """What a report tells beside the counts."""

    url: str
    workload: str
    seed: int
    connections: int
    cpu_s: float
    trouble: str


def report_of(tally: Tally, run: Run, facts: Facts) -> LoadReport:
    """The report."""
    seconds = max(1, run.ended_ns - run.started_ns) / S
    total = tally.total()
    return LoadReport(
        url=facts.url,
        workload=facts.workload,
        seed=facts.seed,
        seconds=round(seconds, 3),
        total=_part(TOTAL, total, seconds),
        models=tuple(_part(model, tally.parts[model], seconds) for model in sorted(tally.parts)),
        client=ClientReport(
            connections=facts.connections,
            lag_ms=quantiles(tally.lag),
            waits=run.waits,
            wait_ms=quantiles(tally.waits),
            cpu_us_per_request=round(facts.cpu_s * 1e6 / max(1, total.sent), 1),
        ),
        errors=tuple(
            ErrorReport(model=kind.model, status=kind.status, count=count, words=kind.words)
            for kind, count in tally.errors().items()
        ),
        trouble=facts.trouble,
    )


def quantiles(durations: LogHistogram) -> Quantiles:
    """How durations are spread, in numbers. A quantile that too few durations tell of is None."""
    return Quantiles(
        count=durations.count,
        mean=_ms(durations.ns / durations.count) if durations.count else None,
        p50=_quantile_ms(durations, 0.5),
        p90=_quantile_ms(durations, 0.9),
        p99=_quantile_ms(durations, 0.99),
        p99_9=_quantile_ms(durations, 0.999),
        p99_99=_quantile_ms(durations, 0.9999),
        max=_ms(durations.ns_max) if durations.count else None,
    )


def _quantile_ms(durations: LogHistogram, share: float) -> float | None:
    """None where not even half of one is expected above it: nothing is known there but the longest."""
    is_told = durations.count * (1 - share) >= ABOVE_MIN
    return _ms(durations.quantile(share)) if is_told else None


def headline(report: LoadReport) -> str:
    """What was asked, of whom, and what came of it, in a sentence."""
    total = report.total
    rates = f"{total.offered_per_s:.1f} requests a second offered, {total.goodput_per_s:.1f} answered in time"
    return f"{report.url}, {report.workload.rstrip('.')}: {rates}, over {report.seconds:g} s"


def count_rows(report: LoadReport) -> list[list[str]]:
    """How requests ended: a line for each model, and one for all."""
    return [_counts(part) for part in _parts(report)]


def time_rows(report: LoadReport) -> list[list[str]]:
    """How long answers took, of each model and of all; how long refusals took, and how late the client was itself."""
    client = report.client
    return [
        *(_times(part.model, part.latency_ms) for part in _parts(report)),
        *([_times("refusals", report.total.refusal_ms)] if report.total.refused else []),
        _times("sent late by", client.lag_ms),
        *([_times("waited for a connection", client.wait_ms)] if client.wait_ms.count else []),
    ]


def compared(before: LoadReport, now: LoadReport) -> list[list[str]]:
    """Two reports side by side: the second's figures, and what they are of the first's."""
    earlier, later = _figures(before), _figures(now)
    return [
        [name, _number(earlier[name]), _number(figure), _ratio(earlier[name], figure)] for name, figure in later.items()
    ]


def client_line(report: LoadReport) -> str:
    """What the client needed, in a line."""
    client = report.client
    waited = f"{client.waits} of {report.total.offered} requests waited for one"
    return f"{client.connections} connections, {waited}; {client.cpu_us_per_request:.0f} us of its processor a request"


def remarks(report: LoadReport) -> list[str]:
    """What should be known before the figures are believed."""
    told = [
        f"{error.model}: {error.count} requests failed with {error.status}: {error.words}" for error in report.errors
    ]
    if report.total.unanswered:
        why = f"; at the end {report.trouble}" if report.trouble else ""
        told.append(f"{report.total.unanswered} requests went unanswered{why}")
    if report.client.wait_ms.count and not report.trouble:
        told.append("requests waited for a free connection, and left later than due; more --connections help")
    if (report.client.lag_ms.p99 or 0.0) > LAG_MS_WARNED:
        told.append("the client lagged: this machine is too busy for the load, and the times are the client's as well")
    return told


def _part(name: str, part: Part, seconds: float) -> PartReport:
    endings = part.endings
    return PartReport(
        model=name,
        offered=part.offered,
        sent=part.sent,
        in_time=endings[Ending.IN_TIME],
        late=endings[Ending.LATE],
        refused=endings[Ending.REFUSED],
        failed=endings[Ending.FAILED],
        unanswered=endings[Ending.UNANSWERED],
        offered_per_s=round(part.offered / seconds, 2),
        sent_per_s=round(part.sent / seconds, 2),
        goodput_per_s=round(endings[Ending.IN_TIME] / seconds, 2),
        latency_ms=quantiles(part.answers),
        refusal_ms=quantiles(part.refusals),
        statuses={str(status): count for status, count in sorted(part.statuses.items())},
    )


def _ms(ns: float | None) -> float | None:
    return None if ns is None else round(ns / MS, 4)


def _parts(report: LoadReport) -> tuple[PartReport, ...]:
    return report.models if len(report.models) == 1 else (*report.models, report.total)


def _counts(part: PartReport) -> list[str]:
    counts = (part.offered, part.in_time, part.late, part.refused, part.failed, part.unanswered)
    return [part.model, *(str(count) for count in counts), f"{part.goodput_per_s:.1f}"]


def _times(name: str, times: Quantiles) -> list[str]:
    shown = (times.p50, times.p90, times.p99, times.p99_9, times.p99_99, times.max)
    return [name, str(times.count), *(_number(time_ms) for time_ms in shown)]


def _figures(report: LoadReport) -> dict[str, float | None]:
    total, latency = report.total, report.total.latency_ms
    return {
        "offered/s": total.offered_per_s,
        "sent/s": total.sent_per_s,
        "answers in time/s": total.goodput_per_s,
        "in time, share": round(total.in_time / max(1, total.offered), 4),
        "late": total.late,
        "refused": total.refused,
        "failed": total.failed,
        "unanswered": total.unanswered,
        "p50 ms": latency.p50,
        "p90 ms": latency.p90,
        "p99 ms": latency.p99,
        "p99.9 ms": latency.p99_9,
        "p99.99 ms": latency.p99_99,
        "max ms": latency.max,
        "refusal p50 ms": total.refusal_ms.p50,
        "client lag p99 ms": report.client.lag_ms.p99,
        "waited for a connection": report.client.waits,
    }


def _number(number: float | None) -> str:
    """At most two digits behind the point, three for small ones."""
    if number is None:
        return "-"
    if float(number).is_integer():
        return f"{number:.0f}"
    return f"{number:.2f}" if number >= 1 else f"{number:.3f}"


def _ratio(before: float | None, now: float | None) -> str:
    return "-" if not before or now is None else f"{now / before:.2f}"


def _samples_line(report: LoadReport) -> str:
    told = (f"{one.model} {one.samples} samples of {one.bytes_mean:g} bytes" for one in report.inputs)
    return ", ".join(told) or "none"


def differences(before: LoadReport, now: LoadReport) -> list[str]:
    """In what the two loads themselves differ, in words; what is compared then is not only the server."""
    pairs = (
        ("workload", before.workload, now.workload),
        ("server", before.url, now.url),
        ("seed", before.seed, now.seed),
        ("file of inputs", *(_samples_line(report) for report in (before, now))),
    )
    return [f"the {name} differs: {first} before, {second} now" for name, first, second in pairs if first != second]
