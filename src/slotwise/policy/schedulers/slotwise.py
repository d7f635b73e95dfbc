"""Slotwise's own scheduler: every request gets a slot of time on an executor when it arrives, or is told no.

On arrival, each executor that holds the model (or could load it in time) is asked whether its timetable has a
place (`policy/offers`): in a batch that is planned already, where the profile says that company pays, or in a slot
of its own. The cheapest promise that keeps all others is made. Where there is none, a tight request may stop a
batch that can run again later without harm, or displace requests of lower priority; else it is refused at once,
with the time at which it would have been answered. Under scarcity, demand sets a price for executor time
(`policy/demand`), and what is worth less is refused so that more can be answered. Executors run their timetables
in order, a little ahead, so that none runs dry; idle ones take over from busy ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from slotwise.facts.events import BatchDone, Event, ExecutorLost, ExecutorUp, Loaded, ModelRemoved
from slotwise.facts.types import FOREVER_NS, ModelSpec, Reason, Refusal
from slotwise.facts.units import MS
from slotwise.facts.value import value
from slotwise.policy import offers
from slotwise.policy.demand import Demand, DemandSettings, KindDemand
from slotwise.policy.offers import Offer
from slotwise.policy.placement import Placement, PlacementSettings
from slotwise.policy.scheduling import IN_FLIGHT_MAX, Choice, Drop, Run, Stop
from slotwise.policy.timetable import Slot, Timetable
from slotwise.policy.view import BatchInFlight, ExecutorView, Ticket, TicketState, View


@value
class SlotwiseSettings:
    """`ahead_ns` of work may lie at an executor. Batching pays where a row more costs at most `pays_at` of it alone."""

    ahead_ns: int = 1 * MS
    pays_at: float = 0.95
    slots_max: int = 2_000
    """Slots that one executor may be promised to."""
    can_preempt: bool = True
    demand: DemandSettings = DemandSettings()
    placement: PlacementSettings = PlacementSettings()


class Slotwise:
    """Promises slots and keeps them."""

    def __init__(self, view: View, settings: SlotwiseSettings) -> None:
        self._view = view
        self._settings = settings
        self._demand = Demand(settings.demand)
        self._placement = Placement(view, self._demand, settings.placement, self._is_waiting)
        self._tables: dict[str, Timetable] = {}
        self._slots: dict[int, tuple[Timetable, Slot]] = {}
        self._cold: dict[tuple[str, str], list[Ticket]] = {}
        self._homeless: dict[int, Ticket] = {}
        self._choices: deque[Drop | Stop] = deque()

    # Questions from the controller

    def arrived(self, ticket: Ticket, now_ns: int) -> Refusal | None:
        """Promise a slot, or say why there is none."""
        if ticket.request.id in self._slots:
            return None  # its place was kept when its batch was stopped
        spec = self._view.models[ticket.request.model].spec
        answer = self._find(spec, ticket, now_ns)
        if ticket.is_promised:
            refusal = self._promise(spec, ticket, answer, now_ns)
        else:
            kind = self._note_demand(spec, ticket, now_ns)
            if not kind.take_credit():
                return self._refuse_overloaded(answer)
            refusal = self._promise(spec, ticket, answer, now_ns)
            if refusal is None:
                kind.spend_credit()
                if answer.best is not None:
                    self._demand.note_cost(kind, answer.best.added_ns)
        return refusal

    def withdrawn(self, ticket: Ticket, now_ns: int) -> None:
        """Take a request out of its slot."""
        request_id = ticket.request.id
        if request_id in self._slots:
            self._take_out(ticket)
        elif self._homeless.pop(request_id, None) is None:
            for waiting in self._cold.values():
                if ticket in waiting:
                    waiting.remove(ticket)

    def noted(self, event: Event, now_ns: int) -> None:
        """Follow batches, executors and models as they come and go."""
        self._placement.noted(event)
        if type(event) is BatchDone:
            self._clear_kept_places()
        elif type(event) is ExecutorUp:
            self._tables[event.executor] = Timetable(event.executor)
            homeless, self._homeless = self._homeless, {}
            self._place_again(homeless.values(), now_ns)
        elif type(event) is ExecutorLost:
            self._lose(event.executor, now_ns)
        elif type(event) is Loaded:
            self._place_again(self._cold.pop((event.executor, event.model), ()), now_ns)
        elif type(event) is ModelRemoved:
            self._demand.forget(event.model)

    def choose(self, now_ns: int) -> Choice | None:
        """Say who is dropped and what is stopped, run what is due, then see to the memory."""
        if self._choices:
            return self._choices.popleft()
        for executor in self._view.executors.values():
            if self._is_hungry(executor, now_ns):
                choice = self._feed(executor, now_ns)
                if choice is not None:
                    return choice
        return self._placement.choose(now_ns)

    def due_ns(self, now_ns: int) -> int:
        """When the next executor with something to do is about to run dry."""
        due_ns = FOREVER_NS
        for executor in self._view.executors.values():
            if len(self._tables[executor.name]) and len(executor.batches) < IN_FLIGHT_MAX:
                at_ns = executor.free_ns(now_ns) - self._settings.ahead_ns
                if at_ns > now_ns:
                    due_ns = min(due_ns, at_ns)
        return due_ns

    # Promises

    def _find(self, spec: ModelSpec, ticket: Ticket, now_ns: int) -> offers.Answer:
        return offers.find(
            self._view,
            self._tables,
            spec,
            ticket,
            now_ns,
            pays_at=self._settings.pays_at,
            is_scarce=self._demand.price_per_ns > 0,
        )

    def _promise(self, spec: ModelSpec, ticket: Ticket, answer: offers.Answer, now_ns: int) -> Refusal | None:
        if answer.best is not None:
            self._accept(spec, ticket, answer.best)
            return None
        if self._make_way(spec, ticket, now_ns):
            return None
        return self._without_offer(spec, ticket, answer.earliest_end_ns, now_ns)

    def _accept(self, spec: ModelSpec, ticket: Ticket, offer: Offer) -> None:
        self._slots[ticket.request.id] = (offer.table, offer.accept(spec, ticket))

    def _refuse_overloaded(self, answer: offers.Answer) -> Refusal:
        return Refusal(
            reason=Reason.OVERLOADED,
            message="demand exceeds capacity and other requests need less time for their answer",
            predicted_ns=answer.earliest_end_ns,
            retry_after_ns=self._settings.demand.memory_ns,
        )

    def _without_offer(self, spec: ModelSpec, ticket: Ticket, earliest_end_ns: int, now_ns: int) -> Refusal | None:
        """No executor that holds the model has a place: load it elsewhere if that is in time, else refuse."""
        if ticket.is_promised and not self._view.executors:
            self._homeless[ticket.request.id] = ticket
            return None
        deadline_ns = ticket.request.deadline_ns
        for executor in self._view.executors.values():
            if executor.can_run(spec.id) or not self._placement.can_hold(executor, spec):
                continue
            queued = self._cold.get((executor.name, spec.id), [])
            table = self._tables[executor.name]
            end_ns = offers.end_after_load_ns(self._view, self._placement, executor, table, queued, ticket, now_ns)
            earliest_end_ns = min(earliest_end_ns, end_ns)
            if end_ns <= deadline_ns:
                self._cold.setdefault((executor.name, spec.id), queued).append(ticket)
                if not executor.residency.is_here(spec.id):
                    self._placement.want(executor.name, spec.id, deadline_ns)
                return None
        return _refuse_infeasible(spec, earliest_end_ns, deadline_ns)

    # Making way for the tight and the urgent

    def _make_way(self, spec: ModelSpec, ticket: Ticket, now_ns: int) -> bool:
        """Stop a batch that can run again, or displace requests of lower priority; whether that made a place."""
        for executor in self._view.executors.values():
            if executor.can_run(spec.id) and self._preempt(executor, spec, ticket, now_ns):
                return True
        return any(
            executor.can_run(spec.id) and self._displace(executor, spec, ticket, now_ns)
            for executor in self._view.executors.values()
        )

    def _preempt(self, executor: ExecutorView, spec: ModelSpec, ticket: Ticket, now_ns: int) -> bool:
        """Stop the running batch if the request then makes it, the batch can run again in time, and it is worth it."""
        if not self._settings.can_preempt or len(executor.batches) != 1 or executor.batches[0].stopping:
            return False
        batch = executor.batches[0]
        victims = [other for other in batch.tickets if other.state is TicketState.RUNNING]
        if not victims or min(other.request.deadline_ns for other in victims) <= ticket.request.deadline_ns:
            return False
        stop_ns = batch.spec.profile.stop_ns
        cost_ns = self._view.estimates.run_ns(executor.name, spec, ticket.request.rows, ticket.request.work)
        wasted_ns = now_ns - executor.begin_ns() + stop_ns
        if ticket.request.worth(spec) < self._demand.price_per_ns * (cost_ns + wasted_ns):
            return False
        table = self._tables[executor.name]
        base_ns = now_ns + stop_ns + self._view.estimates.margin_ns(executor.name)
        slot = Slot(spec, ticket, cost_ns)
        again = Slot(batch.spec, victims[0], self._batch_ns(executor, batch))
        again.tickets = victims
        again.rows = sum(other.request.rows for other in victims)
        again.key_ns = again.deadline_ns = min(other.request.deadline_ns for other in victims)
        table.insert(slot)
        table.insert(again)
        if base_ns > table.room_ns(0):
            table.remove(slot)
            table.remove(again)
            return False
        self._slots[ticket.request.id] = (table, slot)
        for other in victims:
            self._slots[other.request.id] = (table, again)
        self._choices.append(Stop(executor=executor.name, batch=batch))
        return True

    def _batch_ns(self, executor: ExecutorView, batch: BatchInFlight) -> int:
        work = max(other.request.work for other in batch.tickets)
        return self._view.estimates.run_ns(executor.name, batch.spec, batch.rows, work)

    def _displace(self, executor: ExecutorView, spec: ModelSpec, ticket: Ticket, now_ns: int) -> bool:
        """Take slots of lower priority out, the least worth first, until the request has a place; or put them back."""
        table = self._tables[executor.name]
        lower = [s for s in table.slots if all(t.request.priority > ticket.request.priority for t in s.tickets)]
        lower.sort(key=lambda slot: sum(t.request.worth(slot.spec) for t in slot.tickets) / slot.cost_ns)
        removed: list[Slot] = []
        for slot in lower:
            table.remove(slot)
            removed.append(slot)
            answer = self._find(spec, ticket, now_ns)
            if answer.best is not None:
                self._accept(spec, ticket, answer.best)
                self._drop_all(removed)
                return True
        for slot in removed:
            table.insert(slot)
        return False

    def _drop_all(self, slots: list[Slot]) -> None:
        for slot in slots:
            for ticket in slot.tickets:
                del self._slots[ticket.request.id]
                self._choices.append(
                    Drop(ticket=ticket, reason=Reason.DISPLACED, message="it gave way to a request of higher priority")
                )

    def _clear_kept_places(self) -> None:
        """A batch that was told to stop ended all the same: its requests need their kept places no more."""
        for table in self._tables.values():
            for slot in list(table.slots):
                for ticket in list(slot.tickets):
                    if ticket.state is TicketState.ENDED:
                        self._take_out(ticket)

    # Keeping promises

    def _is_hungry(self, executor: ExecutorView, now_ns: int) -> bool:
        return (
            len(executor.batches) < IN_FLIGHT_MAX
            and not executor.is_replacing
            and executor.free_ns(now_ns) - now_ns <= self._settings.ahead_ns
        )

    def _feed(self, executor: ExecutorView, now_ns: int) -> Choice | None:
        table = self._tables[executor.name]
        base_ns = executor.free_ns(now_ns)
        if not len(table):
            return self._take_over(executor, base_ns, now_ns)
        missed = table.first_missed(base_ns)
        if missed is not None:
            return self._give_up(table, missed, base_ns)
        slot = table.slots[0]
        if slot.tickets[0].state is not TicketState.WAITING:
            return None  # told to stop, and not back yet
        self._gather(table, slot, base_ns)
        return self._run(executor, table, slot)

    def _run(self, executor: ExecutorView, table: Timetable, slot: Slot) -> Run:
        table.remove(slot)
        for ticket in slot.tickets:
            del self._slots[ticket.request.id]
        return Run(
            executor=executor.name,
            model=slot.spec.id,
            tickets=tuple(slot.tickets),
            latest_ns=max(ticket.request.deadline_ns for ticket in slot.tickets),
        )

    def _gather(self, table: Timetable, slot: Slot, base_ns: int) -> None:
        """Let later slots of the same model join the one that is about to run, while that pays and harms no other."""
        if slot.spec.batch_max == 1 or slot.tickets[0].alone:
            return
        for other in list(table.lines[slot.line]):
            rows = slot.rows + other.rows
            if other is slot or rows > slot.spec.batch_max or other.tickets[0].alone:
                continue
            if other.tickets[0].state is not TicketState.WAITING:
                continue
            total_ns = self._view.estimates.run_ns(table.executor, slot.spec, rows, max(slot.work, other.work))
            added_ns = total_ns - slot.cost_ns
            if added_ns > other.cost_ns * self._settings.pays_at or base_ns + added_ns > table.room_ns(0):
                continue
            table.remove(other)
            for ticket in other.tickets:
                table.extend(slot, ticket, total_ns)
                self._slots[ticket.request.id] = (table, slot)

    def _give_up(self, table: Timetable, missed: int, base_ns: int) -> Choice | None:
        """Something planned will miss: give up the dearest request up to there (Moore and Hodgson)."""
        candidates = [slot for slot in table.slots[: missed + 1] if slot.tickets[0].state is TicketState.WAITING]
        if not candidates:
            return None
        slot = max(candidates, key=lambda slot: slot.cost_ns / sum(t.request.worth(slot.spec) for t in slot.tickets))
        ticket = min(slot.tickets, key=lambda ticket: ticket.request.worth(slot.spec))
        end_ns = base_ns + table.start_ns(table.position(slot)) + slot.cost_ns
        self._take_out(ticket)
        message = "what ran before it took longer than was expected"
        return Drop(ticket=ticket, reason=Reason.EXPIRED, message=message, predicted_ns=end_ns)

    def _take_out(self, ticket: Ticket) -> None:
        table, slot = self._slots.pop(ticket.request.id)
        if len(slot.tickets) == 1:
            table.remove(slot)
            return
        rows = slot.rows - ticket.request.rows
        table.shrink(slot, ticket, self._view.estimates.run_ns(table.executor, slot.spec, rows, slot.work))

    def _take_over(self, executor: ExecutorView, base_ns: int, now_ns: int) -> Run | None:
        """One that runs dry takes the first slot that it can start sooner, from the executor with the most to do."""
        busy = [table for table in self._tables.values() if len(table)]
        for table in sorted(busy, key=lambda table: -table.backlog_ns):
            owner_ns = self._view.executors[table.executor].free_ns(now_ns)
            for place, slot in enumerate(table.slots):
                is_sooner = base_ns < owner_ns + table.start_ns(place) and base_ns + slot.cost_ns <= slot.deadline_ns
                if is_sooner and executor.can_run(slot.spec.id) and slot.tickets[0].state is TicketState.WAITING:
                    return self._run(executor, table, slot)
        return None

    # Losses

    def _lose(self, name: str, now_ns: int) -> None:
        """An executor is gone: find other places for what it was promised to."""
        table = self._tables.pop(name)
        tickets = [ticket for slot in table.slots for ticket in slot.tickets]
        for ticket in tickets:
            del self._slots[ticket.request.id]
        waiting = [ticket for ticket in tickets if ticket.state is TicketState.WAITING]
        for key in [key for key in self._cold if key[0] == name]:
            waiting += self._cold.pop(key)
        self._place_again(waiting, now_ns)

    def _place_again(self, tickets: Iterable[Ticket], now_ns: int) -> None:
        for ticket in list(tickets):
            spec = self._view.models[ticket.request.model].spec
            answer = self._find(spec, ticket, now_ns)
            if answer.best is not None:
                self._accept(spec, ticket, answer.best)
                continue
            refusal = self._without_offer(spec, ticket, answer.earliest_end_ns, now_ns)
            if refusal is not None:
                self._choices.append(
                    Drop(
                        ticket=ticket,
                        reason=Reason.EXPIRED,
                        message=refusal.message,
                        predicted_ns=refusal.predicted_ns,
                    )
                )

    # Scarcity

    def _note_demand(self, spec: ModelSpec, ticket: Ticket, now_ns: int) -> KindDemand:
        request = ticket.request
        best = spec.profile.best_rows(spec.batch_max)
        row_ns = spec.profile.expected_ns(best) / best
        kind = self._demand.note(spec.id, request.priority, request.worth(spec), round(row_ns * request.rows), now_ns)
        if self._demand.is_due(now_ns):
            self._demand.share_out(len(self._view.executors), now_ns)
        return kind

    def _is_waiting(self, model: str, executor: str) -> bool:
        table = self._tables.get(executor)
        return table is not None and any(name == model for name, _ in table.lines)


def _refuse_infeasible(spec: ModelSpec, earliest_end_ns: int, deadline_ns: int) -> Refusal:
    if earliest_end_ns == FOREVER_NS:
        message = f"no executor can hold {spec.id} now"
        return Refusal(reason=Reason.NO_EXECUTOR, message=message, retry_after_ns=500 * MS)
    late_ns = earliest_end_ns - deadline_ns
    return Refusal(
        reason=Reason.INFEASIBLE,
        message=f"it would be answered {late_ns / MS:.1f} ms after its deadline",
        predicted_ns=earliest_end_ns,
        retry_after_ns=max(1 * MS, late_ns),
    )
