"""Slotwise's own scheduler: every request gets a slot of time on an executor when it arrives, or is told no.

On arrival, each executor that holds the model (or could load it in time) is asked whether its timetable has a
place: in a batch that is planned already, where the profile says that company pays, or in a slot of its own. The
cheapest promise that keeps all others is made; where there is none, the request is refused at once, with the time
at which it would have been answered. Under scarcity, demand sets a price for executor time (`policy/demand`),
and what is worth less than the price is refused so that more can be answered. Executors run their timetables in
order, a little ahead, so that none runs dry; idle ones take over from busy ones.
"""

from __future__ import annotations

from collections import deque

from slotwise.facts.events import Event, ExecutorLost, ExecutorUp, Loaded, ModelRemoved
from slotwise.facts.types import FOREVER_NS, ModelSpec, Reason, Refusal
from slotwise.facts.value import value
from slotwise.policy.demand import Demand, DemandSettings
from slotwise.policy.placement import Placement, PlacementSettings
from slotwise.policy.scheduling import Choice, Drop, Run
from slotwise.policy.timetable import Slot, Timetable
from slotwise.policy.view import ExecutorView, Ticket, View

MS = 1_000_000


@value
class SlotwiseSettings:
    """`ahead_ns` of work may lie at an executor. Batching pays where a row more costs at most `pays_at` of one alone."""

    ahead_ns: int = 1 * MS
    pays_at: float = 0.95
    slots_max: int = 2_000
    """Slots that one executor may be promised to."""
    demand: DemandSettings = DemandSettings()
    placement: PlacementSettings = PlacementSettings()


class Offer:
    """A place that an executor could give: when the request would end, and the work that it adds."""

    __slots__ = ("added_ns", "end_ns", "slot", "table")

    def __init__(self, table: Timetable, slot: Slot | None, end_ns: int, added_ns: int) -> None:
        self.table = table
        self.slot = slot
        self.end_ns = end_ns
        self.added_ns = added_ns


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
        self._drops: deque[Drop] = deque()
        self._credit: dict[str, float] = {}

    # Questions from the controller

    def arrived(self, ticket: Ticket, now_ns: int) -> Refusal | None:
        """Promise a slot, or say why there is none."""
        spec = self._view.models[ticket.request.model].spec
        if not ticket.attempts:
            self._demand.note(spec.id, ticket.request.rows, now_ns)
            if self._demand.is_price_due(now_ns):
                self._set_price(now_ns)
        offer, best_end_ns = self._best_offer(spec, ticket, now_ns)
        if offer is None:
            return self._without_offer(spec, ticket, best_end_ns, now_ns)
        if not ticket.attempts and not self._is_worth(spec, offer, ticket):
            return Refusal(
                reason=Reason.OVERLOADED,
                message="demand exceeds capacity and other requests need less time for their answer",
                predicted_ns=offer.end_ns,
                retry_after_ns=self._settings.demand.memory_ns,
            )
        self._accept(spec, ticket, offer)
        return None

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
        """Follow executors and models as they come and go."""
        self._placement.noted(event)
        if type(event) is ExecutorUp:
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
        """Drop what cannot be kept, run what is due, then see to the memory."""
        if self._drops:
            return self._drops.popleft()
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
            if len(self._tables[executor.name]) and len(executor.batches) < 2:
                at_ns = executor.free_ns(now_ns) - self._settings.ahead_ns
                if at_ns > now_ns:
                    due_ns = min(due_ns, at_ns)
        return due_ns

    # Promises

    def _best_offer(self, spec: ModelSpec, ticket: Ticket, now_ns: int) -> tuple[Offer | None, int]:
        """The best place for a request, and the earliest end that any executor could give it."""
        best: Offer | None = None
        earliest_end_ns = FOREVER_NS
        is_scarce = self._demand.price.per_ns > 0
        for executor in self._view.executors.values():
            if not executor.can_run(spec.id):
                continue
            offer, end_ns = self._offer(executor, spec, ticket, now_ns)
            earliest_end_ns = min(earliest_end_ns, end_ns)
            if offer is not None and (best is None or _rank(offer, is_scarce) < _rank(best, is_scarce)):
                best = offer
        return best, earliest_end_ns

    def _offer(self, executor: ExecutorView, spec: ModelSpec, ticket: Ticket, now_ns: int) -> tuple[Offer | None, int]:
        """What one executor can offer; and when it would end if deadlines did not matter."""
        table = self._tables[executor.name]
        request = ticket.request
        estimates = self._view.estimates
        cost_ns = estimates.run_ns(executor.name, spec, request.rows, request.work)
        base_ns = executor.free_ns(now_ns) + (estimates.margin_ns(executor.name) if not ticket.attempts else 0)
        joined = self._offer_to_join(table, spec, ticket, cost_ns, base_ns) if spec.batch_max > 1 else None
        place = table.place_for(request.deadline_ns)
        end_ns = base_ns + table.start_ns(place) + cost_ns
        if len(table) >= self._settings.slots_max:
            return joined, end_ns
        if end_ns > request.deadline_ns or base_ns + cost_ns > table.room_ns(place):
            return joined, max(end_ns, base_ns + table.backlog_ns + cost_ns)
        alone = Offer(table, None, end_ns, cost_ns)
        if joined is not None and (joined.end_ns <= end_ns or self._demand.price.per_ns > 0):
            return joined, joined.end_ns
        return alone, end_ns

    def _offer_to_join(
        self, table: Timetable, spec: ModelSpec, ticket: Ticket, cost_ns: int, base_ns: int
    ) -> Offer | None:
        request = ticket.request
        if ticket.alone:
            return None
        for slot in table.lines.get((request.model, request.form), ()):
            rows = slot.rows + request.rows
            if rows > spec.batch_max or slot.tickets[0].alone:
                continue
            total_ns = self._view.estimates.run_ns(table.executor, spec, rows, max(slot.work, request.work))
            added_ns = total_ns - slot.cost_ns
            if added_ns > cost_ns * self._settings.pays_at:
                continue
            place = table.position(slot)
            end_ns = base_ns + table.start_ns(place) + total_ns
            if end_ns <= request.deadline_ns and base_ns + added_ns <= table.room_ns(place):
                return Offer(table, slot, end_ns, max(1, added_ns))
        return None

    def _accept(self, spec: ModelSpec, ticket: Ticket, offer: Offer) -> None:
        table, slot = offer.table, offer.slot
        if slot is None:
            slot = Slot(spec, ticket, offer.added_ns)
            table.insert(slot)
        else:
            table.extend(slot, ticket, slot.cost_ns + offer.added_ns)
        self._slots[ticket.request.id] = (table, slot)

    def _without_offer(self, spec: ModelSpec, ticket: Ticket, best_end_ns: int, now_ns: int) -> Refusal | None:
        """No executor that holds the model has a place: load it elsewhere if that is in time, else refuse."""
        if ticket.attempts and not self._view.executors:
            self._homeless[ticket.request.id] = ticket
            return None
        deadline_ns = ticket.request.deadline_ns
        for executor in self._view.executors.values():
            if executor.can_run(spec.id) or not self._placement.can_hold(executor, spec):
                continue
            end_ns = self._end_after_load_ns(executor, spec, ticket, now_ns)
            best_end_ns = min(best_end_ns, end_ns)
            if end_ns <= deadline_ns:
                self._cold.setdefault((executor.name, spec.id), []).append(ticket)
                if not executor.residency.is_here(spec.id):
                    self._placement.want(executor.name, spec.id, deadline_ns)
                return None
        if best_end_ns == FOREVER_NS:
            return Refusal(
                reason=Reason.NO_EXECUTOR, message=f"no executor can hold {spec.id} now", retry_after_ns=500 * MS
            )
        late_ns = best_end_ns - deadline_ns
        return Refusal(
            reason=Reason.INFEASIBLE,
            message=f"it would be answered {late_ns / MS:.1f} ms after its deadline",
            predicted_ns=best_end_ns,
            retry_after_ns=max(1 * MS, late_ns),
        )

    def _end_after_load_ns(self, executor: ExecutorView, spec: ModelSpec, ticket: Ticket, now_ns: int) -> int:
        load = next((load for load in executor.loads.values() if load.model == spec.id), None)
        if load is not None:
            ready_ns = max(now_ns, load.predicted_end_ns)
        else:
            ready_ns = now_ns + self._placement.wait_ns(executor, now_ns) + self._view.estimates.load_ns(spec)
        table = self._tables[executor.name]
        ahead_ns = executor.free_ns(now_ns) + table.start_ns(table.place_for(ticket.request.deadline_ns))
        queued_ns = sum(
            self._view.estimates.run_ns(executor.name, spec, waiting.request.rows, waiting.request.work)
            for waiting in self._cold.get((executor.name, spec.id), ())
        )
        run_ns = self._view.estimates.run_ns(executor.name, spec, ticket.request.rows, ticket.request.work)
        return max(ready_ns, ahead_ns) + queued_ns + run_ns

    # Keeping them

    def _is_hungry(self, executor: ExecutorView, now_ns: int) -> bool:
        return (
            len(executor.batches) < 2
            and not executor.is_replacing
            and executor.free_ns(now_ns) - now_ns <= self._settings.ahead_ns
        )

    def _feed(self, executor: ExecutorView, now_ns: int) -> Choice | None:
        table = self._tables[executor.name]
        base_ns = executor.free_ns(now_ns)
        if len(table):
            missed = table.first_missed(base_ns)
            if missed is not None:
                return self._give_up(table, missed, base_ns)
            return self._run_first(executor, table, base_ns)
        return self._take_over(executor, now_ns)

    def _run_first(self, executor: ExecutorView, table: Timetable, base_ns: int) -> Run:
        slot = table.slots[0]
        self._gather(table, slot, base_ns)
        return self._run_slot(executor, table, slot)

    def _run_slot(self, executor: ExecutorView, table: Timetable, slot: Slot) -> Run:
        table.remove(slot)
        for ticket in slot.tickets:
            del self._slots[ticket.request.id]
        cost_ns = self._view.estimates.run_ns(executor.name, slot.spec, slot.rows, slot.work)
        latest_ns = max(request.request.deadline_ns for request in slot.tickets) - cost_ns // 2
        return Run(executor=executor.name, model=slot.spec.id, tickets=tuple(slot.tickets), latest_ns=latest_ns)

    def _gather(self, table: Timetable, slot: Slot, base_ns: int) -> None:
        """Let later slots of the same model join the one that is about to run, while that pays and harms no other."""
        if slot.spec.batch_max == 1 or slot.tickets[0].alone:
            return
        for other in list(table.lines[slot.line]):
            rows = slot.rows + other.rows
            if other is slot or rows > slot.spec.batch_max or other.tickets[0].alone:
                continue
            total_ns = self._view.estimates.run_ns(table.executor, slot.spec, rows, max(slot.work, other.work))
            added_ns = total_ns - slot.cost_ns
            if added_ns > other.cost_ns * self._settings.pays_at or base_ns + added_ns > table.room_ns(0):
                continue
            table.remove(other)
            for ticket in other.tickets:
                table.extend(slot, ticket, total_ns)
                self._slots[ticket.request.id] = (table, slot)

    def _give_up(self, table: Timetable, missed: int, base_ns: int) -> Drop:
        """Something planned will miss: give up the dearest request up to there (Moore and Hodgson)."""
        slot = max(table.slots[: missed + 1], key=lambda slot: slot.cost_ns / (slot.spec.weight * len(slot.tickets)))
        ticket = max(slot.tickets, key=lambda ticket: ticket.request.work * ticket.request.rows)
        self._take_out(ticket)
        return Drop(
            ticket=ticket,
            reason=Reason.EXPIRED,
            message="what ran before it took longer than was expected",
            predicted_ns=base_ns + table.start_ns(min(missed, len(table))) + slot.cost_ns,
        )

    def _take_out(self, ticket: Ticket) -> None:
        table, slot = self._slots.pop(ticket.request.id)
        if len(slot.tickets) == 1:
            table.remove(slot)
            return
        rows = slot.rows - ticket.request.rows
        table.shrink(slot, ticket, self._view.estimates.run_ns(table.executor, slot.spec, rows, slot.work))

    def _take_over(self, executor: ExecutorView, now_ns: int) -> Run | None:
        """An idle executor takes the first slot that it can run from the executor with the most to do."""
        for table in sorted(self._tables.values(), key=lambda table: -table.backlog_ns):
            owner = self._view.executors.get(table.executor)
            if owner is None or not len(table) or table.executor == executor.name:
                continue
            for slot in table.slots:
                if executor.can_run(slot.spec.id):
                    return self._run_slot(executor, table, slot)
        return None

    # Losses

    def _lose(self, name: str, now_ns: int) -> None:
        """An executor is gone: find other places for what it was promised to."""
        table = self._tables.pop(name)
        tickets = [ticket for slot in table.slots for ticket in slot.tickets]
        for ticket in tickets:
            del self._slots[ticket.request.id]
        for key in [key for key in self._cold if key[0] == name]:
            tickets += self._cold.pop(key)
        self._place_again(tickets, now_ns)

    def _place_again(self, tickets: object, now_ns: int) -> None:
        for ticket in list(tickets):  # type: ignore[call-overload]
            spec = self._view.models[ticket.request.model].spec
            offer, end_ns = self._best_offer(spec, ticket, now_ns)
            if offer is not None:
                self._accept(spec, ticket, offer)
            elif not self._view.executors:
                self._homeless[ticket.request.id] = ticket
            else:
                refusal = self._without_offer(spec, ticket, end_ns, now_ns)
                if refusal is not None:
                    self._drops.append(
                        Drop(ticket=ticket, reason=Reason.EXPIRED, message=refusal.message, predicted_ns=end_ns)
                    )

    # Scarcity

    def _set_price(self, now_ns: int) -> None:
        uses = []
        for model in self._view.models.values():
            spec = model.spec
            best = spec.profile.best_rows(spec.batch_max)
            row_ns = spec.profile.expected_ns(best) / best
            uses.append((spec.weight / row_ns, row_ns, spec.id))
        self._demand.set_price(uses, len(self._view.executors), now_ns)

    def _is_worth(self, spec: ModelSpec, offer: Offer, ticket: Ticket) -> bool:
        """Whether the answer is worth its time at the present price."""
        price = self._demand.price
        if not price.per_ns:
            return True
        worth = spec.weight * ticket.request.rows / offer.added_ns
        return worth >= price.per_ns * 0.999

    def _is_waiting(self, model: str, executor: str) -> bool:
        table = self._tables.get(executor)
        return table is not None and any(name == model for name, _ in table.lines)


def _rank(offer: Offer, is_scarce: bool) -> tuple[int, int]:
    """Least added work first where time is scarce, the earliest end first where it is not."""
    return (offer.added_ns, offer.end_ns) if is_scarce else (offer.end_ns, offer.added_ns)
