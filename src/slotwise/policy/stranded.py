"""Requests that were taken in and have no slot yet: for a load they wait, or for any executor at all.

Nothing here decides; it remembers them, by what would help them and by the deadline at which nothing can.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection

from slotwise.facts.types import FOREVER_NS
from slotwise.policy.view import Ticket

Berth = tuple[str, str]
"""An executor, and a model that is to be loaded there."""
NOWHERE: Berth = ("", "")


class Stranded:
    """The books of those without a slot."""

    def __init__(self) -> None:
        self._berths: dict[Berth, dict[int, Ticket]] = {}
        self._berth_of: dict[int, Berth] = {}
        self._deadlines: list[tuple[int, int]] = []

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._berth_of

    def put(self, ticket: Ticket, berth: Berth = NOWHERE) -> None:
        """Let a request wait for a load, or for any executor."""
        request = ticket.request
        self._berths.setdefault(berth, {})[request.id] = ticket
        self._berth_of[request.id] = berth
        heapq.heappush(self._deadlines, (request.deadline_ns, request.id))

    def at(self, berth: Berth) -> Collection[Ticket]:
        """Those that wait there."""
        return self._berths.get(berth, {}).values()

    def take(self, ticket: Ticket) -> Berth:
        """Let a request wait no more; where it waited."""
        berth = self._berth_of.pop(ticket.request.id)
        waiting = self._berths[berth]
        del waiting[ticket.request.id]
        if not waiting:
            del self._berths[berth]
        return berth

    def take_all(self, berth: Berth = NOWHERE) -> list[Ticket]:
        """Let all that wait there wait no more."""
        tickets = list(self._berths.pop(berth, {}).values())
        for ticket in tickets:
            del self._berth_of[ticket.request.id]
        return tickets

    def take_executor(self, executor: str) -> list[Ticket]:
        """Let all that wait for a load at an executor wait no more."""
        return [t for berth in list(self._berths) if berth[0] == executor for t in self.take_all(berth)]

    def take_model(self, model: str) -> list[Ticket]:
        """Let all that wait for a load of a model wait no more."""
        return [t for berth in list(self._berths) if berth[1] == model for t in self.take_all(berth)]

    def first_expired(self, now_ns: int) -> Ticket | None:
        """One whose deadline has come."""
        if self.due_ns() > now_ns:
            return None
        request_id = self._deadlines[0][1]
        return self._berths[self._berth_of[request_id]][request_id]

    def due_ns(self) -> int:
        """The earliest deadline; FOREVER_NS when none waits."""
        deadlines = self._deadlines
        while deadlines:
            deadline_ns, request_id = deadlines[0]
            if request_id in self._berth_of:
                return deadline_ns
            heapq.heappop(deadlines)
        return FOREVER_NS
