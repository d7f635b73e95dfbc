"""Where a request could run, and when it would end there: the feasibility test behind every promise.

Nothing is promised here. An offer says which timetable would take the request, in which slot, what work that
adds, when the request would end, and what it would cost others; the scheduler takes the best one or none.
"""

from __future__ import annotations

import math

from slotwise.facts.types import FOREVER_NS, ModelSpec
from slotwise.policy.estimates import Learned
from slotwise.policy.placement import Placement
from slotwise.policy.reserve import Bid, Pressure, Rivalry
from slotwise.policy.scheduling import IN_FLIGHT_MAX
from slotwise.policy.timetable import Slot, Timetable
from slotwise.policy.view import ExecutorView, Ticket, View

PASSING_ALONE = 0.2
"""The part of the slack behind a place that is room for those before it; of several executors it is left out, which
makes up for that the reserve takes each for freer than it is."""


TRIFLE = 0.05
"""While there is time for all, a cost below this part of what is at stake is none: nobody waits to save it."""


class Lane:
    """An executor as those see it who look for a place: what lies there, what is planned, and what is known of it."""

    __slots__ = ("ahead_ns", "executor", "known", "pressure", "table")

    def __init__(
        self, executor: ExecutorView, table: Timetable, known: Learned, pressure: Pressure, ahead_ns: int
    ) -> None:
        self.executor = executor
        self.table = table
        self.known = known
        self.pressure = pressure
        self.ahead_ns = ahead_ns
        """How much work may lie there."""

    def is_hungry(self, now_ns: int) -> bool:
        """Whether the executor is about to run dry."""
        executor = self.executor
        return (
            len(executor.batches) < IN_FLIGHT_MAX
            and not executor.is_replacing
            and executor.free_ns(now_ns) - now_ns <= self.ahead_ns
        )


class Offer:
    """A place in a timetable: in a slot that is planned already, or (None) in one of its own."""

    __slots__ = ("added_ns", "cost", "end_ns", "slot", "table")

    def __init__(self, table: Timetable, slot: Slot | None, end_ns: int, added_ns: int, cost: float) -> None:
        self.table = table
        self.slot = slot
        self.end_ns = end_ns
        self.added_ns = added_ns
        self.cost = cost
        """What others lose by it, in worth."""

    def accept(self, spec: ModelSpec, ticket: Ticket) -> Slot:
        """Take it: put the request into the timetable."""
        if self.slot is None:
            slot = Slot(spec, [ticket], self.added_ns)
            self.table.insert(slot)
            return slot
        self.table.extend(self.slot, ticket, self.slot.cost_ns + self.added_ns)
        return self.slot


class Answer:
    """What the executors say to a request that is worth so much, where a nanosecond is worth `per_ns`.

    `best` is the best offer that is worth its cost; `is_feasible` tells whether there was any at all; `is_shut_out`
    that what runs already ends too late for the request everywhere, whatever is planned after it. `bids` tell what
    executors make of it, from the first on and as far as anything may depend on one of them. `earliest_end_ns` is when
    it could end if deadlines did not matter.
    """

    __slots__ = ("_per_ns", "_worth", "best", "bids", "earliest_end_ns", "is_feasible", "is_shut_out")

    def __init__(self, worth: float, per_ns: float) -> None:
        self._worth = worth
        self._per_ns = per_ns
        self.best: Offer | None = None
        self.bids: list[Bid] = []
        self.earliest_end_ns = FOREVER_NS
        self.is_feasible = False
        self.is_shut_out = False

    def counted(self, cost: float) -> float:
        """What such a cost counts: a trifle counts nothing while there is time for all."""
        return 0.0 if not self._per_ns and cost <= TRIFLE * self._worth < math.inf else cost

    def is_improved_by(self, end_ns: int, added_ns: int, cost: float) -> bool:
        """Whether such an offer is worth its cost, and costs less, all told, than the best; of equals, ends first."""
        best = self.best
        if cost > self._worth or best is None:
            return cost <= self._worth
        mine, yours = added_ns * self._per_ns + cost, best.added_ns * self._per_ns + best.cost
        if mine != yours:
            return mine < yours
        return end_ns < best.end_ns or (end_ns == best.end_ns and added_ns < best.added_ns)


class Prices:
    """What time is worth, zero while there is enough, and up to which cost a row joins a batch.

    That is `pays_at` of its cost alone, and what a batch costs beside its run.
    """

    __slots__ = ("batch_ns", "pays_at", "per_ns")

    def __init__(self, *, per_ns: float, pays_at: float, batch_ns: int) -> None:
        self.per_ns = per_ns
        self.pays_at = pays_at
        self.batch_ns = batch_ns

    def joins_up_to_ns(self, alone_ns: int) -> int:
        """The most that a row may add to a batch that it joins."""
        return int(alone_ns * self.pays_at) + self.batch_ns


def find(lanes: list[Lane], prices: Prices, spec: ModelSpec, ticket: Ticket, now_ns: int) -> Answer:
    """Ask every executor that can run the model. The best offer costs others least, and of those ends first."""
    request, model = ticket.request, spec.id
    deadline_ns, rows, work = request.deadline_ns, request.rows, request.work
    is_new = not ticket.is_promised
    worth = request.worth(spec) if is_new else math.inf
    answer = Answer(worth, prices.per_ns)
    rivalry = Rivalry(worth)
    can_join = spec.batch_max > 1 and not ticket.alone
    is_asked, is_shut_out = False, True
    passing = PASSING_ALONE if len(lanes) == 1 else 0.0
    for lane in lanes:
        executor, table, known = lane.executor, lane.table, lane.known
        if not executor.can_run(model):
            continue
        is_asked = True
        place = table.place_for(deadline_ns)
        base_ns = executor.free_ns(now_ns) + known.way_ns(model)
        if is_new and known.margin_ns:
            # What is uncertain of each run before it adds up, as independent errors do.
            base_ns += int(known.margin_ns * math.sqrt(place + 1))
        alone_ns = known.runs.expected_ns(model, spec, rows, work)
        is_shut_out = is_shut_out and base_ns + alone_ns > deadline_ns
        end_ns = base_ns + table.start_ns(place) + alone_ns
        is_open = end_ns <= deadline_ns and base_ns + alone_ns <= table.room_ns(place) and not table.is_full
        surplus = 0.0
        if is_open:
            after_ns = end_ns - alone_ns - now_ns - int(passing * (deadline_ns - end_ns))
            cost = lane.pressure.cost(alone_ns, max(0, after_ns))
            surplus = worth - cost
            cost = answer.counted(cost)
            if answer.is_improved_by(end_ns, alone_ns, cost):
                answer.best = Offer(table, None, end_ns, alone_ns, cost)
        else:
            end_ns = max(end_ns, base_ns + table.backlog_ns + alone_ns)
        if can_join and model in table.by_model:
            joined = _join(lane, spec, ticket, base_ns, prices.joins_up_to_ns(alone_ns), now_ns)
            if joined is not None:
                joined.cost = answer.counted(joined.cost)
                if answer.is_improved_by(joined.end_ns, joined.added_ns, joined.cost):
                    answer.best = joined
                surplus = max(surplus, worth - joined.cost)
                is_open = True
        answer.is_feasible = answer.is_feasible or is_open
        if rivalry.is_open():
            surplus = max(0.0, surplus)
            slack_ns = deadline_ns - now_ns - alone_ns
            answer.bids.append(Bid(executor=executor.name, slack_ns=slack_ns, run_ns=alone_ns, surplus=surplus))
            rivalry.add(surplus)
        answer.earliest_end_ns = min(answer.earliest_end_ns, end_ns)
    answer.is_shut_out = is_shut_out and is_asked
    return answer


def _join(lane: Lane, spec: ModelSpec, ticket: Ticket, base_ns: int, added_max_ns: int, now_ns: int) -> Offer | None:
    """The first planned batch that the request can join without harm to anyone promised."""
    request, table = ticket.request, lane.table
    for slot in table.by_model[spec.id]:
        rows = slot.rows + request.rows
        if rows > spec.batch_max or slot.form != request.form or slot.tickets[0].alone:
            continue
        total_ns = lane.known.runs.expected_ns(spec.id, spec, rows, max(slot.work, request.work))
        added_ns = total_ns - slot.cost_ns
        if added_ns > added_max_ns:
            continue
        place = table.position(slot)
        end_ns = base_ns + table.start_ns(place) + total_ns
        if end_ns <= request.deadline_ns and base_ns + added_ns <= table.room_ns(place):
            after_ns = end_ns - total_ns - now_ns
            cost = lane.pressure.cost(total_ns, after_ns) - lane.pressure.cost(slot.cost_ns, after_ns)
            return Offer(table, slot, end_ns, max(1, added_ns), cost)
    return None


def end_after_load_ns(
    view: View,
    placement: Placement,
    executor: ExecutorView,
    table: Timetable,
    queued: int,
    ticket: Ticket,
    now_ns: int,
) -> int:
    """When a request would end at an executor that does not hold its model yet, behind others that wait for it too."""
    request = ticket.request
    spec = view.models[request.model].spec
    way_ns = view.estimates.way_ns(executor.name, spec.id)
    loads = [load for load in executor.loads.values() if load.model == spec.id] if executor.loads else []
    if loads:
        ready_ns = max(now_ns, loads[0].predicted_end_ns + way_ns)
    else:
        ready_ns = now_ns + placement.wait_ns(executor, now_ns) + view.estimates.load_ns(spec) + way_ns
    free_ns = executor.free_ns(now_ns) + table.start_ns(table.place_for(request.deadline_ns))
    run_ns = view.estimates.run_ns(executor.name, spec, request.rows, request.work)
    return max(ready_ns, free_ns) + way_ns + (queued + 1) * run_ns
