"""The columns of the logs, in their order. Times are nanoseconds; None is an empty field.

Names and meanings are those of Clockwork's logs where it has the same thing; docs/reference.md says which of its
columns have no meaning here. `t` is on the engine's clock, as every instant of a journal is.
"""

from __future__ import annotations

from typing import NamedTuple


class RequestRow(NamedTuple):
    """A request that has ended, refused ones too."""

    t: int
    """When it ended; `t - latency` is when it arrived."""
    request_id: int
    result: str
    """Its outcome."""
    reason: str
    model_id: str
    slo_factor: float | None
    """The allowance as a multiple of the time of its rows in the model's profile; None without a deadline, or for
    a model that is not on offer."""
    latency: int
    deadline: int | None
    """The allowance, from arrival; None where there was no deadline."""
    deadline_met: int
    """1 if it was answered in time, else 0."""
    arrival_count: int
    """Executors that held the model when it arrived; none holds a pipeline."""
    departure_count: int
    """The same when it ended."""
    is_coldstart: int
    """1 if none held the model when it arrived; of a pipeline, if that was so of a step."""


class ActionRow(NamedTuple):
    """An action that came back, or was lost with its executor. All times but durations are relative to `t`."""

    t: int
    """When it was sent."""
    action_id: int
    """Batches have one series of numbers and loads another; an eviction has that of the load it undoes."""
    action_type: int
    """1 load, 2 infer, 3 evict."""
    status: str
    """`ok`, `executor_lost`, or the failure's name."""
    worker_id: str
    model_id: str
    batch_size: int
    """Rows; 0 for what is no batch."""
    expected_exec_duration: int | None
    worker_exec_duration: int | None
    expected_exec_complete: int | None
    """As computed when it was sent; known of loads, and of batches that answered a request."""
    worker_exec_complete: int | None
    controller_action_duration: int
    """From sending to the turn that took the result in."""
    goodput: int
    """Run time times the share of its requests that were answered in time."""
    requests_queued: int
    """Requests for the model that wait, once the result was taken in."""
    copies_loaded: int
    """Executors that hold the model then."""
    worker_exec_start: int | None
    worker_cpu_duration: int | None
    earliest: int | None
    latest: int | None
    """The window for its start; None where it is open."""
    request_count: int
    requests_in_time: int
    request_ids: str
    """Apart by spaces."""
    message: str
    """What was said of a failure."""


class RefusedRow(NamedTuple):
    """A request, or a connection, that a door has turned away by itself."""

    t: int
    door: str
    """`http`, `grpc` or `local`."""
    status: int
    reason: str
    peer: str
    """Who asked, as far as the system says: address and port, or process and user."""
    target: str
    """What was asked for: a path, or a model."""
    message: str
    """What was told."""
    left_out: int
    """Refusals since the row before that have none, because there were too many."""


LOAD, INFER, EVICT = 1, 2, 3
OK, LOST = "ok", "executor_lost"
