"""Who was promised which slot: the timetables of all executors, and where in them each request stands.

Both are changed here together, so that they always agree. Nothing here decides what is promised.
"""

from __future__ import annotations

from collections.abc import Iterable

from slotwise.facts.types import ModelSpec
from slotwise.policy.offers import Offer
from slotwise.policy.timetable import Slot, Timetable
from slotwise.policy.view import BatchInFlight, ExecutorView, Ticket, TicketState, View


class Promises:
    """The books of what was promised and not yet sent."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.tables: dict[str, Timetable] = {}
        self._places: dict[int, tuple[Timetable, Slot]] = {}
        self._kept: list[Slot] = []

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._places

    def __len__(self) -> int:
        return len(self._places)

    def accept(self, spec: ModelSpec, ticket: Ticket, offer: Offer) -> None:
        """Promise what was offered."""
        self._places[ticket.request.id] = (offer.table, offer.accept(spec, ticket))

    def put(self, table: Timetable, slot: Slot) -> None:
        """Put a whole slot into a timetable."""
        table.insert(slot)
        for ticket in slot.tickets:
            self._places[ticket.request.id] = (table, slot)

    def take_slot(self, table: Timetable, slot: Slot) -> None:
        """Take a whole slot out."""
        table.remove(slot)
        for ticket in slot.tickets:
            del self._places[ticket.request.id]

    def take(self, ticket: Ticket) -> None:
        """Take one request out."""
        table, slot = self._places.pop(ticket.request.id)
        if len(slot.tickets) == 1:
            table.remove(slot)
            return
        rows = slot.rows - ticket.request.rows
        work = max(other.request.work for other in slot.tickets if other is not ticket)
        table.shrink(slot, ticket, self._view.estimates.run_ns(table.executor, slot.spec, rows, work))

    def merge(self, table: Timetable, slot: Slot, other: Slot, cost_ns: int) -> None:
        """Let all of another slot of the same executor join this one, which then costs `cost_ns`."""
        table.remove(other)
        for ticket in other.tickets:
            table.extend(slot, ticket, cost_ns)
            self._places[ticket.request.id] = (table, slot)

    def keep_place(self, executor: ExecutorView, batch: BatchInFlight, tickets: list[Ticket]) -> Slot:
        """The slot in which those of a batch that is told to stop will run again; to be put by the caller."""
        work = max(ticket.request.work for ticket in tickets)
        rows = sum(ticket.request.rows for ticket in tickets)
        slot = Slot(batch.spec, tickets, self._view.estimates.run_ns(executor.name, batch.spec, rows, work))
        self._kept.append(slot)
        return slot

    def clear_kept(self) -> None:
        """A batch that was told to stop ended all the same: its requests need their kept places no more."""
        if not self._kept:
            return
        for slot in self._kept:
            for ticket in list(slot.tickets):
                if ticket.state is TicketState.ENDED and ticket.request.id in self._places:
                    self.take(ticket)
        self._kept = [slot for slot in self._kept if any(t.state is TicketState.RUNNING for t in slot.tickets)]

    def take_model(self, model: str) -> list[Ticket]:
        """Take every slot of a model out; those of its requests that wait."""
        found = [(table, slot) for table in self.tables.values() for slot in table.slots if slot.spec.id == model]
        for table, slot in found:
            self.take_slot(table, slot)
        return _waiting(slot for _, slot in found)

    def take_executor(self, executor: str) -> list[Ticket]:
        """Take an executor's whole timetable out; those of its requests that wait."""
        table = self.tables.pop(executor)
        slots = list(table.slots)
        for slot in slots:
            self.take_slot(table, slot)
        return _waiting(slots)

    def is_waiting(self, model: str, executor: str) -> bool:
        """Whether an executor was promised to requests of a model."""
        table = self.tables.get(executor)
        return table is not None and model in table.by_model


def _waiting(slots: Iterable[Slot]) -> list[Ticket]:
    return [ticket for slot in slots for ticket in slot.tickets if ticket.state is TicketState.WAITING]
