"""The controller's picture of the world: requests under way, executors, models. Schedulers read it.

Only the controller writes it. Times that lie in the future are predictions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum

from slotwise.facts.residency import Residency
from slotwise.facts.types import ModelSpec, Request
from slotwise.policy.estimates import Estimates


class TicketState(Enum):
    """Where a request stands between its arrival and its reply."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


TRANSITIONS: tuple[tuple[TicketState, TicketState], ...] = (
    (TicketState.WAITING, TicketState.RUNNING),
    (TicketState.RUNNING, TicketState.ENDED),
    (TicketState.WAITING, TicketState.ENDED),
    (TicketState.RUNNING, TicketState.WAITING),
)
"""All that may happen, the most usual first."""


class Ticket:
    """A request under way.

    `is_promised` once a scheduler has taken it in: from then on it is no new arrival, whatever happens to it. `alone`
    forbids it company, after a batch with it in failed.
    """

    __slots__ = ("alone", "attempts", "batch", "is_promised", "request", "state")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.state = TicketState.WAITING
        self.attempts = 0
        self.is_promised = False
        self.alone = False
        self.batch: BatchInFlight | None = None

    def move(self, state: TicketState) -> None:
        """Change state; an illegal move is our bug."""
        assert (self.state, state) in TRANSITIONS, f"request {self.request.id}: {self.state} to {state}"
        self.state = state


def total(requests: Sequence[Request]) -> tuple[int, float]:
    """Rows of these requests together, and the work of a row of the dearest."""
    if len(requests) == 1:
        return requests[0].rows, requests[0].work
    return sum([request.rows for request in requests]), max([request.work for request in requests])


class BatchInFlight:
    """A batch sent to an executor and not yet back."""

    __slots__ = (
        "batch_id",
        "expected_ns",
        "is_first",
        "latest_ns",
        "predicted_end_ns",
        "rows",
        "sent_ns",
        "spec",
        "stopping",
        "tickets",
        "work",
    )

    def __init__(
        self,
        *,
        batch_id: int,
        spec: ModelSpec,
        tickets: tuple[Ticket, ...],
        rows: int,
        work: float,
        expected_ns: int,
        sent_ns: int,
        latest_ns: int,
        predicted_end_ns: int,
    ) -> None:
        self.batch_id = batch_id
        self.spec = spec
        self.tickets = tickets
        self.rows = rows
        self.work = work
        self.expected_ns = expected_ns
        self.sent_ns = sent_ns
        self.latest_ns = latest_ns
        self.predicted_end_ns = predicted_end_ns
        self.stopping = False
        self.is_first = True
        """Whether it found its executor idle."""


class ExecutorView:
    """What is known of one executor: its memory, and what it was sent and has not answered."""

    __slots__ = ("_begin_ns", "_queued_ns", "batches", "is_replacing", "leaving", "loads", "name", "residency")

    def __init__(self, name: str, memory_bytes: int, page_bytes: int) -> None:
        self.name = name
        self.residency = Residency(memory_bytes, page_bytes)
        self.batches: deque[BatchInFlight] = deque()
        self.loads: dict[int, LoadInFlight] = {}
        self.leaving: dict[str, None] = {}
        self.is_replacing = False
        self._begin_ns = 0
        self._queued_ns = 0

    def can_run(self, model: str) -> bool:
        """Whether a batch of the model may be sent: it is ready, and neither it nor the executor is on its way out."""
        return self.residency.is_ready(model) and model not in self.leaving and not self.is_replacing

    def free_ns(self, now_ns: int) -> int:
        """When all that was sent will have run; now for an idle executor, and for one that is overdue."""
        if not self.batches:
            return now_ns
        free_ns = self._begin_ns + self._queued_ns
        return max(now_ns, free_ns)

    def begin_ns(self) -> int:
        """When the batch at the head began, as far as is known; meaningless for an idle executor."""
        return self._begin_ns

    def uses(self, model: str) -> bool:
        """Whether a batch of the model is on its way or running here."""
        return bool(self.batches) and any(batch.spec.id == model for batch in self.batches)

    def add(self, batch: BatchInFlight) -> None:
        """Note that a batch was sent."""
        batch.is_first = not self.batches
        if batch.is_first:
            self._begin_ns = batch.sent_ns
        self.batches.append(batch)
        self._queued_ns += batch.expected_ns

    def expect_end(self, batch: BatchInFlight, end_ns: int) -> None:
        """Expect the batch at the head to be back at `end_ns`, because it was told to stop."""
        shorter_ns = max(0, end_ns - self._begin_ns)
        self._queued_ns += shorter_ns - batch.expected_ns
        batch.expected_ns = shorter_ns

    def remove(self, batch_id: int, ended_ns: int) -> BatchInFlight | None:
        """Note that a batch is back; None if it is unknown here."""
        batches = self.batches
        for batch in batches:
            if batch.batch_id == batch_id:
                batches.remove(batch)
                self._queued_ns -= batch.expected_ns
                self._begin_ns = max(ended_ns, batches[0].sent_ns) if batches else ended_ns
                return batch
        return None

    def remove_load(self, load_id: int, ended_ns: int) -> LoadInFlight | None:
        """Note that a load is back; those behind it follow from there. None if it is unknown here."""
        load = self.loads.pop(load_id, None)
        if load is not None:
            for other in self.loads.values():
                ended_ns = other.predicted_end_ns = max(ended_ns, other.sent_ns) + other.expected_ns
        return load


class LoadInFlight:
    """A load sent to an executor and not yet back."""

    __slots__ = ("expected_ns", "load_id", "model", "predicted_end_ns", "sent_ns")

    def __init__(self, load_id: int, model: str, sent_ns: int, expected_ns: int, predicted_end_ns: int) -> None:
        self.load_id = load_id
        self.model = model
        self.sent_ns = sent_ns
        self.expected_ns = expected_ns
        self.predicted_end_ns = predicted_end_ns


class ModelView:
    """A model on offer. `broken` says why it cannot be loaded, where it cannot."""

    __slots__ = ("broken", "spec")

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.broken = ""


class View:
    """Everything a scheduler may look at."""

    def __init__(self, estimates: Estimates) -> None:
        self.estimates = estimates
        self.tickets: dict[int, Ticket] = {}
        self.models: dict[str, ModelView] = {}
        self.executors: dict[str, ExecutorView] = {}
        self._copies: dict[str, int] = {}
        """How many executors hold each model that any does."""

    def copies(self, model: str) -> int:
        """How many executors hold a model, or are loading it."""
        return self._copies.get(model, 0)

    def is_elsewhere(self, model: str, executor: ExecutorView) -> bool:
        """Whether another executor holds a model, or is loading it."""
        return self._copies.get(model, 0) > (1 if executor.residency.is_here(model) else 0)

    def note_copy(self, model: str) -> None:
        """One more executor holds a model."""
        self._copies[model] = self._copies.get(model, 0) + 1

    def note_copy_gone(self, model: str) -> None:
        """One executor less holds a model."""
        self._copies[model] -= 1
        if not self._copies[model]:
            del self._copies[model]

    def load_wait_ns(self, executor: ExecutorView, now_ns: int) -> int:
        """How long until the loads under way at an executor are done; 0 if that is overdue."""
        if not executor.loads:
            return 0
        return max([0, *[load.predicted_end_ns - now_ns for load in executor.loads.values()]])
