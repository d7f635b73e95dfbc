"""Named workloads that replay a day of the Azure Functions trace of 2019, or a synthetic stand-in for one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from slotwise.workload.azure import Trace
from slotwise.workload.named.form import Named, SloMs, Want, above_zero, from_zero, ns_of, whole
from slotwise.workload.named.zoo import RESNET50, ZOO
from slotwise.workload.ramps import Op, rate_ramp, steps
from slotwise.workload.replay import FunctionMapping, model_counts, replayed
from slotwise.workload.synthetic import FUNCTIONS, stand_in
from slotwise.workload.values import Phase, Stream, Workload

NOMINAL = 0.125
"""Of the trace's rate, for each worker at a load of 1, as published: eight workers get the trace as it was."""
COPIES_OF_TYPE = {1: 3, 2: 13, 3: 29, 4: 66}
COPIES_OF_ONE = {1: 200, 2: 800, 3: 1800, 4: 3600}
"""Models by level of memory: of each type, or of ResNet50 alone."""
SECONDS_MAX = 14 * 86_400.0

Workers = Annotated[int, whole("workers that the load is meant for; each adds an eighth of the trace's rate")]
Memory = Annotated[int, whole("how many models: 3, 13, 29 or 66 of each type; 200, 800, 1800 or 3600 of one", most=4)]
Models = Annotated[int, whole("so many models in all, spread evenly over the types; 0 leaves it to memory", 0)]
IntervalS = Annotated[float, above_zero("how long each minute of the trace takes, in seconds", 86_400.0)]
Load = Annotated[float, from_zero("what rates are multiplied by")]
UseAll = Annotated[bool, msgspec.Meta(description="models of every type of the zoo, not ResNet50 alone")]
Randomise = Annotated[bool, msgspec.Meta(description="functions begin at a minute of their own")]
DaySeconds = Annotated[float, above_zero("how long it lasts; after a day it begins again", SECONDS_MAX)]


class TraceReplay(Named, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One that replays a trace. Functions are independent Poisson streams, those of one model put together.

    Where no trace is given, a synthetic stand-in of `functions` functions takes its place.
    """

    slo_ms: SloMs = 100.0
    workers: Workers = 1
    memory: Memory = 4
    models: Models = 0
    interval_s: IntervalS = 60.0
    mapping: Annotated[
        Literal["shuffled", "sorted"],
        msgspec.Meta(description="how functions become models; sorted is as published: busy ones on the first models"),
    ] = "shuffled"
    functions: Annotated[int, whole("functions of the stand-in", most=1_000_000)] = FUNCTIONS
    trace_seed: Annotated[int, whole("of the stand-in, and of what is shuffled", 0, 1 << 31)] = 1

    @property
    def types(self) -> tuple[str, ...]:
        """The types of its models."""
        return ZOO

    @property
    def wants(self) -> tuple[Want, ...]:
        """Copies of each type, one more of the first ones where they do not come out even."""
        if not self.models:
            copies = COPIES_OF_TYPE[self.memory] if len(self.types) > 1 else COPIES_OF_ONE[self.memory]
            return tuple(Want(model_type, copies) for model_type in self.types)
        each, more = divmod(self.models, len(self.types))
        copies_of = {model_type: each + (place < more) for place, model_type in enumerate(self.types)}
        return tuple(Want(model_type, copies) for model_type, copies in copies_of.items() if copies)

    def made(self, models: Sequence[str], seed: int) -> Workload:
        """The workload over a stand-in."""
        return self.made_from(self.stand_in(), models, seed)

    def stand_in(self) -> Trace:
        """The trace that takes the place of a real one."""
        return stand_in(self.functions, self.trace_seed)

    def made_from(self, trace: Trace, models: Sequence[str], seed: int) -> Workload:
        """The workload over a trace."""
        raise NotImplementedError

    def replayed(
        self,
        trace: Trace,
        models: Sequence[str],
        *,
        load: float,
        seconds: float,
        randomise: random.Random | None = None,
        ramp: tuple[Phase, ...] = (),
    ) -> tuple[Stream, ...]:
        """The streams at so many times the nominal load."""
        counts = model_counts(
            trace,
            len(models),
            mapping=FunctionMapping(self.mapping),
            seed=self.trace_seed,
            randomise=randomise is not None,
        )
        return replayed(
            counts,
            models,
            slo_ns=ns_of(self.slo_ms),
            scale=load * NOMINAL * self.workers,
            seconds=seconds,
            interval_s=self.interval_s,
            offsets=randomise,
            ramp=ramp,
        )


class Azure(TraceReplay, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A day of Azure Functions (figure 9): rates change each minute, by the calls of the functions of each model.

    The figure had workers=8, models=4026 and memory for a part of them.
    """

    use_all: UseAll = True
    load: Load = 1.0
    randomise: Randomise = False
    seconds: DaySeconds = 3600.0

    @property
    def types(self) -> tuple[str, ...]:
        """The zoo, or ResNet50."""
        return ZOO if self.use_all else (RESNET50,)

    def made_from(self, trace: Trace, models: Sequence[str], seed: int) -> Workload:
        """A stream for each model that is called."""
        offsets = random.Random(f"{seed}/offsets") if self.randomise else None
        streams = self.replayed(trace, models, load=self.load, seconds=self.seconds, randomise=offsets)
        return Workload(streams=streams, phases=(Phase(duration_s=self.seconds),), seed=seed)


class AzureHalf(Azure, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As azure, at half the load; the name is published, what it means is not."""

    load: Load = 0.5


class AzureSmall(Azure, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As azure, with three models of each type."""

    memory: Memory = 1


class AzureSingle(Azure, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As azure, with one model alone, which all functions call; the name is published, what it means is not."""

    use_all: UseAll = False
    models: Models = 1


class AzureFast(Azure, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As azure, with minutes that take a second, and functions that begin at a minute of their own."""

    interval_s: IntervalS = 1.0
    randomise: Randomise = True
    seconds: DaySeconds = 600.0


class AzureScalability(TraceReplay, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The trace of azure at a load that grows step by step; it ends after the last (figure 11).

    The published script has load_max=2 and increase=2, the figure what is the default here.
    """

    load_min: Annotated[float, above_zero("the first step's load, in times of the nominal one")] = 0.1
    load_max: Annotated[float, above_zero("the last step's load is this at most")] = 4.0
    increase: Annotated[float, above_zero("what each step multiplies by, or adds")] = 1.5
    op: Annotated[Literal["mul", "add"], msgspec.Meta(description="whether a step multiplies or adds")] = "mul"
    period_s: Annotated[float, above_zero("seconds of a step", 86_400.0)] = 60.0

    def made_from(self, trace: Trace, models: Sequence[str], seed: int) -> Workload:
        """A stream for each model that is called."""
        ramp = rate_ramp(steps(self.load_min, self.load_max, self.increase, Op(self.op)), self.period_s)
        seconds = len(ramp) * self.period_s
        streams = self.replayed(trace, models, load=1.0, seconds=seconds, ramp=ramp)
        return Workload(streams=streams, phases=(Phase(duration_s=seconds),), seed=seed)
