"""First in, first out: batch what waits, refuse nothing. What most servers do, and our proof that tests can fail."""

from __future__ import annotations

from slotwise.facts.events import Event
from slotwise.facts.types import Reason, Refusal
from slotwise.facts.value import value
from slotwise.policy.scheduling import Choice, Run
from slotwise.policy.serving import Serving, ServingSettings
from slotwise.policy.view import Ticket, View


@value
class FifoSettings:
    """`queue_max` requests of a model may wait; 0 is no bound."""

    queue_max: int = 0
    serving: ServingSettings = ServingSettings()


class Fifo:
    """Serves whoever came first, in batches of the same model, late or not."""

    def __init__(self, view: View, settings: FifoSettings) -> None:
        self._view = view
        self._settings = settings
        self._serving = Serving(view, settings.serving, lambda ticket: ticket.request.arrival_ns)

    def arrived(self, ticket: Ticket, now_ns: int) -> Refusal | None:
        """Take everything in, up to the queue's bound."""
        model, queue_max = ticket.request.model, self._settings.queue_max
        if queue_max and not ticket.attempts and self._serving.queues.length(model) >= queue_max:
            return Refusal(reason=Reason.QUEUE_FULL, message=f"{queue_max} requests wait for {model}")
        self._serving.put(ticket, now_ns)
        return None

    def withdrawn(self, ticket: Ticket, now_ns: int) -> None:
        """Forget a request that has ended."""
        self._serving.queues.remove(ticket)

    def noted(self, event: Event, now_ns: int) -> None:
        """Loads and executors matter; the queue does not care."""
        self._serving.noted(event)

    def choose(self, now_ns: int) -> Choice | None:
        """Give each executor that is about to run dry the model whose head has waited longest."""
        turn = self._serving.turn(now_ns)
        if turn is None:
            return self._serving.place(now_ns)
        model = turn.line[0]
        tickets = self._serving.queues.take(turn.line, self._view.models[model].spec.batch_max)
        return Run(executor=turn.executor, model=model, tickets=tickets)

    def due_ns(self, now_ns: int) -> int:
        """When the next executor is about to run dry, if anything waits."""
        return self._serving.due_ns(now_ns)
