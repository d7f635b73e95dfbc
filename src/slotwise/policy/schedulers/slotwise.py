"""Slotwise's own scheduler: every request gets a slot of time on an executor when it arrives, or is told no.

On arrival, each executor that holds the model is asked whether its timetable has a place (`policy/offers`): in
a batch that is planned already, where the profile says that company pays, or in a slot of its own. The promise
that costs others least (`policy/reserve`) is made, if it keeps all others and is worth its cost. Where there is no
place, another may have to give way (`policy/yielding`) or the model be loaded in time; else the request is refused at
once, with the time at which it would have been answered. Under scarcity, demand sets a price for executor time
(`policy/demand`), and what is worth less, or costs more, is refused so that more can be answered
(`policy/rationing`). Where memory is short, requests that find no place bid for loads and time instead
(`slotwise_auction`). Executors run their timetables in order, a little ahead, so that none runs dry; idle ones take
over from busy ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from slotwise.facts.events import (
    BatchDone,
    BatchFailed,
    Event,
    ExecutorLost,
    ExecutorUp,
    Loaded,
    LoadFailed,
    ModelAdded,
    ModelRemoved,
    Woke,
)
from slotwise.facts.types import FOREVER_NS, ModelSpec, Reason, Refusal, Request
from slotwise.facts.units import MS, US
from slotwise.facts.value import value
from slotwise.policy import offers, yielding
from slotwise.policy.demand import CREDIT_MAX, Demand, DemandSettings, KindDemand
from slotwise.policy.offers import Answer, Lane, Prices
from slotwise.policy.placement import Placement, PlacementSettings
from slotwise.policy.promises import Promises
from slotwise.policy.rationing import Rationing
from slotwise.policy.reserve import Reserve, ReserveSettings
from slotwise.policy.schedulers.slotwise_auction import Auction, AuctionSettings
from slotwise.policy.scheduling import IN_FLIGHT_MAX, Choice, Drop, LoadModel, Run, Stop, UnloadModel
from slotwise.policy.stranded import Stranded
from slotwise.policy.timetable import Slot, Timetable
from slotwise.policy.view import ExecutorView, Ticket, View


@value
class SlotwiseSettings:
    """`ahead_ns` of work may lie at an executor. Batching pays where a row more costs at most `pays_at` of it alone."""

    ahead_ns: int = 150 * US
    pays_at: float = 0.95
    batch_ns: int = 50 * US
    """What a batch costs beside its run: to be sent, to wake the executor, to be taken back."""
    slots_max: int = 2_000
    """Slots that one executor may be promised to; one more is refused."""
    can_preempt: bool = True
    prompt_share: float = 0.25
    """In a burst, those who would be answered within this share of their allowance are served beyond their share."""
    headroom: float = 0.5
    """How long the backlog may be for a kind that is served in part only, beside its slack."""
    take_over: float = 0.5
    """What of the price of time an idle executor saves where it takes work over, beside what it costs others there."""
    long_shot: float = 0.0
    """What one is worth, of an answer, that is in time only if the way to another machine is short; 0 tries none."""
    no_executor_retry_ns: int = 500 * MS
    """When to come again where no executor can hold the model."""
    retry_ns_min: int = 1 * MS
    demand: DemandSettings = DemandSettings()
    reserve: ReserveSettings = ReserveSettings()
    placement: PlacementSettings = PlacementSettings()
    auction: AuctionSettings = AuctionSettings()


class Slotwise:
    """Promises slots and keeps them."""

    def __init__(self, view: View, settings: SlotwiseSettings) -> None:
        self._view = view
        self._settings = settings
        self._promises = Promises(view)
        self._stranded = Stranded()
        self._demand = Demand(settings.demand)
        self._rationing = Rationing(view, self._demand, prompt_share=settings.prompt_share, headroom=settings.headroom)
        self._reserve = Reserve(settings.reserve)
        self._auction = Auction(
            view, settings.auction, self._demand, self._promises.tables, self._stranded, self._promise_bidder
        )
        self._placement = Placement(
            view, self._demand, settings.placement, self._promises.is_waiting, auction=self._auction
        )
        self._choices: deque[Drop | Stop] = deque()
        self._lanes: list[Lane] = []
        """Every executor that is up, in the order of coming."""
        self._prices = self._prices_now()

    # Questions from the controller

    def arrived(self, ticket: Ticket, now_ns: int) -> Refusal | None:
        """Promise a slot, or say why there is none."""
        if ticket.request.id in self._promises:
            return None  # its place was kept when its batch was stopped
        spec = self._view.models[ticket.request.model].spec
        if ticket.is_promised:
            return self._promise(spec, ticket, self._find(spec, ticket, now_ns), now_ns)
        kind = self._note_demand(spec, ticket, now_ns)
        answer = self._find(spec, ticket, now_ns)
        if self._auction.is_open(now_ns):
            return self._admit(spec, ticket, answer, now_ns)
        self._reserve.note(answer.bids, kind.worth)
        if not self._rationing.takes(kind, spec, ticket, answer, now_ns):
            self._demand.note_refused(kind)
            return self._refuse_overloaded(spec, ticket.request, answer, now_ns)
        refusal = self._promise(spec, ticket, answer, now_ns)
        if refusal is None:
            kind.spend_credit(max(CREDIT_MAX, spec.batch_max))
            self._demand.note_placed(kind, answer.best.added_ns if answer.best is not None else round(kind.cost_ns))
        elif answer.is_shut_out or answer.is_feasible:
            self._demand.note_unplaced(kind)
        return refusal

    def withdrawn(self, ticket: Ticket, now_ns: int) -> None:
        """Take a request out of its slot."""
        if ticket.request.id in self._promises:
            self._promises.take(ticket)
        elif ticket.request.id in self._auction.bids:
            self._auction.bids.take(ticket)
        elif ticket.request.id in self._stranded:
            self._leave(ticket)

    def noted(self, event: Event, now_ns: int) -> None:
        """Follow batches, executors and models as they come and go."""
        self._placement.noted(event)
        if type(event) is Woke:
            return
        match event:
            case BatchDone() | BatchFailed():
                self._demand.note_busy(event.ended_ns - event.started_ns, now_ns)
                self._promises.clear_kept()
                self._auction.fill(self._view.executors[event.executor], now_ns)
            case ExecutorUp():
                self._open_lane(self._view.executors[event.executor])
                self._place_again(self._stranded.take_all(), now_ns)
            case ExecutorLost():
                self._lanes = [lane for lane in self._lanes if lane.executor.name != event.executor]
                self._reserve.remove(event.executor)
                lost = self._promises.take_executor(event.executor)
                self._place_again(lost + self._stranded.take_executor(event.executor), now_ns)
            case Loaded() | LoadFailed():
                self._place_again(self._stranded.take_all((event.executor, event.model)), now_ns)
                self._sell_time(event.model, now_ns)
            case ModelAdded():
                # Where it was promised it may be on its way out, and it may cost something else now.
                model = event.spec.id
                unpromised = self._stranded.take_model(model) + self._auction.bids.take_model(model)
                self._place_again(self._promises.take_model(model) + unpromised, now_ns)
            case ModelRemoved():
                self._demand.forget(event.model)

    def choose(self, now_ns: int) -> Choice | None:
        """Say who is dropped and what is stopped, run what is due, then see to the memory."""
        if self._choices:
            return self._choices.popleft()
        outbid = self._auction.outbid(now_ns)
        if outbid is not None:
            message = "memory is short and loads and time go to other requests, which make better use of them"
            return Drop(ticket=outbid, reason=Reason.OVERLOADED, message=message)
        expired = self._stranded.first_expired(now_ns)
        if expired is not None:
            self._leave(expired)
            return Drop(ticket=expired, reason=Reason.EXPIRED, message="its model was not ready in time")
        if len(self._promises):
            busy = [lane for lane in self._lanes if lane.table.slots]
            for lane in self._lanes:
                if lane.is_hungry(now_ns):
                    choice = self._feed(lane, busy, now_ns)
                    if choice is not None:
                        return choice
        return self._place(now_ns)

    def due_ns(self, now_ns: int) -> int:
        """When the next executor with something to do is about to run dry, or one that waits for a load expires."""
        waiting_ns = min(self._stranded.due_ns(), self._auction.bids.due_ns())
        due_ns = min(waiting_ns, self._placement.due_ns())
        if not len(self._promises):
            return due_ns
        for lane in self._lanes:
            if lane.table.slots and len(lane.executor.batches) < IN_FLIGHT_MAX:
                at_ns = lane.executor.free_ns(now_ns) - lane.ahead_ns
                if now_ns < at_ns < due_ns:
                    due_ns = at_ns
        return due_ns

    # Promises

    def _find(self, spec: ModelSpec, ticket: Ticket, now_ns: int) -> Answer:
        return offers.find(self._lanes, self._prices, spec, ticket, now_ns)

    def _prices_now(self) -> Prices:
        settings = self._settings
        return Prices(per_ns=self._demand.saved_per_ns, pays_at=settings.pays_at, batch_ns=settings.batch_ns)

    def _promise(self, spec: ModelSpec, ticket: Ticket, answer: Answer, now_ns: int) -> Refusal | None:
        if answer.best is not None:
            self._promises.accept(spec, ticket, answer.best)
            return None
        if answer.is_feasible:
            return self._refuse_overloaded(spec, ticket.request, answer, now_ns)
        if self._make_way(spec, ticket, now_ns):
            return None
        return self._load_in_time(spec, ticket, answer, now_ns)

    def _load_in_time(self, spec: ModelSpec, ticket: Ticket, answer: Answer, now_ns: int) -> Refusal | None:
        """No executor that holds the model has a place: load it elsewhere if that is in time, else refuse."""
        if ticket.is_promised and not self._view.executors:
            self._stranded.put(ticket)
            return None
        deadline_ns = ticket.request.deadline_ns
        can_bid = False
        for executor in self._view.executors.values():
            can_hold = self._placement.can_hold if ticket.is_promised else self._placement.fits
            if executor.can_run(spec.id) or not can_hold(executor, spec):
                continue
            berth = (executor.name, spec.id)
            table, queued = self._promises.tables[executor.name], len(self._stranded.at(berth))
            end_ns = offers.end_after_load_ns(self._view, self._placement, executor, table, queued, ticket, now_ns)
            answer.earliest_end_ns = min(answer.earliest_end_ns, end_ns)
            has_room = executor.residency.is_here(spec.id) or executor.residency.can_load(spec.profile.memory_bytes)
            if end_ns <= deadline_ns and (ticket.is_promised or has_room):
                self._stranded.put(ticket, berth)
                self._placement.want(executor.name, spec.id, deadline_ns)
                return None
            can_bid = can_bid or end_ns <= deadline_ns
        if can_bid:
            self._auction.bid(ticket, spec, now_ns)
            self._placement.look_at(spec.id)
            return None
        if self._try_idle(spec, ticket, now_ns):
            return None
        if not self._placement.is_anywhere(spec.id):
            self._placement.miss(spec.id, now_ns)
            if not any(e.residency.can_load(spec.profile.memory_bytes) for e in self._view.executors.values()):
                self._auction.open(now_ns)
        return self._refuse_infeasible(spec, ticket.request, answer)

    def _try_idle(self, spec: ModelSpec, ticket: Ticket, now_ns: int) -> bool:
        """Estimates alone speak against an idle executor: doubt them, or they are never put to the test again.

        Where only the way to another machine may take too long, try it (`long_shot`) while there is time for all.
        """
        request, long_shot = ticket.request, self._settings.long_shot
        for lane in self._lanes:
            executor, known = lane.executor, lane.known
            if executor.free_ns(now_ns) > now_ns or lane.table.slots or not executor.can_run(spec.id):
                continue
            run_ns = known.runs.expected_ns(spec.id, spec, request.rows, request.work)
            is_worth_it = lane.pressure.cost(run_ns) <= long_shot * request.worth(spec)
            may_be_in_time = known.far_ns > 0 and now_ns + run_ns + known.margin_ns <= request.deadline_ns
            if long_shot > 0.0 and may_be_in_time and is_worth_it and not self._demand.price_per_ns:
                slot = Slot(spec, [ticket], run_ns)
                slot.deadline_ns = now_ns + run_ns + known.way_ns(spec.id) + known.margin_ns
                self._promises.put(lane.table, slot)
                return True
            self._view.estimates.doubt(executor.name, spec, request.rows)
        return False

    def _make_way(self, spec: ModelSpec, ticket: Ticket, now_ns: int) -> bool:
        """Stop a batch that can run again, or displace requests of lower priority; whether that made a place."""
        holders = [executor for executor in self._view.executors.values() if executor.can_run(spec.id)]
        if self._settings.can_preempt:
            per_ns = self._demand.price_per_ns
            for executor in holders:
                stop = yielding.preempt(self._view, self._promises, executor, spec, ticket, per_ns, now_ns)
                if stop is not None:
                    self._choices.append(stop)
                    return True
        for executor in holders:
            way = yielding.displace(self._promises, executor, ticket, lambda: self._find(spec, ticket, now_ns))
            if way is not None and way[0].best is not None:
                self._promises.accept(spec, ticket, way[0].best)
                gone = [other for slot in way[1] for other in slot.tickets]
                self._drop_all(gone, Reason.DISPLACED, "it gave way to a request of higher priority")
                return True
        return False

    # Scarce memory

    def _admit(self, spec: ModelSpec, ticket: Ticket, answer: Answer, now_ns: int) -> Refusal | None:
        """Memory is short: a request is promised a place if it pays for it alone, else it bids while it may."""
        offer, request = answer.best, ticket.request
        if answer.earliest_end_ns == FOREVER_NS:
            return self._promise(spec, ticket, answer, now_ns)
        if offer is not None:
            executor = self._view.executors[offer.table.executor]
            if self._auction.pays(executor, spec, request, offer.added_ns, now_ns):
                self._promises.accept(spec, ticket, offer)
                self._auction.join(spec.id, now_ns)
                return None
        if now_ns + spec.profile.expected_ns(request.rows) > request.deadline_ns:
            return self._refuse_infeasible(spec, request, answer)
        self._auction.bid(ticket, spec, now_ns)
        self._placement.look_at(spec.id)
        self._auction.sell_time(spec, now_ns)
        return None

    def _promise_bidder(self, ticket: Ticket, now_ns: int) -> bool:
        """Promise a place to a request that bids, if there is one."""
        spec = self._view.models[ticket.request.model].spec
        offer = self._find(spec, ticket, now_ns).best
        if offer is not None:
            self._promises.accept(spec, ticket, offer)
        return offer is not None

    def _sell_time(self, model: str, now_ns: int) -> None:
        """A model is ready at one more executor, or not on its way there any more."""
        if self._auction.bids.at(model):
            self._auction.sell_time(self._view.models[model].spec, now_ns)

    def _place(self, now_ns: int) -> LoadModel | UnloadModel | None:
        """See to the memory. Those who bid for a load that begins wait for it now."""
        choice = self._placement.choose(now_ns)
        if type(choice) is LoadModel:
            for ticket in self._auction.bids.take_model(choice.model):
                self._stranded.put(ticket, (choice.executor, choice.model))
        return choice

    # Keeping promises

    def _open_lane(self, executor: ExecutorView) -> None:
        """An executor is up. More work may lie at one on another machine, which must not run dry meanwhile."""
        name, known = executor.name, self._view.estimates.of(executor.name)
        table = self._promises.tables[name] = Timetable(name, self._settings.slots_max)
        pressure = self._reserve.add(name)
        self._lanes.append(Lane(executor, table, known, pressure, self._settings.ahead_ns + known.far_ns))

    def _feed(self, lane: Lane, busy: list[Lane], now_ns: int) -> Choice | None:
        executor, table = lane.executor, lane.table
        base_ns = executor.free_ns(now_ns)
        if not table.slots:
            return self._take_over(lane, busy, base_ns, now_ns)
        base_ns += lane.known.way_ns(table.slots[0].spec.id)
        missed = table.first_missed(base_ns)
        if missed is not None:
            return self._give_up(table, missed, base_ns)
        slot = self._first(table, base_ns, now_ns)
        if not slot.can_run():
            return None  # told to stop, and not back yet
        self._gather(table, slot, base_ns)
        return self._run(executor, table, slot)

    def _first(self, table: Timetable, base_ns: int, now_ns: int) -> Slot:
        """The head, or what can wait: the head and another like it have time for it, and others may join meanwhile."""
        head = table.slots[0]
        if not self._demand.saved_per_ns or head.rows >= head.spec.batch_max or head.tickets[0].alone:
            return head
        if self._demand.can_wait(head.key_ns - now_ns) or not self._demand.can_wait(table.last_ns - now_ns):
            return head
        patient = table.slots[table.place_for(now_ns + self._demand.patience_ns)]
        late_ns = base_ns + patient.cost_ns + head.cost_ns + self._view.estimates.margin_ns(table.executor)
        return patient if patient.can_run() and late_ns <= table.room_ns(0) else head

    def _run(self, executor: ExecutorView, table: Timetable, slot: Slot) -> Run:
        self._promises.take_slot(table, slot)
        latest_ns = slot.tickets[0].request.deadline_ns
        if len(slot.tickets) > 1:
            latest_ns = max([ticket.request.deadline_ns for ticket in slot.tickets])
        return Run(executor=executor.name, model=slot.spec.id, tickets=tuple(slot.tickets), latest_ns=latest_ns)

    def _gather(self, table: Timetable, slot: Slot, base_ns: int) -> None:
        """Let later slots of the same model join the one that is about to run, while that pays and harms no other."""
        alike = table.by_model[slot.spec.id]
        if len(alike) == 1 or slot.spec.batch_max == 1 or slot.tickets[0].alone:
            return
        pressure = self._reserve.at(table.executor)
        prices = self._prices
        for other in list(alike):
            rows = slot.rows + other.rows
            if other is slot or other.form != slot.form or rows > slot.spec.batch_max:
                continue
            if other.tickets[0].alone or not other.can_run():
                continue
            total_ns = self._view.estimates.run_ns(table.executor, slot.spec, rows, max(slot.work, other.work))
            added_ns = total_ns - slot.cost_ns
            if added_ns > prices.joins_up_to_ns(other.cost_ns) or base_ns + added_ns > table.room_ns(0):
                continue
            more = pressure.cost(total_ns) - pressure.cost(slot.cost_ns) - pressure.cost(other.cost_ns)
            if more <= prices.per_ns * (other.cost_ns - added_ns):
                self._promises.merge(table, slot, other, total_ns)

    def _give_up(self, table: Timetable, missed: int, base_ns: int) -> Choice | None:
        """Something planned will miss: give up the dearest request up to there (Moore and Hodgson)."""
        candidates = [slot for slot in table.slots[: missed + 1] if slot.can_run()]
        if not candidates:
            return None
        slot = max(candidates, key=lambda slot: slot.cost_ns / slot.worth())
        ticket = min(slot.tickets, key=lambda ticket: ticket.request.worth(slot.spec))
        end_ns = base_ns + table.start_ns(table.position(slot)) + slot.cost_ns
        self._promises.take(ticket)
        message = "what ran before it took longer than was expected"
        return Drop(ticket=ticket, reason=Reason.EXPIRED, message=message, predicted_ns=end_ns)

    def _take_over(self, lane: Lane, busy: list[Lane], base_ns: int, now_ns: int) -> Run | None:
        """One that runs dry takes the first slot that it can start sooner, from the executor with the most to do."""
        executor, per_ns = lane.executor, self._demand.price_per_ns
        owners = [other for other in busy if _has_any_for(other.table, executor)]
        if len(owners) > 1:
            owners.sort(key=lambda other: -other.table.backlog_ns)
        for other in owners:
            table = other.table
            owner_ns = other.executor.free_ns(now_ns)
            for place, slot in enumerate(table.slots):
                is_sooner = base_ns < owner_ns + table.start_ns(place) and base_ns < slot.deadline_ns
                if not is_sooner or not slot.can_run() or not executor.can_run(slot.spec.id):
                    continue
                run_ns = lane.known.runs.expected_ns(slot.spec.id, slot.spec, slot.rows, slot.work)
                run_ns += lane.known.way_ns(slot.spec.id)
                more = self._settings.take_over * per_ns * slot.cost_ns if per_ns else offers.TRIFLE * slot.worth()
                is_worth_it = lane.pressure.cost(run_ns) <= other.pressure.cost(slot.cost_ns) + more
                if is_worth_it and base_ns + run_ns <= slot.deadline_ns:
                    return self._run(executor, table, slot)
        return None

    # Losses and changes

    def _leave(self, ticket: Ticket) -> None:
        """A request waits for a load no more; nor does the load for it, if it was the last."""
        berth = self._stranded.take(ticket)
        if not self._stranded.at(berth):
            self._placement.forgo(*berth)

    def _place_again(self, tickets: Iterable[Ticket], now_ns: int) -> None:
        for ticket in sorted(tickets, key=lambda ticket: ticket.request.deadline_ns):
            spec = self._view.models[ticket.request.model].spec
            refusal = self._promise(spec, ticket, self._find(spec, ticket, now_ns), now_ns)
            if refusal is not None:
                self._drop_all([ticket], Reason.EXPIRED, refusal.message, refusal.predicted_ns)

    def _drop_all(
        self, tickets: Iterable[Ticket], reason: Reason, message: str, predicted_ns: int = FOREVER_NS
    ) -> None:
        for ticket in tickets:
            self._choices.append(Drop(ticket=ticket, reason=reason, message=message, predicted_ns=predicted_ns))

    # Scarcity

    def _note_demand(self, spec: ModelSpec, ticket: Ticket, now_ns: int) -> KindDemand:
        request = ticket.request
        cost_ns = 0.0
        allowance_ns = request.deadline_ns - now_ns
        if not self._demand.knows(spec.id, request.priority, allowance_ns):
            best = spec.profile.best_rows(spec.batch_max)
            cost_ns = spec.profile.expected_ns(best) / best * request.rows
        kind = self._demand.note(spec.id, request.priority, allowance_ns, request.worth(spec), cost_ns, now_ns)
        if self._demand.is_due(now_ns):
            tables = self._promises.tables.values()
            has_patient = all(self._demand.can_wait(table.last_ns - now_ns) for table in tables)
            self._demand.share_out(len(tables), has_patient, now_ns)
            self._prices = self._prices_now()
        self._reserve.settle(now_ns)
        return kind

    def _refuse_overloaded(self, spec: ModelSpec, request: Request, answer: Answer, now_ns: int) -> Refusal:
        return Refusal(
            reason=Reason.OVERLOADED,
            message="demand exceeds capacity and other requests make better use of it",
            predicted_ns=answer.earliest_end_ns,
            retry_after_ns=self._turn_ns(spec, request, answer, now_ns),
        )

    def _turn_ns(self, spec: ModelSpec, request: Request, answer: Answer, now_ns: int) -> int:
        """When one that is refused may come again with better luck, and with others to share a batch with."""
        allowance_ns = request.deadline_ns - now_ns
        if not answer.bids:
            return self._settings.no_executor_retry_ns
        company = self._rationing.company(spec, request, answer.bids[0].executor, now_ns)
        executors = len(self._view.executors)
        return self._demand.turn_ns(request.model, request.priority, allowance_ns, company, executors, now_ns)

    def _refuse_infeasible(self, spec: ModelSpec, request: Request, answer: Answer) -> Refusal:
        settings, earliest_end_ns = self._settings, answer.earliest_end_ns
        if earliest_end_ns == FOREVER_NS:
            message = f"no executor can hold {spec.id} now"
            return Refusal(reason=Reason.NO_EXECUTOR, message=message, retry_after_ns=settings.no_executor_retry_ns)
        late_ns = earliest_end_ns - request.deadline_ns
        return Refusal(
            reason=Reason.INFEASIBLE,
            message=f"it would be answered {late_ns / MS:.1f} ms after its deadline",
            predicted_ns=earliest_end_ns,
            retry_after_ns=max(settings.retry_ns_min, late_ns),
        )


def _has_any_for(table: Timetable, executor: ExecutorView) -> bool:
    """Whether anything in a timetable could run at an executor."""
    return any(executor.can_run(model) for model in table.by_model)
