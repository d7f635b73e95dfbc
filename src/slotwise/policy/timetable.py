"""One executor's timetable: the batches it has been promised to, in the order in which they will run.

A *slot* is a planned batch. Slots stand by deadline, earliest first, and run back to back from the instant at
which the executor is free (the *base*), so a slot starts at base + the cost of all before it. For every slot the
timetable knows its *room*: how late the base may be before that slot, or any after it, misses. A request can
be promised a place if it meets its own deadline there and the slots behind it have room for its cost; that is
the exact feasibility test for non-preemptive earliest-deadline-first on known costs, in time linear in the
slots (two C-speed passes after a change, one bisection a question). No clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from itertools import accumulate

from slotwise.facts.types import FOREVER_NS, ModelSpec
from slotwise.policy.view import Ticket, TicketState

Line = tuple[str, int]


class Slot:
    """A planned batch of one model and form. `key_ns` is its place in the order, fixed at birth."""

    __slots__ = ("cost_ns", "deadline_ns", "key_ns", "line", "rows", "spec", "tickets", "work")

    def __init__(self, spec: ModelSpec, tickets: list[Ticket], cost_ns: int) -> None:
        requests = [ticket.request for ticket in tickets]
        self.spec = spec
        self.line: Line = (requests[0].model, requests[0].form)
        self.tickets = tickets
        self.rows = sum(request.rows for request in requests)
        self.work = max(request.work for request in requests)
        self.cost_ns = cost_ns
        self.key_ns = self.deadline_ns = min(request.deadline_ns for request in requests)

    def worth(self) -> float:
        """What answering all of it in time is worth."""
        return sum(ticket.request.worth(self.spec) for ticket in self.tickets)

    def can_run(self) -> bool:
        """Whether its requests wait; those of a batch that was told to stop and is not back do not."""
        return self.tickets[0].state is TicketState.WAITING


class Timetable:
    """The slots of one executor."""

    def __init__(self, executor: str, slots_max: int) -> None:
        self.executor = executor
        self.slots_max = slots_max
        self.slots: list[Slot] = []
        self.lines: dict[Line, list[Slot]] = {}
        self.models: Counter[str] = Counter()
        """How many slots each model has."""
        self._keys_ns: list[int] = []
        self._starts_ns: list[int] = [0]
        self._rooms_ns: list[int] = [FOREVER_NS]

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be promised, whatever the deadlines."""
        return len(self.slots) >= self.slots_max

    @property
    def backlog_ns(self) -> int:
        """The cost of all slots together."""
        return self._starts_ns[-1]

    def place_for(self, deadline_ns: int) -> int:
        """Where a slot of that deadline would stand."""
        return bisect_right(self._keys_ns, deadline_ns)

    def start_ns(self, place: int) -> int:
        """When the slot at a place starts, counted from the base."""
        return self._starts_ns[place]

    def room_ns(self, place: int) -> int:
        """The latest base at which the slot at a place and all after it still meet their deadlines."""
        return self._rooms_ns[place]

    def position(self, slot: Slot) -> int:
        """Where a slot stands."""
        return self.slots.index(slot, bisect_right(self._keys_ns, slot.key_ns - 1))

    def insert(self, slot: Slot) -> None:
        """Put a slot in its place."""
        place = self.place_for(slot.key_ns)
        self.slots.insert(place, slot)
        self._keys_ns.insert(place, slot.key_ns)
        self.lines.setdefault(slot.line, []).append(slot)
        self.models[slot.line[0]] += 1
        self._recompute()

    def extend(self, slot: Slot, ticket: Ticket, cost_ns: int) -> None:
        """Let a request join a slot, which costs `cost_ns` from now on."""
        slot.tickets.append(ticket)
        slot.rows += ticket.request.rows
        slot.work = max(slot.work, ticket.request.work)
        slot.cost_ns = cost_ns
        slot.deadline_ns = min(slot.deadline_ns, ticket.request.deadline_ns)
        self._recompute()

    def shrink(self, slot: Slot, ticket: Ticket, cost_ns: int) -> None:
        """Take a request out of a slot with others in it."""
        slot.tickets.remove(ticket)
        slot.rows -= ticket.request.rows
        slot.work = max(other.request.work for other in slot.tickets)
        slot.cost_ns = cost_ns
        slot.deadline_ns = min(other.request.deadline_ns for other in slot.tickets)
        self._recompute()

    def remove(self, slot: Slot) -> None:
        """Take a slot out."""
        place = self.position(slot)
        del self.slots[place], self._keys_ns[place]
        line = self.lines[slot.line]
        line.remove(slot)
        if not line:
            del self.lines[slot.line]
        self.models[slot.line[0]] -= 1
        if not self.models[slot.line[0]]:
            del self.models[slot.line[0]]
        self._recompute()

    def first_missed(self, base_ns: int) -> int | None:
        """The first place whose slot misses its deadline when the executor is free at `base_ns` only."""
        if base_ns <= self._rooms_ns[0]:
            return None
        for place, slot in enumerate(self.slots):
            if base_ns + self._starts_ns[place + 1] > slot.deadline_ns:
                return place
        return None

    def _recompute(self) -> None:
        slots = self.slots
        if len(slots) == 1:  # by far the most usual case where there is no overload
            cost_ns = slots[0].cost_ns
            self._starts_ns = [0, cost_ns]
            self._rooms_ns = [slots[0].deadline_ns - cost_ns, FOREVER_NS]
            return
        starts = list(accumulate([slot.cost_ns for slot in slots], initial=0))
        own = [slot.deadline_ns - start for slot, start in zip(slots, starts[1:], strict=True)]
        self._starts_ns = starts
        self._rooms_ns = list(accumulate(reversed(own), min, initial=FOREVER_NS))[::-1]

    def check(self) -> None:
        """Assert that the books agree with the slots."""
        assert self._keys_ns == [slot.key_ns for slot in self.slots] == sorted(self._keys_ns)
        assert sum(len(line) for line in self.lines.values()) == len(self.slots)
        assert all(slot.tickets and slot.rows == sum(t.request.rows for t in slot.tickets) for slot in self.slots)
