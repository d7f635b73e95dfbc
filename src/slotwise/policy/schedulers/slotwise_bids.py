"""Requests that were promised nothing and wait for their chance: the books, by model and by how long there is one.

A request whose model is on no executor hopes for a load; one whose model is ready, but for which time is too dear,
hopes for company to share a batch with. Nothing here decides who is served.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable

from slotwise.facts.types import FOREVER_NS
from slotwise.policy.view import Ticket

NOBODY: dict[int, Ticket] = {}


class Bids:
    """Those who bid."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[int, Ticket]] = {}
        self._by_count: list[dict[str, None]] = []
        self._until_ns: dict[int, int] = {}
        self._expiries: list[tuple[int, int, Ticket]] = []

    def __len__(self) -> int:
        return len(self._until_ns)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._until_ns

    @property
    def count_max(self) -> int:
        """How many bid for the model that most bid for."""
        while self._by_count and not self._by_count[-1]:
            self._by_count.pop()
        return len(self._by_count)

    def models(self, count: int) -> Iterable[str]:
        """Models that so many requests bid for; at least one."""
        return self._by_count[count - 1]

    def at(self, model: str) -> Collection[Ticket]:
        """Those who bid for a model, in order of coming."""
        return self._waiting.get(model, NOBODY).values()

    def put(self, ticket: Ticket, until_ns: int) -> None:
        """Let a request bid until then; one that bids already may bid for longer."""
        request = ticket.request
        waiting = self._waiting.setdefault(request.model, {})
        if request.id not in waiting:
            self._recount(request.model, len(waiting), len(waiting) + 1)
        waiting[request.id] = ticket
        self._until_ns[request.id] = until_ns
        heapq.heappush(self._expiries, (until_ns, request.id, ticket))

    def take(self, ticket: Ticket) -> None:
        """Let a request bid no more."""
        request = ticket.request
        del self._until_ns[request.id]
        waiting = self._waiting[request.model]
        self._recount(request.model, len(waiting), len(waiting) - 1)
        del waiting[request.id]
        if not waiting:
            del self._waiting[request.model]

    def take_model(self, model: str) -> list[Ticket]:
        """Let all that bid for a model bid no more."""
        tickets = list(self._waiting.pop(model, NOBODY).values())
        self._recount(model, len(tickets), 0)
        for ticket in tickets:
            del self._until_ns[ticket.request.id]
        return tickets

    def _recount(self, model: str, old: int, new: int) -> None:
        if old:
            del self._by_count[old - 1][model]
        while len(self._by_count) < new:
            self._by_count.append({})
        if new:
            self._by_count[new - 1][model] = None

    def first_expired(self, now_ns: int) -> Ticket | None:
        """One that has no chance any more."""
        return self._expiries[0][2] if self.due_ns() <= now_ns else None

    def due_ns(self) -> int:
        """When the next one has no chance any more; FOREVER_NS when none bids."""
        while self._expiries:
            until_ns, request_id, _ = self._expiries[0]
            if self._until_ns.get(request_id) == until_ns:
                return until_ns
            heapq.heappop(self._expiries)
        return FOREVER_NS
