"""Named workloads whose rates and SLOs stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from slotwise.workload.named.form import (
    Concurrency,
    Copies,
    ModelType,
    Named,
    NamedClosed,
    Rate,
    RateOfEach,
    Seconds,
    SloMs,
    Want,
    above_zero,
    from_zero,
    ns_of,
    whole,
)
from slotwise.workload.named.zoo import RESNET50, ZOO
from slotwise.workload.values import Bursty, Clients, Fixed, Phase, Stream, Workload, WorkloadError

CopiesOfType = Annotated[int, whole("models of each type of the zoo", most=1_000)]
ClientsOfParts = Annotated[int, whole("clients, each with a part of the models")]
Requests = Annotated[int, whole("requests of each client, then it ends", most=1_000_000_000)]
BurstSeconds = Annotated[float, above_zero("mean length of a burst")]
IdleSeconds = Annotated[float, above_zero("mean length of the silence between bursts")]


class Closed(NamedClosed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Closed loop: each of some models has clients of its own."""

    slo_ms: SloMs = 100.0
    model: ModelType = RESNET50
    copies: Copies = 2
    concurrency: Concurrency = 1
    seconds: Seconds = 60.0

    @property
    def wants(self) -> tuple[Want, ...]:
        """Copies of one type."""
        return (Want(self.model, self.copies),)

    def made(self, models: Sequence[str], seed: int) -> Workload:
        """Clients for each model."""
        parts = tuple(self.clients_of((model,), self.concurrency, slo_ms=self.slo_ms) for model in models)
        return Workload(streams=(), clients=parts, phases=(Phase(duration_s=self.seconds),), seed=seed)


class Simple(Closed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two ResNet50, each asked by one client in a closed loop."""


class Spam(Closed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A hundred models, each asked by a hundred clients in a closed loop."""

    copies: Copies = 100
    concurrency: Concurrency = 100


class SingleSpam(Closed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model asked by a thousand clients in a closed loop; the published code has 100: copies=100."""

    copies: Copies = 1
    concurrency: Concurrency = 1000


class ComparisonExperiment2(Closed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """15 models, each asked by 16 clients in a closed loop: Clockwork's figure 5."""

    copies: Copies = 15
    concurrency: Concurrency = 16


class SimpleParametric(NamedClosed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models split evenly over clients, each of which has some requests open, asks its models in turn, and ends."""

    slo_ms: SloMs = 100.0
    model: ModelType = RESNET50
    copies: Copies = 12
    clients: ClientsOfParts = 4
    concurrency: Annotated[int, whole("requests that each client has open")] = 1
    requests: Requests = 100
    seconds: Annotated[float, above_zero("when it ends at the latest")] = 600.0

    @property
    def wants(self) -> tuple[Want, ...]:
        """Copies of one type."""
        return (Want(self.model, self.copies),)

    def made(self, models: Sequence[str], seed: int) -> Workload:
        """One set of clients for each part of the models."""
        if self.clients > self.copies:
            raise WorkloadError(
                f"simple-parametric has {self.clients} clients for {self.copies} copies; each client needs a model"
            )
        bounds = [self.copies * part // self.clients for part in range(self.clients + 1)]
        parts = tuple(
            self.clients_of(models[begin:end], self.concurrency, slo_ms=self.slo_ms, requests_max=self.requests)
            for begin, end in pairwise(bounds)
        )
        return Workload(streams=(), clients=parts, phases=(Phase(duration_s=self.seconds),), seed=seed)


class Example(NamedClosed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each model of the zoo is asked in five ways at once: equal gaps, Poisson, bursts, and two closed loops.

    One of the closed loops asks in bursts. Rates of bursts hold within a burst.
    """

    slo_ms: SloMs = 100.0
    copies: CopiesOfType = 1
    fixed_per_s: Annotated[float, from_zero("with equal gaps, of each model")] = 5.0
    poisson_per_s: Annotated[float, from_zero("Poisson, of each model")] = 10.0
    bursty_per_s: Annotated[float, from_zero("within a burst, of each model")] = 10.0
    burst_s: BurstSeconds = 10.0
    idle_s: IdleSeconds = 20.0
    concurrency: Concurrency = 1
    seconds: Seconds = 60.0

    @property
    def wants(self) -> tuple[Want, ...]:
        """Copies of each type of the zoo."""
        return tuple(Want(model_type, self.copies) for model_type in ZOO)

    def made(self, models: Sequence[str], seed: int) -> Workload:
        """Three streams and two sets of clients for each model."""
        bursts = Bursty(mean_burst_s=self.burst_s, mean_idle_s=self.idle_s)
        return Workload(
            streams=tuple(stream for model in models for stream in self._streams(model, bursts)),
            clients=tuple(part for model in models for part in self._clients(model, bursts)),
            phases=(Phase(duration_s=self.seconds),),
            seed=seed,
        )

    def _streams(self, model: str, bursts: Bursty) -> tuple[Stream, ...]:
        mean_per_s = self.bursty_per_s * self.burst_s / (self.burst_s + self.idle_s)
        return (
            Stream(model=model, rate_per_s=self.fixed_per_s, slo_ns=ns_of(self.slo_ms), process=Fixed()),
            Stream(model=model, rate_per_s=self.poisson_per_s, slo_ns=ns_of(self.slo_ms)),
            Stream(model=model, rate_per_s=mean_per_s, slo_ns=ns_of(self.slo_ms), process=bursts),
        )

    def _clients(self, model: str, bursts: Bursty) -> tuple[Clients, ...]:
        return self.clients_of((model,), self.concurrency, slo_ms=self.slo_ms), self.clients_of(
            (model,), self.concurrency, slo_ms=self.slo_ms, bursts=bursts
        )


class FillMemory(Named, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """411 models, open loop: one asked 1000 times a second, ten 10 times, and four hundred once."""

    slo_ms: SloMs = 100.0
    model: ModelType = RESNET50
    hot: Annotated[int, whole("models asked most", 0)] = 1
    warm: Annotated[int, whole("models asked now and then", 0)] = 10
    cold: Annotated[int, whole("models asked seldom", 0)] = 400
    hot_per_s: RateOfEach = 1000.0
    warm_per_s: RateOfEach = 10.0
    cold_per_s: RateOfEach = 1.0
    seconds: Seconds = 60.0

    @property
    def wants(self) -> tuple[Want, ...]:
        """Copies of one type."""
        return (Want(self.model, self.hot + self.warm + self.cold),)

    def made(self, models: Sequence[str], seed: int) -> Workload:
        """The hot first, then the warm, then the cold."""
        rates = [self.hot_per_s] * self.hot + [self.warm_per_s] * self.warm + [self.cold_per_s] * self.cold
        streams = tuple(
            Stream(model=model, rate_per_s=rate, slo_ns=ns_of(self.slo_ms))
            for model, rate in zip(models, rates, strict=True)
        )
        return Workload(streams=streams, phases=(Phase(duration_s=self.seconds),), seed=seed)


class PoissonOpenLoop(Named, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models share a rate of Poisson arrivals, open loop."""

    slo_ms: SloMs = 100.0
    model: ModelType = RESNET50
    copies: Copies = 10
    rate_per_s: Rate = 100.0
    seconds: Seconds = 60.0

    @property
    def wants(self) -> tuple[Want, ...]:
        """Copies of one type."""
        return (Want(self.model, self.copies),)

    def made(self, models: Sequence[str], seed: int) -> Workload:
        """One stream for each model."""
        rate = self.rate_per_s / self.copies
        streams = tuple(Stream(model=model, rate_per_s=rate, slo_ns=ns_of(self.slo_ms)) for model in models)
        return Workload(streams=streams, phases=(Phase(duration_s=self.seconds),), seed=seed)


class ComparisonExperiment(PoissonOpenLoop, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """15 models share 1000 requests a second, open loop: a variant of Clockwork's figure 5."""

    copies: Copies = 15
    rate_per_s: Rate = 1000.0
