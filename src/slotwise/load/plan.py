"""What is played: a rate, clients in a closed loop, or a workload by its form, of a server's models. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from slotwise.client.pages import ServerModel
from slotwise.facts.types import FOREVER_NS
from slotwise.facts.units import MS, S
from slotwise.facts.value import value
from slotwise.workload.form import Lines, Made, WorkloadPart, made
from slotwise.workload.values import Arrival, Clients, Fixed, Phase, Poisson, Stream, Workload, WorkloadError

SECONDS = 10.0
WILD = "*?["
NAMES_TOLD = 10
"""So many models are named in an error."""


@value
class Steady:
    """So many requests a second in all, whatever comes of it, shared evenly by the models."""

    rate_per_s: float
    is_even: bool = False
    """Equal gaps, rather than Poisson arrivals."""


@value
class Closed:
    """So many clients, each of which asks again once it has its answer."""

    concurrency: int
    requests_max: int | None = None
    heeds_retry_after: bool = False


@value
class Formed:
    """A workload by its form, whose file's own files `lines` reads."""

    form: WorkloadPart
    lines: Lines


Wanted = Steady | Closed | Formed


def chosen(patterns: Sequence[str], offered: Iterable[str] | None) -> list[str]:
    """The models that names and patterns mean, each once, in their order; all without any. `None` is no list at all.

    A name is taken as it stands. Raises WorkloadError.
    """
    if offered is None:
        return list(dict.fromkeys(patterns))
    names = sorted(offered)
    meant: dict[str, None] = {}
    for pattern in patterns or ("*",):
        found = [name for name in names if fnmatchcase(name, pattern)] if is_pattern(pattern) else [pattern]
        if not found:
            raise WorkloadError(f"no model of the server's is called {pattern!r}; it offers {_some(names)}")
        meant.update(dict.fromkeys(found))
    return list(meant)


def is_pattern(name: str) -> bool:
    """Whether it may mean several."""
    return any(sign in name for sign in WILD)


def workload_of(
    wanted: Wanted, models: Sequence[ServerModel], *, seconds: float | None, slo_ns: int | None, seed: int
) -> Made:
    """The workload that is played. Raises WorkloadError.

    `slo_ns` is each request's allowance; without it a model's own counts, and where it tells none there is no deadline.
    `seconds` is how long a rate or clients last, and `SECONDS` without it, but for clients that end by themselves. A
    form says so itself.
    """
    match wanted:
        case Steady():
            return _steady(wanted, models, seconds or SECONDS, slo_ns, seed)
        case Closed():
            duration_s = seconds or (SECONDS if wanted.requests_max is None else math.inf)
            return _closed(wanted, models, duration_s, slo_ns, seed)
        case Formed():
            if slo_ns is not None:
                raise WorkloadError("a workload has deadlines of its own; set them there, or with --set slo_ms=...")
            return made(wanted.form, {model.name: model.name for model in models}, seed=seed, lines=wanted.lines)


def duration_ns(workload: Workload, seconds: float | None) -> int:
    """When it ends, or is ended."""
    duration_s = min(workload.duration_s, math.inf if seconds is None else seconds)
    return FOREVER_NS if math.isinf(duration_s) else min(FOREVER_NS, math.ceil(duration_s * S))


def ends_when_spent(workload: Workload) -> bool:
    """Whether it is over once all its clients have asked what they ask."""
    if workload.streams or workload.recorded:
        return False
    return all(clients.requests_max is not None for clients in workload.clients)


def concurrency(workload: Workload) -> int:
    """How many clients ask at once."""
    return sum(clients.concurrency for clients in workload.clients)


def kinds(workload: Workload) -> Iterator[Arrival]:
    """An arrival of each kind that a workload asks, but for SLOs that change."""
    seen: set[tuple[str, int]] = set()
    asked = (
        *((stream.model, stream.rows, stream.slo_ns, stream.priority) for stream in workload.streams),
        *((model, one.rows, one.slo_ns, one.priority) for one in workload.clients for model in one.models),
        *((one.model, one.rows, one.slo_ns, one.priority) for one in workload.recorded),
    )
    for model, rows, slo_ns, priority in asked:
        if (model, rows) not in seen:
            seen.add((model, rows))
            yield Arrival(at_ns=0, model=model, slo_ns=slo_ns, rows=rows, priority=priority)


def _steady(wanted: Steady, models: Sequence[ServerModel], seconds: float, slo_ns: int | None, seed: int) -> Made:
    streams = tuple(
        Stream(
            model=model.name,
            rate_per_s=wanted.rate_per_s / len(models),
            slo_ns=_slo_ns(model, slo_ns),
            process=Fixed() if wanted.is_even else Poisson(),
        )
        for model in models
    )
    gaps = "equal gaps" if wanted.is_even else "Poisson"
    return Made(
        workload=Workload(streams=streams, phases=(Phase(duration_s=seconds),), seed=seed),
        about=f"{wanted.rate_per_s:g} requests/s, {gaps}, {_told(models, slo_ns)}",
    )


def _closed(wanted: Closed, models: Sequence[ServerModel], seconds: float, slo_ns: int | None, seed: int) -> Made:
    slos_ns = {_slo_ns(model, slo_ns) for model in models}
    if len(slos_ns) > 1:
        raise WorkloadError(
            "these models have different deadlines, and clients ask them in turn; give one with --slo-ms"
        )
    clients = Clients(
        models=tuple(model.name for model in models),
        concurrency=wanted.concurrency,
        slo_ns=slos_ns.pop(),
        heeds_retry_after=wanted.heeds_retry_after,
        requests_max=wanted.requests_max,
    )
    return Made(
        workload=Workload(streams=(), clients=(clients,), phases=(Phase(duration_s=seconds),), seed=seed),
        about=f"{wanted.concurrency} clients in a closed loop, {_told(models, slo_ns)}",
    )


def _slo_ns(model: ServerModel, slo_ns: int | None) -> int:
    return slo_ns or model.slo_ns or FOREVER_NS


def _told(models: Sequence[ServerModel], slo_ns: int | None) -> str:
    """Of which models, with which deadlines."""
    slos_ns = sorted({_slo_ns(model, slo_ns) for model in models})
    named = models[0].name if len(models) == 1 else f"{len(models)} models"
    if slos_ns[-1] == FOREVER_NS:
        return f"{named}, {'some ' if len(slos_ns) > 1 else ''}without a deadline"
    span = " to ".join(f"{ns / MS:g}" for ns in dict.fromkeys((slos_ns[0], slos_ns[-1])))
    return f"{named}, {span} ms each{'' if slo_ns else ' as the server says'}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
    return f"{', '.join(names[:NAMES_TOLD]) or 'none'}{more}"
