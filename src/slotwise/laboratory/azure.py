"""The day of traffic that experiments replay, scaled to fewer devices: the zoo of Clockwork, asked as a trace says.

The paper had 12 GPUs, 4,026 models of 61 types, about 46,000 functions and 9,638 requests a second on average. What is
scaled keeps these numbers for each GPU, so that memory is as short and functions are as many to a model as there.
"""

from __future__ import annotations

from pathlib import Path

from slotwise.facts.types import ModelSpec
from slotwise.facts.units import MS
from slotwise.facts.value import value
from slotwise.laboratory.values import LaboratoryError
from slotwise.simulation.models import copies
from slotwise.simulation.profiles import shipped_profile
from slotwise.workload.azure import MINUTES, Trace, read_calls
from slotwise.workload.named import Given, build, names_for, wants_of
from slotwise.workload.replay import MINUTE_S
from slotwise.workload.synthetic import stand_in
from slotwise.workload.values import Workload

PAPER_DEVICES, PAPER_MODELS, PAPER_FUNCTIONS, PAPER_RATE_PER_S = 12, 4026, 46_000, 9638
SLO_MS = 100.0
TRACE_SEED = 1
WHOLE = 8
"""Workers for which the workload has the trace's own rate."""


@value
class Day:
    """The first part of a day. `source` says where its counts are from."""

    models: tuple[ModelSpec, ...]
    workload: Workload
    source: str


def day(*, models: int, rate_per_s: float, seconds: float, file: str = "", slo_ms: float = SLO_MS) -> Day:
    """So many models asked at a mean rate, from a file of calls by minute or, without one, a synthetic stand-in.

    Busy functions are on the first models of the zoo, as published: only so the paper's GPUs can carry its load. Raises
    LaboratoryError or WorkloadError.
    """
    functions = models * PAPER_FUNCTIONS // PAPER_MODELS
    trace = _read(file) if file else stand_in(functions, TRACE_SEED)
    given: Given = {
        "models": models,
        "mapping": "sorted",
        "seconds": seconds,
        "slo_ms": slo_ms,
        "workers": WHOLE,
        "load": rate_per_s / _rate_per_s(trace, seconds),
    }
    specs = tuple(_spec(name, slo_ms) for name in names_for(wants_of("azure", given)))
    built = build("azure", given, models=[spec.id for spec in specs], trace=trace)
    return Day(models=specs, workload=built.workload, source=trace.source)


def scaled_models(devices: float) -> int:
    """How many models so many devices have, as in the paper."""
    return round(devices * PAPER_MODELS / PAPER_DEVICES)


def scaled_rate_per_s(devices: float) -> float:
    """Requests a second of so many devices, as in the paper."""
    return devices * PAPER_RATE_PER_S / PAPER_DEVICES


def _read(file: str) -> Trace:
    try:
        with Path(file).open(encoding="utf-8") as lines:
            return read_calls(lines, file)
    except OSError as error:
        raise LaboratoryError(f"{file} cannot be read: {error.strerror}") from error


def _rate_per_s(trace: Trace, seconds: float) -> float:
    """The mean rate of a trace's first part, in whole minutes."""
    minutes = max(1, min(MINUTES, round(seconds / MINUTE_S)))
    return float(trace.counts[:, :minutes].sum()) / (minutes * MINUTE_S)


def _spec(name: str, slo_ms: float) -> ModelSpec:
    profile = shipped_profile(name.rpartition("-")[0])
    (spec,) = copies(name, profile, slo_ns=int(slo_ms * MS))
    return spec
