"""What happened. The only way that the outside reaches the controller."""

from __future__ import annotations

from slotwise.facts.types import Failure, ModelSpec, Outcome, Reason, Request, TensorRef
from slotwise.facts.value import value


@value
class ModelAdded:
    """A model may be asked for from now on. The same id again replaces what was known of it."""

    spec: ModelSpec


@value
class ModelRemoved:
    """A model may not be asked for any more; its waiting requests are told so."""

    model: str


@value
class Arrived:
    """A request was read in full and its tensors lie in shared memory."""

    request: Request


@value
class Cancelled:
    """The client went away or took its request back."""

    request_id: int


@value
class BatchDone:
    """A batch ran to its end. `outputs` has one entry per request, in the order of the batch."""

    executor: str
    batch_id: int
    started_ns: int
    ended_ns: int
    cpu_ns: int = 0
    outputs: tuple[tuple[TensorRef, ...], ...] = ()


@value
class BatchFailed:
    """A batch did not run to a valid end. One too late ended when it reached its executor, or would have."""

    executor: str
    batch_id: int
    failure: Failure
    message: str = ""
    started_ns: int = 0
    ended_ns: int = 0


@value
class Loaded:
    """A model's weights are ready on an executor."""

    executor: str
    model: str
    load_id: int
    started_ns: int
    ended_ns: int


@value
class LoadFailed:
    """A model could not be loaded; nothing of it stays behind."""

    executor: str
    model: str
    load_id: int
    failure: Failure
    message: str = ""


@value
class Unloaded:
    """A model's memory on an executor is free again."""

    executor: str
    model: str
    load_id: int


@value
class ExecutorUp:
    """An executor is ready for work and holds nothing. A name that comes back is a new process."""

    executor: str
    memory_bytes: int
    page_bytes: int = 1
    way_ns: int = 0
    """What the way there and back takes at least, to one on another machine; 0 for one on this machine."""


@value
class ExecutorLost:
    """An executor died or was ended. What it was doing will not be reported any more."""

    executor: str
    message: str = ""


@value
class Woke:
    """An instant asked for by `WakeAt` has come."""


@value
class PipelineEnded:
    """A request to a pipeline was answered. Told for the record: its steps were requests of their own."""

    request: Request
    outcome: Outcome
    reason: Reason
    message: str
    predicted_ns: int


Event = (
    ModelAdded
    | ModelRemoved
    | Arrived
    | Cancelled
    | BatchDone
    | BatchFailed
    | Loaded
    | LoadFailed
    | Unloaded
    | ExecutorUp
    | ExecutorLost
    | Woke
    | PipelineEnded
)
EVENT_TYPES: tuple[type[Event], ...] = (
    ModelAdded,
    ModelRemoved,
    Arrived,
    Cancelled,
    BatchDone,
    BatchFailed,
    Loaded,
    LoadFailed,
    Unloaded,
    ExecutorUp,
    ExecutorLost,
    Woke,
    PipelineEnded,
)
