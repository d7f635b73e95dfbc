"""Earliest deadline first, over all models: batch what waits, give up what is past its deadline when its turn comes.

There is no admission: under overload everything is taken in, and time goes to requests that are about to be late.
"""

from __future__ import annotations

from slotwise.facts.events import Event
from slotwise.facts.types import Reason, Refusal
from slotwise.facts.value import value
from slotwise.policy.scheduling import Choice, Drop, Run
from slotwise.policy.serving import Serving, ServingSettings
from slotwise.policy.view import Ticket, View


@value
class EdfSettings:
    """How executors are kept busy."""

    serving: ServingSettings = ServingSettings()


class Edf:
    """Serves whoever is due first."""

    def __init__(self, view: View, settings: EdfSettings) -> None:
        self._view = view
        self._serving = Serving(view, settings.serving, lambda ticket: ticket.request.deadline_ns)

    def arrived(self, ticket: Ticket, now_ns: int) -> Refusal | None:
        """Take everything in."""
        self._serving.put(ticket, now_ns)
        return None

    def withdrawn(self, ticket: Ticket, now_ns: int) -> None:
        """Forget a request that has ended."""
        self._serving.queues.remove(ticket)

    def noted(self, event: Event, now_ns: int) -> None:
        """Loads and executors matter; the queue does not care."""
        self._serving.noted(event)

    def choose(self, now_ns: int) -> Choice | None:
        """Give each executor that is about to run dry the model whose head is due first, unless that is too late."""
        turn = self._serving.turn(now_ns)
        if turn is None:
            return self._serving.place(now_ns)
        queues, model = self._serving.queues, turn.line[0]
        head = queues.head(turn.line)
        if head.request.deadline_ns <= now_ns:
            queues.remove(head)
            return Drop(ticket=head, reason=Reason.EXPIRED, message="its deadline passed while it waited")
        tickets = queues.take(turn.line, self._view.models[model].spec.batch_max)
        return Run(executor=turn.executor, model=model, tickets=tickets)

    def due_ns(self, now_ns: int) -> int:
        """When the next executor is about to run dry, if anything waits."""
        return self._serving.due_ns(now_ns)
