"""Named workloads that change on the way: rates, SLOs, or how many models are asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Literal

import msgspec

from slotwise.facts.units import MS
from slotwise.workload.named.form import (
    Copies,
    HeedsRetryAfter,
    ModelType,
    Named,
    NamedClosed,
    PauseMs,
    Rate,
    RateOfEach,
    SloMs,
    UnitMs,
    Want,
    above_zero,
    from_zero,
    ns_of,
    whole,
)
from slotwise.workload.named.zoo import RESNET50
from slotwise.workload.ramps import STEPS_MAX, Op, rate_ramp, slo_ramp, steps
from slotwise.workload.values import POISSON, Clients, Fixed, Phase, Stream, Workload, WorkloadError

FACTOR_MAX = 1e9
"""An SLO of so many units does not grow any more."""
DAY_MS = 24 * 3_600_000.0
Factor = Annotated[float, above_zero("what a step multiplies by, or adds")]
PeriodS = Annotated[float, above_zero("seconds of a step")]
OpName = Annotated[Literal["mul", "add"], msgspec.Meta(description="whether a step multiplies or adds")]
SloStart = Annotated[float, above_zero("SLO of the first step, in units of unit_ms")]
SloEnd = Annotated[float, above_zero("the last step's SLO is this at most")]
Distribution = Annotated[Literal["poisson", "fixed"], msgspec.Meta(description="how requests follow each other")]
RateIs = Annotated[Literal["shared", "each"], msgspec.Meta(description="whether models share the rate or each has it")]
RateForeground = Annotated[float, from_zero("requests a second; rate_is says of what")]


class SimpleSloFactor(NamedClosed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Three models, one client each; SLOs change as it goes: one's grows by a factor, one's by a sum, one's toggles.

    SLOs are factors of unit_ms.
    """

    model: ModelType = RESNET50
    unit_ms: UnitMs = 2.9
    first: Annotated[float, above_zero("factor at the start", 1e6)] = 4.0
    growth: Annotated[float, msgspec.Meta(gt=1, le=1e3, description="what the first model's is multiplied by")] = 1.25
    increase: Annotated[float, above_zero("what is added to the second model's", 1e6)] = 1.0
    other: Annotated[float, above_zero("what the third model's toggles to", 1e6)] = 1.0
    period_s: PeriodS = 10.0
    seconds: Annotated[float, above_zero("how long it lasts", 1e6)] = 120.0

    @property
    def wants(self) -> tuple[Want, ...]:
        """Three of one type."""
        return (Want(self.model, 3),)

    def made(self, models: Sequence[str], seed: int) -> Workload:
        """Three sets of clients, each with a row of phases."""
        if self.seconds / self.period_s > STEPS_MAX:
            raise WorkloadError(f"simple-slo-factor has over {STEPS_MAX} steps; make period_s longer, or seconds less")
        count = math.ceil(self.seconds / self.period_s)
        rows = (
            list(
                accumulate(range(1, count), lambda factor, _: min(FACTOR_MAX, factor * self.growth), initial=self.first)
            ),
            [self.first + self.increase * step for step in range(count)],
            [self.other if step % 2 else self.first for step in range(count)],
        )
        clients = tuple(
            self.clients_of((model,), 1, slo_ms=self.unit_ms, phases=slo_ramp(row, self.period_s))
            for model, row in zip(models, rows, strict=True)
        )
        return Workload(streams=(), clients=clients, phases=(Phase(duration_s=self.seconds),), seed=seed)


class BurstyExperiment(Named, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models wake up one after the other and share one rate, beside a model with a rate of its own (figure 6).

    The first model, `minor`, is asked all the time. The others, `major`, are silent for the lead-in; then one of them
    gets the whole major rate, and each step one more shares it, until all do.
    """

    slo_ms: SloMs = 100.0
    model: ModelType = RESNET50
    copies: Annotated[int, whole("major models; there is one minor more", most=5_000)] = 3600
    start: Annotated[int, whole("major models that wake up first", most=10_000)] = 1
    growth_per_s: Annotated[float, above_zero("models that wake up in a second", 1e6)] = 1.0
    lead_in_s: Annotated[float, from_zero("how long the minor is asked alone", 1e6)] = 300.0
    major_per_s: Rate = 1000.0
    minor_per_s: RateOfEach = 200.0

    @property
    def wants(self) -> tuple[Want, ...]:
        """The minor model, then the major ones."""
        return (Want(self.model, self.copies + 1),)

    def made(self, models: Sequence[str], seed: int) -> Workload:
        """A stream for each model; the phases of a major one begin when it wakes up."""
        first = min(self.start, self.copies)
        step_s = 1.0 / self.growth_per_s
        shares = tuple(Phase(duration_s=step_s, scale=1 / active) for active in range(first, self.copies + 1))
        minor = Stream(
            model=models[0],
            rate_per_s=self.minor_per_s,
            slo_ns=ns_of(self.slo_ms),
            phases=(Phase(duration_s=self.lead_in_s + len(shares) * step_s),),
        )
        major = tuple(
            Stream(
                model=model,
                rate_per_s=self.major_per_s,
                slo_ns=ns_of(self.slo_ms),
                phases=(*_silence(self.lead_in_s + asleep * step_s), *shares[asleep:]),
            )
            for index, model in enumerate(models[1:])
            for asleep in (max(0, index + 1 - first),)
        )
        return Workload(streams=(minor, *major), phases=(), seed=seed)


class SloExperiment1(Named, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Open loop under SLOs that grow step by step from the time of the model alone (figure 7).

    It ends after the last step. Factors may be fractions; in the published code they are cut to whole numbers.
    """

    model: ModelType = RESNET50
    copies: Copies = 12
    dist: Distribution = "poisson"
    rate_per_s: RateForeground = 600.0
    rate_is: RateIs = "shared"
    unit_ms: UnitMs = 2.9
    slo_start: SloStart = 1.0
    slo_end: SloEnd = 100.0
    factor: Factor = 1.5
    op: OpName = "mul"
    period_s: PeriodS = 30.0

    @property
    def wants(self) -> tuple[Want, ...]:
        """Copies of one type."""
        return (Want(self.model, self.copies),)

    def made(self, models: Sequence[str], seed: int) -> Workload:
        """One stream for each model, under one row of phases."""
        return Workload(streams=self.streams(models), phases=self.ramp(), seed=seed)

    def streams(self, models: Sequence[str]) -> tuple[Stream, ...]:
        """Those whose SLOs grow."""
        rate = self.rate_per_s / len(models) if self.rate_is == "shared" else self.rate_per_s
        process = POISSON if self.dist == "poisson" else Fixed()
        slo_ns = ns_of(self.unit_ms)
        return tuple(Stream(model=model, rate_per_s=rate, slo_ns=slo_ns, process=process) for model in models)

    def ramp(self) -> tuple[Phase, ...]:
        """The steps."""
        return slo_ramp(steps(self.slo_start, self.slo_end, self.factor, Op(self.op)), self.period_s)


class SloExperiment2(SloExperiment1, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As slo-exp-1, beside models that others ask in closed loops without haste (figure 8).

    Each of the six models in front has the rate, as in the figure; rate_is=shared is what the published code does.
    """

    copies: Copies = 6
    rate_per_s: RateForeground = 200.0
    rate_is: RateIs = "each"
    model_bg: Annotated[str, msgspec.Meta(min_length=1, description="type of the models in the background")] = RESNET50
    copies_bg: Annotated[int, whole("models in the background", 0)] = 12
    concurrency_bg: Annotated[int, whole("clients of each of these")] = 16
    slo_bg_ms: Annotated[float, above_zero("their SLO; a day")] = DAY_MS
    jitter_bg_s: Annotated[float, from_zero("they start at random in so long")] = 10.0
    pause_ms: PauseMs = 1.0
    heeds_retry_after: HeedsRetryAfter = False

    @property
    def wants(self) -> tuple[Want, ...]:
        """Those in front, then those behind."""
        front = Want(self.model, self.copies)
        return (front, Want(self.model_bg, self.copies_bg)) if self.copies_bg else (front,)

    def made(self, models: Sequence[str], seed: int) -> Workload:
        """The ramp in front, and clients behind."""
        clients = tuple(
            Clients(
                models=(model,),
                concurrency=self.concurrency_bg,
                slo_ns=ns_of(self.slo_bg_ms),
                pause_ns=int(self.pause_ms * MS),
                heeds_retry_after=self.heeds_retry_after,
                start_within_s=self.jitter_bg_s,
            )
            for model in models[self.copies :]
        )
        return Workload(streams=self.streams(models[: self.copies]), clients=clients, phases=self.ramp(), seed=seed)


class ScalabilityExperiment1(Named, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models share a rate of Poisson arrivals that grows step by step; it ends after the last."""

    slo_ms: SloMs = 100.0
    model: ModelType = RESNET50
    copies: Copies = 12
    rate_min_per_s: Rate = 100.0
    rate_max_per_s: Rate = 10_000.0
    factor: Factor = 1.5
    op: OpName = "mul"
    period_s: PeriodS = 10.0

    @property
    def wants(self) -> tuple[Want, ...]:
        """Copies of one type."""
        return (Want(self.model, self.copies),)

    def made(self, models: Sequence[str], seed: int) -> Workload:
        """One stream for each model; the phases' scales are the rates of all."""
        rates = steps(self.rate_min_per_s, self.rate_max_per_s, self.factor, Op(self.op))
        streams = tuple(Stream(model=model, rate_per_s=1 / self.copies, slo_ns=ns_of(self.slo_ms)) for model in models)
        return Workload(streams=streams, phases=rate_ramp(rates, self.period_s), seed=seed)


def _silence(duration_s: float) -> tuple[Phase, ...]:
    return (Phase(duration_s=duration_s, scale=0.0),) if duration_s else ()
