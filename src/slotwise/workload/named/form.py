"""What every named workload is: typed parameters with defaults, the models that it wants, and how it is made.

A named workload is a frozen struct whose fields are its parameters; its docstring says what it does, in a line, and its
`Meta` what each parameter means and may be. Parameters come as text (a command line's `name=value`) or as numbers (a
file's); both are read by `read_parameters`, whose errors say what is allowed.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from slotwise.facts.units import MS
from slotwise.facts.value import value
from slotwise.workload.values import Bursty, Clients, Phase, Workload, WorkloadError

NUMBER_MAX = 1e9
COPIES_MAX = 100_000
PLACE = " - at `$."
"""What the library puts between a complaint and the parameter that it is about."""
Given = Mapping[str, str | int | float | bool]
"""Parameters by name."""


def above_zero(about: str, most: float = NUMBER_MAX) -> msgspec.Meta:
    """A parameter that is a number above 0."""
    return msgspec.Meta(gt=0, le=most, description=about)


def from_zero(about: str, most: float = NUMBER_MAX) -> msgspec.Meta:
    """A parameter that is a number, 0 or above."""
    return msgspec.Meta(ge=0, le=most, description=about)


def whole(about: str, least: int = 1, most: int = COPIES_MAX) -> msgspec.Meta:
    """A parameter that counts."""
    return msgspec.Meta(ge=least, le=most, description=about)


ModelType = Annotated[str, msgspec.Meta(min_length=1, description="type of the models")]
Copies = Annotated[int, whole("how many models")]
Concurrency = Annotated[int, whole("clients of each model")]
Rate = Annotated[float, from_zero("requests a second of all models together")]
RateOfEach = Annotated[float, from_zero("requests a second of each model")]
Seconds = Annotated[float, above_zero("how long it lasts, in seconds")]
SloMs = Annotated[float, above_zero("time that each request has")]
UnitMs = Annotated[float, above_zero("what SLO factors multiply: the time of the model alone, in a batch of one")]
PauseMs = Annotated[float, from_zero("from an answer to the same client's next request: its network")]
HeedsRetryAfter = Annotated[bool, msgspec.Meta(description="clients come again when the server says, not at once")]


class Want(NamedTuple):
    """So many models of a type."""

    model_type: str
    copies: int


@value
class Parameter:
    """A parameter of a named workload, in words."""

    name: str
    default: str
    allowed: str
    help: str


class Named(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A workload that has a name. Its subclasses say which models they want and what they ask of them."""

    @property
    def wants(self) -> tuple[Want, ...]:
        """The models, by type, in the order in which `made` takes them."""
        raise NotImplementedError

    def made(self, models: Sequence[str], seed: int) -> Workload:
        """The workload; `models` are as many as it wants."""
        raise NotImplementedError


class NamedClosed(Named, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One that has closed-loop clients."""

    pause_ms: PauseMs = 1.0
    heeds_retry_after: HeedsRetryAfter = False

    def clients_of(
        self,
        models: Sequence[str],
        concurrency: int,
        *,
        slo_ms: float,
        requests_max: int | None = None,
        start_within_s: float = 0.0,
        bursts: Bursty | None = None,
        phases: tuple[Phase, ...] = (),
    ) -> Clients:
        """Clients with this workload's pause."""
        return Clients(
            models=tuple(models),
            concurrency=concurrency,
            slo_ns=ns_of(slo_ms),
            pause_ns=int(self.pause_ms * MS),
            heeds_retry_after=self.heeds_retry_after,
            requests_max=requests_max,
            start_within_s=start_within_s,
            bursts=bursts,
            phases=phases,
        )


N = TypeVar("N", bound=Named)


def ns_of(milliseconds: float) -> int:
    """A time that a parameter tells, at least 1 ns."""
    return max(1, int(milliseconds * MS))


def read_parameters(name: str, kind: type[N], given: Given) -> N:
    """A named workload with these parameters. Raises WorkloadError, which names the parameter and what is allowed."""
    known = {parameter.name: parameter for parameter in parameters_of(kind)}
    for parameter in given:
        if parameter not in known:
            near = difflib.get_close_matches(parameter, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise WorkloadError(f"{name} has no parameter {parameter!r}; {hint}it has {', '.join(known)}")
    try:
        return msgspec.convert(dict(given), kind, strict=False)
    except msgspec.ValidationError as error:
        wrong = str(error).removesuffix("`").partition(PLACE)[2]
        allowed = known[wrong].allowed
        raise WorkloadError(f"parameter {wrong} of {name} is {given[wrong]!r}; it must be {allowed}") from error


def parameters_of(kind: type[Named]) -> tuple[Parameter, ...]:
    """The parameters of a named workload, in words."""
    return tuple(_parameter(field) for field in _fields(kind))


def help_of(kind: type[Named]) -> str:
    """What a named workload does, in a sentence or a few."""
    return inspect.cleandoc(kind.__doc__ or "").replace("\n", " ").replace("  ", " ")


def _fields(kind: type[Named]) -> tuple[msgspec.inspect.Field, ...]:
    told = msgspec.inspect.type_info(kind)
    assert isinstance(told, msgspec.inspect.StructType)
    return told.fields


def _parameter(field: msgspec.inspect.Field) -> Parameter:
    described, inner = "", field.type
    if isinstance(inner, msgspec.inspect.Metadata):
        described, inner = (inner.extra_json_schema or {}).get("description", ""), inner.type
    return Parameter(name=field.name, default=_told(field.default), allowed=_allowed(inner), help=described)


def _told(default: object) -> str:
    """As it would be given."""
    if isinstance(default, bool):
        return "true" if default else "false"
    return str(int(default)) if isinstance(default, float) and default.is_integer() else str(default)


def _allowed(kind: msgspec.inspect.Type) -> str:
    match kind:
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.LiteralType():
            return " or ".join(sorted(str(choice) for choice in kind.values))
        case msgspec.inspect.IntType():
            return f"a whole number {_bounds(kind)}"
        case msgspec.inspect.FloatType():
            return f"a number {_bounds(kind)}"
        case _:
            return "a name"


def _bounds(kind: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    low = f"above {kind.gt:g}" if kind.gt is not None else f"{kind.ge:g} or above"
    return f"{low}, {int(kind.le):,} at most" if kind.le is not None else low
