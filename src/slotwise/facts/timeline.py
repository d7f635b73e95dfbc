"""What happened on a server, as facts for a picture: batches, requests and lost executors with their extent in time.

Instants are on the engine's clock. `engine.timeline` reads a journal into these; `edges.plots` draws them.
"""

from __future__ import annotations

from slotwise.facts.types import Outcome, Reason
from slotwise.facts.value import value


@value
class Bar:
    """A batch on an executor. `trouble` is empty where it ran to its end, else says why not."""

    batch_id: int
    executor: str
    model: str
    request_ids: tuple[int, ...]
    rows: int
    sent_ns: int
    started_ns: int
    ended_ns: int
    expected_ns: int
    """How long it was expected to take."""
    trouble: str = ""


@value
class Asked:
    """A request and its ending. `replied_ns` is None where the journal ends before."""

    id: int
    model: str
    arrival_ns: int
    deadline_ns: int
    replied_ns: int | None = None
    outcome: Outcome | None = None
    reason: Reason = Reason.NONE
    executor: str = ""
    """Where it was answered."""
    ended_ns: int | None = None
    """When its answer was computed."""


@value
class Loss:
    """An executor that went away. `back_ns` is None where it did not return."""

    executor: str
    lost_ns: int
    message: str
    back_ns: int | None = None


@value
class Timeline:
    """What happened, in order of time."""

    start_ns: int
    end_ns: int
    executors: tuple[str, ...]
    slo_ns: dict[str, int]
    """Models that were ever on offer, with their usual allowance."""
    bars: tuple[Bar, ...]
    asked: tuple[Asked, ...]
    losses: tuple[Loss, ...]


@value
class Scene:
    """A stretch of a timeline that is looked at for a reason."""

    name: str
    caption: str
    start_ns: int
    end_ns: int


@value
class Mark:
    """Something done from outside to an executor."""

    executor: str
    at_ns: int
    text: str
