"""As Clipper does (NSDI 2017): a batch size for each model that grows until batches take too long, then backs off.

Additive increase, multiplicative decrease, against the time from sending a batch to its return. Requests are
served first in, first out and none is refused or dropped, so the size bounds what a batch takes, not what
its requests have waited.
"""

from __future__ import annotations

from slotwise.facts.events import BatchDone, BatchFailed, Event, ExecutorLost, ModelRemoved
from slotwise.facts.types import Refusal
from slotwise.facts.value import value
from slotwise.policy.scheduling import Choice, Run
from slotwise.policy.serving import Serving, ServingSettings
from slotwise.policy.view import BatchInFlight, Ticket, View


@value
class ClipperSettings:
    """A batch size grows by `step_rows` after a full batch in time and is multiplied by `backoff` after a late one."""

    step_rows: float = 1.0
    backoff: float = 0.9
    serving: ServingSettings = ServingSettings()


class Clipper:
    """Serves whoever came first, in batches of a size that it learns."""

    def __init__(self, view: View, settings: ClipperSettings) -> None:
        self._view = view
        self._settings = settings
        self._serving = Serving(view, settings.serving, lambda ticket: ticket.request.arrival_ns)
        self._rows_max: dict[str, float] = {}
        self._sent: Run | None = None
        self._running: dict[str, dict[int, BatchInFlight]] = {}

    def arrived(self, ticket: Ticket, now_ns: int) -> Refusal | None:
        """Take everything in."""
        self._serving.put(ticket, now_ns)
        return None

    def withdrawn(self, ticket: Ticket, now_ns: int) -> None:
        """Forget a request that has ended."""
        self._serving.queues.remove(ticket)

    def noted(self, event: Event, now_ns: int) -> None:
        """Learn from batches; follow loads and executors."""
        self._serving.noted(event)
        match event:
            case BatchDone():
                self._learn(self._running[event.executor].pop(event.batch_id), now_ns)
            case BatchFailed():
                del self._running[event.executor][event.batch_id]
            case ExecutorLost():
                self._running.pop(event.executor, None)
            case ModelRemoved():
                self._rows_max.pop(event.model, None)

    def choose(self, now_ns: int) -> Choice | None:
        """Give each executor that is about to run dry the model whose head has waited longest."""
        self._note_sent()
        turn = self._serving.turn(now_ns)
        if turn is None:
            return self._serving.place(now_ns)
        model = turn.line[0]
        tickets = self._serving.queues.take(turn.line, self.rows_max(model))
        self._sent = Run(executor=turn.executor, model=model, tickets=tickets)
        return self._sent

    def due_ns(self, now_ns: int) -> int:
        """When the next executor is about to run dry, if anything waits."""
        return self._serving.due_ns(now_ns)

    def rows_max(self, model: str) -> int:
        """The batch size that the model has reached."""
        return int(self._rows_max.get(model, 1.0))

    def _note_sent(self) -> None:
        """Our last batch is under way: it has a number now."""
        run, self._sent = self._sent, None
        if run is not None:
            batch = run.tickets[0].batch
            assert batch is not None, "a batch was chosen and not carried out"
            self._running.setdefault(run.executor, {})[batch.batch_id] = batch

    def _learn(self, batch: BatchInFlight, now_ns: int) -> None:
        model, settings = batch.spec.id, self._settings
        rows_max = self._rows_max.get(model, 1.0)
        slo_ns = min(ticket.request.deadline_ns - ticket.request.arrival_ns for ticket in batch.tickets)
        if now_ns - batch.sent_ns > slo_ns:
            self._rows_max[model] = max(1.0, rows_max * settings.backoff)
        elif batch.rows >= int(rows_max):
            self._rows_max[model] = min(float(batch.spec.batch_max), rows_max + settings.step_rows)
