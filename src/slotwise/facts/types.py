"""The nouns: tensors, models, requests, outcomes. Values only; what changes lives in the controller.

Times are integer nanoseconds on the engine's clock, sizes are bytes, and a model is named by its id,
`name/version`, everywhere behind the door.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from slotwise.facts.profile import Profile
from slotwise.facts.value import value

PRIORITY_HIGHEST = 1
PRIORITY_DEFAULT = 5
PRIORITY_LOWEST = 9
PRIORITY_STEP = 10.0
"""How many answers of one level of priority are worth one of the level above."""

FOREVER_NS: Final = 1 << 62
"""An instant that never comes: no deadline, nothing due."""


class Outcome(Enum):
    """How a request ended. Every accepted request ends in exactly one of these."""

    IN_TIME = "in_time"
    LATE = "late"
    REFUSED = "refused"
    DROPPED = "dropped"
    FAILED = "failed"
    CANCELLED = "cancelled"

    __hash__ = object.__hash__  # an enum's own is written in Python, and each reply is counted by its outcome


class Reason(Enum):
    """Why a request was not answered in time."""

    NONE = "none"
    INFEASIBLE = "infeasible"
    """No slot ends before the deadline."""
    OVERLOADED = "overloaded"
    """A slot exists, but demand exceeds capacity and other requests make better use of it."""
    QUEUE_FULL = "queue_full"
    UNKNOWN_MODEL = "unknown_model"
    MODEL_REMOVED = "model_removed"
    NO_EXECUTOR = "no_executor"
    EXPIRED = "expired"
    """Accepted, but the deadline can no longer be met."""
    DISPLACED = "displaced"
    """Gave way to a request of higher priority."""
    OVERRAN = "overran"
    """Ran, but finished after its deadline."""
    RUN_ERROR = "run_error"
    EXECUTOR_LOST = "executor_lost"
    LOAD_FAILED = "load_failed"
    SHUTTING_DOWN = "shutting_down"
    NO_ROOM = "no_room"
    """No shared memory was left for what passes between a pipeline's steps."""

    __hash__ = object.__hash__  # as that of outcomes


class Failure(Enum):
    """Why an executor did not carry out an action."""

    TOO_LATE = "too_late"
    """`latest_ns` had passed when the action reached the head of the queue; it never ran."""
    NOT_LOADED = "not_loaded"
    CHANGED = "changed"
    """The weights were unloaded or replaced while the batch ran; its outputs are void."""
    STOPPED = "stopped"
    """Stopped on request; it may run again."""
    RUN_ERROR = "run_error"
    NO_MEMORY = "no_memory"
    BAD_MODEL = "bad_model"


@value
class TensorSpec:
    """A model's input or output: its name, OIP datatype, and shape with -1 for what may vary."""

    name: str
    datatype: str
    shape: tuple[int, ...]


ZEROS_SEGMENT = -1
"""No memory at all: a tensor there is made of zeros by whoever reads it. Memory is numbered from 0."""


@value
class TensorRef:
    """Where a tensor lies: bytes `[offset, offset + nbytes)` of a named shared segment."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    segment: int
    offset: int
    nbytes: int


@value
class Variant:
    """Another way to the same answer: a sibling `model`, or a `file` beside the model's own. `accuracy` is 0 to 1."""

    accuracy: float
    model: str = ""
    file: str = ""


@value
class Wire:
    """An input or output of a step's model, by `name`, and the pipeline's tensor that goes in or comes out there."""

    name: str
    tensor: str


@value
class Step:
    """One model's part in a pipeline; `model` is its id."""

    model: str
    inputs: tuple[Wire, ...]
    outputs: tuple[Wire, ...]


@value
class ModelSpec:
    """All that is known of one version of a model before it is loaded anywhere.

    `batch_max` counts rows and is 1 where requests may not be put together. `weight` is what an answer
    in time is worth beside those of other models; it matters under overload only.
    """

    id: str
    name: str
    version: str
    profile: Profile
    slo_ns: int
    batch_max: int = 1
    priority: int = PRIORITY_DEFAULT
    weight: float = 1.0
    path: str = ""
    pack: str = ""
    """Where the model lies in the form whose weights executors share, if it could be brought into it."""
    digest: str = ""
    batchable: bool = False
    """True where the first dimension of every tensor is the batch."""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    accuracy: float | None = None
    """How good it is on the scale of its variants, where its owner says so."""
    variants: tuple[Variant, ...] = ()
    steps: tuple[Step, ...] = ()
    """There for a pipeline, which is not run itself: each step after those that make its inputs."""


@value
class StepOf:
    """The request to a pipeline that another request is a step of; `step` counts from 0."""

    request_id: int
    model: str
    step: int


@value
class Request:
    """One question to a model.

    `rows` is the request's own batch dimension. Requests share a batch only if `form` is equal: it stands
    for the shape of one row. `work` is the cost of a row beside that of the shape the profile was
    measured with.
    """

    id: int
    model: str
    arrival_ns: int
    deadline_ns: int
    rows: int = 1
    priority: int = PRIORITY_DEFAULT
    form: int = 0
    work: float = 1.0
    inputs: tuple[TensorRef, ...] = ()
    regions: tuple[int, ...] = ()
    """Regions of shared memory that inputs lie in; a client's request has one, or none where they lie in its own."""
    outputs: tuple[str, ...] = ()
    """Names of the outputs asked for; empty means all."""
    step_of: StepOf | None = None

    def worth(self, spec: ModelSpec) -> float:
        """What an answer in time is worth: the model's weight, and a factor for each level of priority."""
        if self.priority == PRIORITY_DEFAULT:
            return spec.weight
        return spec.weight * float(PRIORITY_STEP ** (PRIORITY_DEFAULT - self.priority))


@value
class Timing:
    """How an answered request's time was spent; all instants on the engine's clock."""

    arrival_ns: int
    sent_ns: int
    started_ns: int
    ended_ns: int
    executor: str
    rows: int
    """Rows of the whole batch that it ran in."""
    attempts: int
    predicted_ns: int
    """When it was expected to be answered, as computed when its batch was sent."""


@value
class Refusal:
    """Why a request is turned away, when it would have been answered, and when to come again."""

    reason: Reason
    message: str = ""
    predicted_ns: int = FOREVER_NS
    retry_after_ns: int = 0
