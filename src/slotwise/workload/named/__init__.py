"""Every workload that has a name: those of Clockwork's client, made right, as a table.

`build` makes one from its name and parameters. What each asks is in `steady`, `ramped` and `trace`; `form` says what
a named workload is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from slotwise.facts.value import value
from slotwise.workload.azure import Trace
from slotwise.workload.named.form import Given, Named, Parameter, Want, help_of, parameters_of, read_parameters
from slotwise.workload.named.ramped import (
    BurstyExperiment,
    ScalabilityExperiment1,
    SimpleSloFactor,
    SloExperiment1,
    SloExperiment2,
)
from slotwise.workload.named.steady import (
    ComparisonExperiment,
    ComparisonExperiment2,
    Example,
    FillMemory,
    PoissonOpenLoop,
    Simple,
    SimpleParametric,
    SingleSpam,
    Spam,
)
from slotwise.workload.named.trace import (
    Azure,
    AzureFast,
    AzureHalf,
    AzureScalability,
    AzureSingle,
    AzureSmall,
    TraceReplay,
)
from slotwise.workload.values import Workload, WorkloadError

__all__ = [
    "NAMED",
    "Built",
    "Given",
    "Named",
    "Parameter",
    "Want",
    "build",
    "help_of",
    "names_for",
    "parameters_of",
    "wants_of",
]

NAMED: dict[str, type[Named]] = {
    "simple": Simple,
    "simple-slo-factor": SimpleSloFactor,
    "simple-parametric": SimpleParametric,
    "example": Example,
    "fill_memory": FillMemory,
    "spam": Spam,
    "single-spam": SingleSpam,
    "poisson-open-loop": PoissonOpenLoop,
    "comparison_experiment": ComparisonExperiment,
    "comparison_experiment2": ComparisonExperiment2,
    "bursty_experiment": BurstyExperiment,
    "slo-exp-1": SloExperiment1,
    "slo-exp-2": SloExperiment2,
    "scalability-exp-1": ScalabilityExperiment1,
    "azure": Azure,
    "azure_scalability_exp": AzureScalability,
    "azure_half": AzureHalf,
    "azure_small": AzureSmall,
    "azure_single": AzureSingle,
    "azure_fast": AzureFast,
}


@value
class Built:
    """A named workload with its parameters.

    `models` are those that it asks, in the order of `wants`. `about` says in a line what it is, and from which data.
    """

    name: str
    wants: tuple[Want, ...]
    models: tuple[str, ...]
    workload: Workload
    about: str


def build(
    name: str,
    given: Given | None = None,
    *,
    models: Sequence[str] = (),
    seed: int = 1,
    trace: Trace | None = None,
) -> Built:
    """The workload of that name. Raises WorkloadError for an unknown name, bad parameters, or too few models.

    `models` are names to use in their order, and any beyond those wanted are left alone; without them the models are
    called TYPE-0, TYPE-1 and so on. `trace` is for those that replay one; they make a stand-in without.
    """
    asked_for = read_parameters(name, kind_of(name), given or {})
    if trace is not None:
        check_replays(name)
    wants = asked_for.wants
    asked = _enough(name, wants, models) if models else names_for(wants)
    about = help_of(type(asked_for)).partition(". ")[0].removesuffix(".")
    if isinstance(asked_for, TraceReplay):
        trace = asked_for.stand_in() if trace is None else trace
        workload = asked_for.made_from(trace, asked, seed)
        about = f"{about}; from {trace.source}, {len(trace.functions)} functions, {asked_for.mapping}"
    else:
        workload = asked_for.made(asked, seed)
    return Built(name=name, wants=wants, models=asked, workload=workload, about=about)


def wants_of(name: str, given: Given | None = None) -> tuple[Want, ...]:
    """The models that a workload wants, in their order. Raises WorkloadError as `build` does."""
    return read_parameters(name, kind_of(name), given or {}).wants


def check_replays(name: str) -> None:
    """Raise WorkloadError unless the workload of that name replays a trace."""
    if not issubclass(kind_of(name), TraceReplay):
        raise WorkloadError(f"{name} replays no trace; leave the trace away")


def kind_of(name: str) -> type[Named]:
    """The kind of workload that has this name. Raises WorkloadError."""
    if name not in NAMED:
        near = difflib.get_close_matches(name, NAMED, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise WorkloadError(f"there is no workload {name!r}; {hint}there are {', '.join(NAMED)}")
    return NAMED[name]


def names_for(wants: Iterable[Want]) -> tuple[str, ...]:
    """Names of models as a workload gives them where it is not told any: TYPE-0, TYPE-1 and so on for each type."""
    seen: dict[str, int] = {}
    names: list[str] = []
    for want in wants:
        begin = seen.get(want.model_type, 0)
        seen[want.model_type] = begin + want.copies
        names += [f"{want.model_type}-{index}" for index in range(begin, begin + want.copies)]
    return tuple(names)


def _enough(name: str, wants: Sequence[Want], models: Sequence[str]) -> tuple[str, ...]:
    total = sum(want.copies for want in wants)
    if len(models) < total:
        told = ", ".join(f"{want.copies} of {want.model_type}" for want in wants)
        raise WorkloadError(
            f"{name} wants {total} models ({told}), and there are {len(models)}; add models, or ask less"
        )
    return tuple(models[:total])
