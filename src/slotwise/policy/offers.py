"""Where a request could run, and when it would end there: the feasibility test behind every promise.

Nothing is promised here. An offer says which timetable would take the request, in which slot, what work that
adds and when the request would end; the scheduler takes the best one or none.
"""

from __future__ import annotations

from slotwise.facts.types import FOREVER_NS, ModelSpec
from slotwise.policy.placement import Placement
from slotwise.policy.timetable import Slot, Timetable
from slotwise.policy.view import ExecutorView, Ticket, View


class Offer:
    """A place in a timetable: in a slot that is planned already, or (None) in one of its own."""

    __slots__ = ("added_ns", "end_ns", "slot", "table")

    def __init__(self, table: Timetable, slot: Slot | None, end_ns: int, added_ns: int) -> None:
        self.table = table
        self.slot = slot
        self.end_ns = end_ns
        self.added_ns = added_ns

    def accept(self, spec: ModelSpec, ticket: Ticket) -> Slot:
        """Take it: put the request into the timetable."""
        if self.slot is None:
            slot = Slot(spec, ticket, self.added_ns)
            self.table.insert(slot)
            return slot
        self.table.extend(self.slot, ticket, self.slot.cost_ns + self.added_ns)
        return self.slot


class Answer:
    """What the executors say: the best offer, if there is any, and the earliest end if deadlines did not matter."""

    __slots__ = ("best", "earliest_end_ns")

    def __init__(self, best: Offer | None, earliest_end_ns: int) -> None:
        self.best = best
        self.earliest_end_ns = earliest_end_ns


def find(
    view: View,
    tables: dict[str, Timetable],
    spec: ModelSpec,
    ticket: Ticket,
    now_ns: int,
    *,
    pays_at: float,
    is_scarce: bool,
) -> Answer:
    """Ask every executor that can run the model.

    Where time is scarce the offer that adds the least work is best, else the one that ends first. A further row
    joins a planned batch where it costs at most `pays_at` of what it would cost alone.
    """
    best: Offer | None = None
    earliest_end_ns = FOREVER_NS
    for executor in view.executors.values():
        if not executor.can_run(spec.id):
            continue
        table = tables[executor.name]
        margin_ns = 0 if ticket.is_promised else view.estimates.margin_ns(executor.name)
        base_ns = executor.free_ns(now_ns) + margin_ns
        alone_ns = view.estimates.run_ns(executor.name, spec, ticket.request.rows, ticket.request.work)
        place = table.place_for(ticket.request.deadline_ns)
        end_ns = base_ns + table.start_ns(place) + alone_ns
        offers = []
        if end_ns <= ticket.request.deadline_ns and base_ns + alone_ns <= table.room_ns(place):
            offers.append(Offer(table, None, end_ns, alone_ns))
        else:
            end_ns = max(end_ns, base_ns + table.backlog_ns + alone_ns)
        if spec.batch_max > 1 and not ticket.alone:
            joined = _join(view, table, spec, ticket, base_ns, round(alone_ns * pays_at))
            if joined is not None:
                offers.append(joined)
        for offer in offers:
            if best is None or _rank(offer, is_scarce) < _rank(best, is_scarce):
                best = offer
        earliest_end_ns = min(earliest_end_ns, end_ns)
    return Answer(best, earliest_end_ns)


def _rank(offer: Offer, is_scarce: bool) -> tuple[int, int]:
    return (offer.added_ns, offer.end_ns) if is_scarce else (offer.end_ns, offer.added_ns)


def _join(
    view: View, table: Timetable, spec: ModelSpec, ticket: Ticket, base_ns: int, added_max_ns: int
) -> Offer | None:
    """The first planned batch that the request can join without harm to anyone."""
    request = ticket.request
    for slot in table.lines.get((request.model, request.form), ()):
        rows = slot.rows + request.rows
        if rows > spec.batch_max or slot.tickets[0].alone:
            continue
        total_ns = view.estimates.run_ns(table.executor, spec, rows, max(slot.work, request.work))
        added_ns = total_ns - slot.cost_ns
        place = table.position(slot)
        end_ns = base_ns + table.start_ns(place) + total_ns
        if added_ns <= added_max_ns and end_ns <= request.deadline_ns and base_ns + added_ns <= table.room_ns(place):
            return Offer(table, slot, end_ns, max(1, added_ns))
    return None


def end_after_load_ns(
    view: View,
    placement: Placement,
    executor: ExecutorView,
    table: Timetable,
    queued: list[Ticket],
    ticket: Ticket,
    now_ns: int,
) -> int:
    """When a request would end at an executor that does not hold its model yet, behind others that wait for it too."""
    request = ticket.request
    spec = view.models[request.model].spec
    load = next((load for load in executor.loads.values() if load.model == spec.id), None)
    if load is not None:
        ready_ns = max(now_ns, load.predicted_end_ns)
    else:
        ready_ns = now_ns + placement.wait_ns(executor, now_ns) + view.estimates.load_ns(spec)
    free_ns = executor.free_ns(now_ns) + table.start_ns(table.place_for(request.deadline_ns))
    ahead_ns = sum(
        view.estimates.run_ns(executor.name, spec, other.request.rows, other.request.work) for other in queued
    )
    return max(ready_ns, free_ns) + ahead_ns + view.estimates.run_ns(executor.name, spec, request.rows, request.work)
