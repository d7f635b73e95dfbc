"""First in, first out: batch what waits, refuse nothing. What most servers do, and our proof that tests can fail."""

from __future__ import annotations

from slotwise.facts.events import Event
from slotwise.facts.types import FOREVER_NS, Reason, Refusal
from slotwise.facts.value import value
from slotwise.policy.demand import Demand, DemandSettings
from slotwise.policy.placement import Placement, PlacementSettings
from slotwise.policy.queues import Queues
from slotwise.policy.scheduling import Choice, Run
from slotwise.policy.view import Ticket, View


@value
class FifoSettings:
    """`queue_max` requests of a model may wait, None for no bound. `ahead_ns` of work may lie at an executor."""

    queue_max: int | None = None
    ahead_ns: int = 1_000_000
    placement: PlacementSettings = PlacementSettings(evict_waiting=True)


class Fifo:
    """Serves whoever came first, in batches of the same model, late or not."""

    def __init__(self, view: View, settings: FifoSettings) -> None:
        self._view = view
        self._settings = settings
        self._queues = Queues(lambda ticket: ticket.request.arrival_ns)
        self._demand = Demand(DemandSettings())
        self._placement = Placement(
            view, self._demand, settings.placement, lambda model, _executor: self._queues.length(model) > 0
        )

    def arrived(self, ticket: Ticket, now_ns: int) -> Refusal | None:
        """Take everything in, up to the queue's bound."""
        model = ticket.request.model
        self._demand.note(model, ticket.request.priority, 1.0, 1, now_ns)
        queue_max = self._settings.queue_max
        if queue_max is not None and not ticket.attempts and self._queues.length(model) >= queue_max:
            return Refusal(reason=Reason.QUEUE_FULL, message=f"{queue_max} requests wait for {model}")
        self._queues.put(ticket)
        self._want(model)
        return None

    def withdrawn(self, ticket: Ticket, now_ns: int) -> None:
        """Forget a request that has ended."""
        self._queues.remove(ticket)

    def noted(self, event: Event, now_ns: int) -> None:
        """Placement cares; the queue does not."""
        self._placement.noted(event)
        for model in self._queues.models():
            self._want(model)

    def choose(self, now_ns: int) -> Choice | None:
        """Give each executor that is about to run dry the model whose head has waited longest."""
        for executor in self._view.executors.values():
            if len(executor.batches) < 2 and executor.free_ns(now_ns) - now_ns <= self._settings.ahead_ns:
                line = self._queues.first(executor.can_run)
                if line is not None:
                    tickets = self._queues.take(line, self._view.models[line[0]].spec.batch_max)
                    return Run(executor=executor.name, model=line[0], tickets=tickets)
        return self._placement.choose(now_ns)

    def due_ns(self, now_ns: int) -> int:
        """When the next executor is about to run dry, if anything waits."""
        if not len(self._queues):
            return FOREVER_NS
        ends = [e.free_ns(now_ns) - self._settings.ahead_ns for e in self._view.executors.values() if e.batches]
        return min((end for end in ends if end > now_ns), default=FOREVER_NS)

    def _want(self, model: str) -> None:
        """Ask for a copy at every executor when there is none to run on."""
        holders = [e for e in self._view.executors.values() if e.residency.is_here(model)]
        if not holders:
            for executor in self._view.executors.values():
                self._placement.want(executor.name, model, self._queues.head_key_ns(model))
