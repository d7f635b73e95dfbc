"""The form of a workload in a file: a name with parameters, streams and clients written out, or a record to replay.

The structs say what may stand there; `made` makes the workload. Files that a form names are read by whoever hands it
in: `made` asks for a file's lines by its name. Models are named as the file names them, `*` stands for any part of a
name, and the caller says what each is called where it is played.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import msgspec

from slotwise.facts.types import PRIORITY_DEFAULT, PRIORITY_HIGHEST, PRIORITY_LOWEST
from slotwise.facts.units import MS
from slotwise.facts.value import value
from slotwise.workload.azure import Trace, read_calls
from slotwise.workload.named import Want, build, check_replays, wants_of
from slotwise.workload.ramps import Op, multiplied, rate_ramp, slo_ramp, steps
from slotwise.workload.recorded import Recording, read_recording
from slotwise.workload.values import (
    Bursty,
    Clients,
    Fixed,
    Gamma,
    Phase,
    Poisson,
    Process,
    Stream,
    Workload,
    WorkloadError,
    counted,
)

NUMBER_MAX = 1e9
Positive = Annotated[float, msgspec.Meta(gt=0, le=NUMBER_MAX)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=NUMBER_MAX)]
Count = Annotated[int, msgspec.Meta(ge=1, le=int(NUMBER_MAX))]
Concurrency = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Priority = Annotated[int, msgspec.Meta(ge=PRIORITY_HIGHEST, le=PRIORITY_LOWEST)]
Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
NAMES_TOLD = 10
"""So many models are named in an error."""
Lines = Callable[[str], Iterable[str]]
"""Hands over the lines of a file by its name."""


class PhasePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stretch of time: rates times `scale`, SLOs times `slo_scale`."""

    seconds: Positive
    scale: Amount = 1.0
    slo_scale: Positive = 1.0


class RampPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Phases in steps: `of` is multiplied by `start`, then by more and more, up to `end`."""

    of: Literal["rate", "slo"]
    start: Positive
    end: Positive
    period_s: Positive
    change: float = 1.5
    op: Literal["mul", "add"] = "mul"


class StreamPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests for models, open loop; each model has a stream of its own.

    With `counts`, expected requests in each interval of a trace, `rate_per_s` is what these are multiplied by.
    """

    models: Names
    slo_ms: Positive
    rate_per_s: Amount = 1.0
    rate_is: Literal["shared", "each"] = "shared"
    process: Literal["poisson", "fixed", "gamma", "bursty"] = "poisson"
    variation: Positive | None = None
    burst_s: Positive | None = None
    idle_s: Positive | None = None
    rows: Count = 1
    priority: Priority = PRIORITY_DEFAULT
    phases: tuple[PhasePart, ...] = ()
    counts: tuple[Amount, ...] = ()
    interval_s: Positive = 60.0


class ClientsPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Clients that wait for their answers, closed loop; together they ask the models in turn."""

    models: Names
    slo_ms: Positive
    concurrency: Concurrency = 1
    rows: Count = 1
    priority: Priority = PRIORITY_DEFAULT
    pause_ms: Amount = 1.0
    heeds_retry_after: bool = False
    requests_max: Count | None = None
    start_within_s: Amount = 0.0
    burst_s: Positive | None = None
    idle_s: Positive | None = None
    phases: tuple[PhasePart, ...] = ()


class WorkloadPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A workload: `name` with `parameters`, or `recorded`, a file of requests, or `streams` and `clients` written out.

    What is written out lasts for `seconds`, or goes through `phases` or `ramp`, whose steps are phases too.
    """

    name: str = ""
    parameters: dict[str, str | int | float | bool] = {}
    trace: str = ""
    """A file of an Azure trace, for the workloads that replay one; they make a stand-in without."""
    recorded: str = ""
    seconds: Positive | None = None
    streams: tuple[StreamPart, ...] = ()
    clients: tuple[ClientsPart, ...] = ()
    phases: tuple[PhasePart, ...] = ()
    ramp: RampPart | None = None
    seed: int | None = None
    """The caller's own if none is given."""


@value
class Made:
    """A workload that a form has been made into; `player.player_of` plays it.

    `about` says in a line what it is, and from which data.
    """

    workload: Workload
    about: str


def wants(form: WorkloadPart) -> tuple[Want, ...]:
    """The models that a workload by name wants, in its order; empty for others, which name their own.

    Raises WorkloadError.
    """
    return wants_of(form.name, form.parameters) if form.name else ()


def made(form: WorkloadPart, models: Mapping[str, str], *, seed: int, lines: Lines) -> Made:
    """The workload of a form. `models` are names as files have them, in order, and what each is called in arrivals.

    Raises WorkloadError.
    """
    seed = seed if form.seed is None else form.seed
    written_out = bool(form.streams or form.clients)
    if [bool(form.name), bool(form.recorded), written_out].count(True) != 1:
        raise WorkloadError(
            "a workload has either a name, or a file `recorded`, or streams and clients; give one of these"
        )
    if not written_out and (form.seconds is not None or form.phases or form.ramp is not None):
        raise WorkloadError(
            "seconds, phases and ramp are for streams and clients that are written out; leave them away"
        )
    if not form.name and (form.parameters or form.trace):
        raise WorkloadError("parameters and trace are for a workload by name; give its name, or leave them away")
    if form.recorded:
        return _replayed(form.recorded, models, seed, lines)
    if form.name:
        trace = _trace(form, lines) if form.trace else None
        built = build(form.name, form.parameters, models=tuple(models.values()), seed=seed, trace=trace)
        return Made(workload=built.workload, about=f"{form.name}: {built.about}")
    return Made(workload=_written_out(form, models, seed), about="streams and clients as written out")


def _trace(form: WorkloadPart, lines: Lines) -> Trace:
    check_replays(form.name)
    return read_calls(lines(form.trace), form.trace)


def _replayed(file: str, models: Mapping[str, str], seed: int, lines: Lines) -> Made:
    recording = read_recording(lines(file), file)
    called = {name: _called(name, models, file) for name in recording.models}
    if any(name != meant for name, meant in called.items()):
        recording = Recording(replace(arrival, model=called[arrival.model]) for arrival in recording)
    workload = Workload(streams=(), phases=(), seed=seed, recorded=recording)
    return Made(workload=workload, about=f"{len(recording)} requests recorded in {file}")


def _called(name: str, models: Mapping[str, str], file: str) -> str:
    """What a recorded model is called here: its name, that of a version, or that without its version."""
    if name in models:
        return models[name]
    if name in models.values():
        return name
    base = name.rpartition("/")[0]
    if base in models:
        return models[base]
    raise WorkloadError(f"{file} has requests for {name!r}, and there is no such model here; there are {_some(models)}")


def _written_out(form: WorkloadPart, models: Mapping[str, str], seed: int) -> Workload:
    phases = _all_phases(form)
    ramp = phases if form.ramp is not None else ()
    return Workload(
        streams=tuple(stream for part in form.streams for stream in _streams(part, models, ramp)),
        clients=tuple(_clients(part, models) for part in form.clients),
        phases=phases,
        seed=seed,
    )


def _all_phases(form: WorkloadPart) -> tuple[Phase, ...]:
    """Those of the workload: one, a row, or a ramp."""
    given = [form.seconds is not None, bool(form.phases), form.ramp is not None].count(True)
    if given > 1:
        raise WorkloadError("a workload has either seconds, or phases, or a ramp; give one of these")
    if form.seconds is not None:
        return (Phase(duration_s=form.seconds),)
    if form.ramp is None:
        return _phases(form.phases)
    factors = steps(form.ramp.start, form.ramp.end, form.ramp.change, Op(form.ramp.op))
    ramp = rate_ramp if form.ramp.of == "rate" else slo_ramp
    return ramp(factors, form.ramp.period_s)


def _phases(parts: Iterable[PhasePart]) -> tuple[Phase, ...]:
    return tuple(Phase(duration_s=part.seconds, scale=part.scale, slo_scale=part.slo_scale) for part in parts)


def _streams(part: StreamPart, models: Mapping[str, str], ramp: tuple[Phase, ...]) -> Iterator[Stream]:
    """Those of a table; a ramp of the workload multiplies what a trace counts, too."""
    if part.phases and part.counts:
        raise WorkloadError(f"the stream for {part.models[0]!r} has phases and counts; give one of these")
    asked = _meant(part.models, models)
    process = _process(part)
    phases = _phases(part.phases)
    if part.counts:
        phases = counted(part.counts, part.interval_s)
        phases = multiplied(phases, ramp) if ramp else phases
    for model in asked:
        yield Stream(
            model=model,
            rate_per_s=part.rate_per_s / len(asked) if part.rate_is == "shared" else part.rate_per_s,
            slo_ns=int(part.slo_ms * MS),
            rows=part.rows,
            priority=part.priority,
            process=process,
            phases=phases,
        )


def _clients(part: ClientsPart, models: Mapping[str, str]) -> Clients:
    return Clients(
        models=_meant(part.models, models),
        concurrency=part.concurrency,
        slo_ns=int(part.slo_ms * MS),
        rows=part.rows,
        priority=part.priority,
        pause_ns=int(part.pause_ms * MS),
        heeds_retry_after=part.heeds_retry_after,
        requests_max=part.requests_max,
        start_within_s=part.start_within_s,
        bursts=_bursts(part) if part.burst_s is not None or part.idle_s is not None else None,
        phases=_phases(part.phases),
    )


def _process(part: StreamPart) -> Process:
    if part.process != "gamma" and part.variation is not None:
        raise WorkloadError(f'the stream for {part.models[0]!r} has a variation; that is for process = "gamma"')
    if part.process != "bursty" and (part.burst_s is not None or part.idle_s is not None):
        raise WorkloadError(f'the stream for {part.models[0]!r} has bursts; they are for process = "bursty"')
    match part.process:
        case "poisson":
            return Poisson()
        case "fixed":
            return Fixed()
        case "gamma":
            if part.variation is None:
                raise WorkloadError(f"the stream for {part.models[0]!r} is gamma, and has no variation; give one")
            return Gamma(variation=part.variation)
        case "bursty":
            return _bursts(part)


def _bursts(part: StreamPart | ClientsPart) -> Bursty:
    if part.burst_s is None or part.idle_s is None:
        raise WorkloadError(f"bursts of {part.models[0]!r} need both burst_s and idle_s, their mean lengths")
    return Bursty(mean_burst_s=part.burst_s, mean_idle_s=part.idle_s)


def _meant(patterns: Iterable[str], models: Mapping[str, str]) -> tuple[str, ...]:
    """The models that names and patterns mean, each once, in the order of the names."""
    meant: dict[str, None] = {}
    for pattern in patterns:
        found = [called for name, called in models.items() if name == pattern or fnmatchcase(name, pattern)]
        if not found:
            raise WorkloadError(f"no model is called {pattern!r}; there are {_some(models)}")
        meant.update(dict.fromkeys(found))
    return tuple(meant)


def _some(models: Mapping[str, str]) -> str:
    names = list(models)
    more = f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
    return f"{', '.join(names[:NAMES_TOLD])}{more}"
