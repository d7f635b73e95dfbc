"""Mixes: how often each of several models is asked so that the executors are loaded to a stated degree.

Pure arithmetic on profiles. Utilisation counts requests run one at a time (no batching): 1.0 keeps
the executors exactly busy, 3.0 is three times what they could do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from slotwise.facts.profile import Profile
from slotwise.facts.units import S
from slotwise.workload.values import POISSON, Process, Stream, WorkloadError


class Share(Enum):
    """What the models of a mix have equally."""

    WORK = "work"
    """Every model takes the same executor time, so cheap models are asked more often."""
    RATE = "rate"
    """Every model is asked equally often, so dear models take most of the time."""


def mix(
    profiles: Mapping[str, Profile],
    slo_ns: Mapping[str, int],
    *,
    share: Share,
    utilisation: float,
    executors: int,
    process: Process = POISSON,
) -> tuple[Stream, ...]:
    """One stream of single rows for each model, in the order of `profiles`, with the given utilisation in all."""
    if not profiles:
        raise WorkloadError("a mix needs at least one model")
    if executors < 1:
        raise WorkloadError(f"executors is {executors}; a mix needs 1 or more")
    missing = [model for model in profiles if model not in slo_ns]
    if missing:
        raise WorkloadError(f"no slo_ns given for {', '.join(missing)}")
    costs_s = {model: profile.expected_ns(1) / S for model, profile in profiles.items()}
    total_s = sum(costs_s.values())
    busy = utilisation * executors
    return tuple(
        Stream(
            model=model,
            rate_per_s=busy / len(costs_s) / cost_s if share is Share.WORK else busy / total_s,
            slo_ns=slo_ns[model],
            process=process,
        )
        for model, cost_s in costs_s.items()
    )


def utilisation(streams: Sequence[Stream], profiles: Mapping[str, Profile], executors: int) -> float:
    """The work that streams ask for at a scale of 1, as a share of what the executors can do without batching."""
    busy = sum(stream.rate_per_s * profiles[stream.model].expected_ns(stream.rows) for stream in streams)
    return busy / S / executors
