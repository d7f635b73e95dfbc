"""Who gives way when there is no place for a request: a batch that can run again, or requests of lower priority.

A running batch is stopped only if the tight request then makes it, the batch can run again in time, and the time
that is lost is worth less than the answer. A batch that waits behind another has lost nothing yet, so it is
simply taken back. Requests are displaced only by such of higher priority.
"""

from __future__ import annotations

from collections.abc import Callable

from slotwise.facts.types import ModelSpec
from slotwise.policy.offers import Answer
from slotwise.policy.promises import Promises
from slotwise.policy.scheduling import Stop
from slotwise.policy.timetable import Slot
from slotwise.policy.view import ExecutorView, Ticket, TicketState, View


def preempt(
    view: View, promises: Promises, executor: ExecutorView, spec: ModelSpec, ticket: Ticket, per_ns: float, now_ns: int
) -> Stop | None:
    """Promise the request a place where the newest batch under way is stopped; None where that is no use.

    `per_ns` is what executor time is worth.
    """
    if not executor.batches or any(batch.stopping for batch in executor.batches):
        return None
    batch = executor.batches[-1]
    is_running = len(executor.batches) == 1
    victims = [other for other in batch.tickets if other.state is TicketState.RUNNING]
    deadline_ns = ticket.request.deadline_ns
    if not victims or min(other.request.deadline_ns for other in victims) <= deadline_ns:
        return None
    if victims[0].request.id in promises:
        return None  # it is to be stopped already, for another request of this very turn
    cost_ns = view.estimates.run_ns(executor.name, spec, ticket.request.rows, ticket.request.work)
    if is_running:
        free_ns = now_ns + batch.spec.profile.stop_ns
        wasted_ns = free_ns - executor.begin_ns()
        is_gain = free_ns < executor.free_ns(now_ns)
    else:
        # The stop must be there before the batch begins.
        free_ns = executor.free_ns(now_ns) - batch.expected_ns
        wasted_ns = 0
        is_gain = free_ns > now_ns + 2 * view.estimates.margin_ns(executor.name)
    if not is_gain or ticket.request.worth(spec) < per_ns * (cost_ns + wasted_ns):
        return None
    base_ns = free_ns + view.estimates.margin_ns(executor.name) + view.estimates.way_ns(executor.name, spec.id)
    table = promises.tables[executor.name]
    if base_ns + cost_ns > deadline_ns:
        return None
    slot = Slot(spec, [ticket], cost_ns)
    again = promises.keep_place(executor, batch, victims)
    promises.put(table, slot)
    promises.put(table, again)
    if base_ns > table.room_ns(0):
        promises.take_slot(table, slot)
        promises.take_slot(table, again)
        return None
    return Stop(executor=executor.name, batch=batch)


def displace(
    promises: Promises, executor: ExecutorView, ticket: Ticket, find: Callable[[], Answer]
) -> tuple[Answer, list[Slot]] | None:
    """Take slots of lower priority out, the least worth first, until `find` has a place; or put them back."""
    table = promises.tables[executor.name]
    lower = [
        slot
        for slot in table.slots
        if slot.can_run() and all(other.request.priority > ticket.request.priority for other in slot.tickets)
    ]
    lower.sort(key=lambda slot: slot.worth() / slot.cost_ns)
    removed: list[Slot] = []
    for slot in lower:
        promises.take_slot(table, slot)
        removed.append(slot)
        answer = find()
        if answer.best is not None:
            return answer, removed
    for slot in removed:
        promises.put(table, slot)
    return None
