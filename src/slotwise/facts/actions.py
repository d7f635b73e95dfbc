"""What is to be done. The only way that the controller reaches the outside.

`[earliest_ns, latest_ns]` bounds the *start* of an action at its executor: one that is reached too early
waits, one that is reached too late is returned and never run (Clockwork, section 4.2).
"""

from __future__ import annotations

from slotwise.facts.types import FOREVER_NS, Outcome, Reason, Request, TensorRef, Timing
from slotwise.facts.value import value


@value
class RunBatch:
    """Run these requests together. Comes back as `BatchDone` or `BatchFailed`."""

    executor: str
    batch_id: int
    model: str
    requests: tuple[Request, ...]
    rows: int
    earliest_ns: int
    latest_ns: int
    expected_ns: int
    """How long the run is expected to take."""


@value
class StopBatch:
    """Stop a batch that runs or waits at its executor. It still comes back, done or failed."""

    executor: str
    batch_id: int


@value
class Load:
    """Make a model's weights ready on an executor. Comes back as `Loaded` or `LoadFailed`."""

    executor: str
    model: str
    load_id: int
    earliest_ns: int = 0
    latest_ns: int = FOREVER_NS
    expected_ns: int = 0


@value
class Unload:
    """Give a model's memory back. Comes back as `Unloaded`. `load_id` says which load it undoes."""

    executor: str
    model: str
    load_id: int


@value
class ReplaceExecutor:
    """End an executor that no longer answers and start another in its place."""

    executor: str
    message: str


@value
class Reply:
    """The one answer to a request."""

    request_id: int
    outcome: Outcome
    reason: Reason = Reason.NONE
    message: str = ""
    predicted_ns: int = FOREVER_NS
    """For one refused or dropped: when it would have been answered."""
    retry_after_ns: int = 0
    outputs: tuple[TensorRef, ...] = ()
    timing: Timing | None = None


@value
class WakeAt:
    """Send `Woke` at this instant. A later one replaces it; only one is outstanding."""

    at_ns: int


Action = RunBatch | StopBatch | Load | Unload | ReplaceExecutor | Reply | WakeAt
ACTION_TYPES: tuple[type[Action], ...] = (RunBatch, StopBatch, Load, Unload, ReplaceExecutor, Reply, WakeAt)
