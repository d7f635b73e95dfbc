"""Requests whose model is on no executor, and what a load of it would be worth: who gets the link when it is short.

Memory that is too short makes loads scarce, and which of them pay is not known when a request comes: one for which
company comes in time is worth as many answers as there are requests. So such a request is not promised anything. It
bids, together with all others for its model, whenever an executor could load; the model whose load would be worth
most goes first. A request is told no as soon as no load begun now could serve it in time. Nothing is loaded here.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import replace

from slotwise.facts.types import FOREVER_NS, ModelSpec
from slotwise.facts.units import S
from slotwise.facts.value import value
from slotwise.policy.demand import Demand
from slotwise.policy.timetable import Timetable
from slotwise.policy.view import ExecutorView, Ticket, View


@value
class Bid:
    """A load, the requests it would serve in time, and what it is worth with what will be asked afterwards."""

    model: str
    tickets: tuple[Ticket, ...]
    worth: float
    run_ns: int


class Bids:
    """The books of those who bid."""

    def __init__(self, view: View, demand: Demand, tables: Mapping[str, Timetable]) -> None:
        self._view = view
        self._demand = demand
        self._tables = tables
        self._waiting: dict[str, dict[int, Ticket]] = {}
        self._until_ns: dict[int, int] = {}
        self._expiries: list[tuple[int, int, Ticket]] = []

    def __len__(self) -> int:
        return len(self._until_ns)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._until_ns

    def put(self, ticket: Ticket, until_ns: int) -> None:
        """Let a request bid until then."""
        request = ticket.request
        self._waiting.setdefault(request.model, {})[request.id] = ticket
        self._until_ns[request.id] = until_ns
        heapq.heappush(self._expiries, (until_ns, request.id, ticket))

    def take(self, ticket: Ticket) -> None:
        """Let a request bid no more."""
        request = ticket.request
        del self._until_ns[request.id]
        waiting = self._waiting[request.model]
        del waiting[request.id]
        if not waiting:
            del self._waiting[request.model]

    def take_model(self, model: str) -> list[Ticket]:
        """Let all that bid for a model bid no more."""
        tickets = list(self._waiting.get(model, {}).values())
        for ticket in tickets:
            self.take(ticket)
        return tickets

    def mates(self, model: str) -> list[Ticket]:
        """All that bid for a model."""
        return list(self._waiting.get(model, {}).values())

    def put_off(self, ticket: Ticket, until_ns: int) -> None:
        """Let a request bid for longer."""
        self._until_ns[ticket.request.id] = until_ns
        heapq.heappush(self._expiries, (until_ns, ticket.request.id, ticket))

    def first_expired(self, now_ns: int) -> Ticket | None:
        """One that no load can serve in time any more."""
        ticket = self._first()
        return ticket if ticket is not None and self._expiries[0][0] < now_ns else None

    def due_ns(self) -> int:
        """When the next one has bid in vain; FOREVER_NS when none bids."""
        return FOREVER_NS if self._first() is None else self._expiries[0][0] + 1

    def _first(self) -> Ticket | None:
        while self._expiries:
            until_ns, request_id, ticket = self._expiries[0]
            if self._until_ns.get(request_id) == until_ns:
                return ticket
            heapq.heappop(self._expiries)
        return None

    def best_load(self, executor: ExecutorView, per_ns: float, now_ns: int) -> Bid | None:
        """The load that would be worth most at an executor whose link is free and whose time costs `per_ns`."""
        wait_ns = self._view.load_wait_ns(executor, now_ns)
        best: Bid | None = None
        best_key = (0.0, 0)
        for model, waiting in self._waiting.items():
            if executor.residency.is_here(model):
                continue
            spec = self._view.models[model].spec
            bid = self.group(executor, model, now_ns + wait_ns + self._view.estimates.load_ns(spec), now_ns)
            if bid is None or bid.worth <= per_ns * bid.run_ns:
                continue
            key = (bid.worth - per_ns * bid.run_ns + self.keeping(executor, spec, per_ns, now_ns), -bid.tickets[0].request.deadline_ns)
            if best is None or key > best_key:
                best, best_key = replace(bid, worth=key[0]), key
        return best

    def best_here(self, executor: ExecutorView, per_ns: float, now_ns: int) -> Bid | None:
        """The group that makes the best use of executor time, of models that are here, if it pays its price."""
        best: Bid | None = None
        best_key = (0.0, 0)
        for model in self._waiting:
            if not executor.can_run(model):
                continue
            bid = self.group(executor, model, now_ns, now_ns)
            if bid is None or bid.worth < per_ns * bid.run_ns:
                continue
            key = (bid.worth / bid.run_ns, -bid.tickets[0].request.deadline_ns)
            if best is None or key > best_key:
                best, best_key = bid, key
        return best

    def keeping(self, executor: ExecutorView, spec: ModelSpec, per_ns: float, now_ns: int) -> float:
        """What holding a model is worth for as long as the link takes to load memory once over."""
        pages = max(1, executor.residency.pages_needed(spec.profile.memory_bytes))
        turnover_ns = self._view.estimates.load_ns(spec) * executor.residency.pages_total / pages
        return self._demand.per_s(spec.id, now_ns) * turnover_ns / S

    def group(self, executor: ExecutorView, model: str, ready_ns: int, now_ns: int) -> Bid | None:
        """Those of a model that an executor could answer together, if the model is ready then; None if none."""
        estimates, table = self._view.estimates, self._tables[executor.name]
        spec = self._view.models[model].spec
        tickets = sorted(self._waiting[model].values(), key=lambda ticket: ticket.request.deadline_ns)
        tickets = tickets[: spec.batch_max]
        base_ns = executor.free_ns(now_ns)
        while tickets:
            deadline_ns = tickets[0].request.deadline_ns
            place = table.place_for(deadline_ns)
            rows = min(spec.batch_max, sum(ticket.request.rows for ticket in tickets))
            run_ns = estimates.run_ns(executor.name, spec, rows, tickets[0].request.work)
            if max(ready_ns, base_ns + table.start_ns(place)) + run_ns <= deadline_ns:
                if base_ns + run_ns > table.room_ns(place):
                    return None
                worth = sum(ticket.request.worth(spec) for ticket in tickets)
                return Bid(model=model, tickets=tuple(tickets), worth=worth, run_ns=run_ns)
            tickets = tickets[1:]
        return None
