"""One executor's timetable: the batches it has been promised to, in the order in which they will run.

A *slot* is a planned batch. Slots stand by deadline, earliest first, and run back to back from the instant at
which the executor is free (the *base*), so a slot starts at base + the cost of all before it. For every slot the
timetable knows its *room*: how late the base may be before that slot, or any after it, misses. A request can
be promised a place if it meets its own deadline there and the slots behind it have room for its cost; that is
the exact feasibility test for non-preemptive earliest-deadline-first on known costs, and one bisection answers it.

A change works out anew what stands behind it, and before it only as far as rooms really change; what comes last, or
is taken from the head, costs next to nothing. No clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from slotwise.facts.types import FOREVER_NS, ModelSpec, Request
from slotwise.policy.view import Ticket, TicketState, total

AMPLE_NS: Final = FOREVER_NS >> 1
"""The room where nothing stands: beyond any instant, and small enough to be added to without an object of its own."""


class Slot:
    """A planned batch of one model and form. `key_ns` is its place in the order, fixed at birth."""

    __slots__ = ("cost_ns", "deadline_ns", "form", "key_ns", "rows", "spec", "tickets", "work")

    def __init__(self, spec: ModelSpec, tickets: list[Ticket], cost_ns: int) -> None:
        requests = [ticket.request for ticket in tickets]
        self.spec = spec
        self.form = requests[0].form
        self.tickets = tickets
        self.rows, self.work = total(requests)
        self.cost_ns = cost_ns
        self.key_ns = self.deadline_ns = _first_deadline_ns(requests)

    def worth(self) -> float:
        """What answering all of it in time is worth."""
        return sum([ticket.request.worth(self.spec) for ticket in self.tickets])

    def can_run(self) -> bool:
        """Whether its requests wait; those of a batch that was told to stop and is not back do not."""
        return self.tickets[0].state is TicketState.WAITING


def _first_deadline_ns(requests: list[Request]) -> int:
    if len(requests) == 1:
        return requests[0].deadline_ns
    return min([request.deadline_ns for request in requests])


class Timetable:
    """The slots of one executor."""

    def __init__(self, executor: str, slots_max: int) -> None:
        self.executor = executor
        self.slots_max = slots_max
        self.slots: list[Slot] = []
        self.by_model: dict[str, list[Slot]] = {}
        """The slots of each model that has any, in the order in which they were planned."""
        self._keys_ns: list[int] = []
        # Both are counted from the start of a slot that has left long since, so that taking the head out moves none.
        self._starts_ns: list[int] = [0]
        self._rooms_ns: list[int] = [AMPLE_NS]
        self._gone_ns = 0

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be promised, whatever the deadlines."""
        return len(self.slots) >= self.slots_max

    @property
    def backlog_ns(self) -> int:
        """The cost of all slots together."""
        return self._starts_ns[-1] - self._gone_ns

    @property
    def last_ns(self) -> int:
        """The deadline of what stands last; 0 where nothing does."""
        return self._keys_ns[-1] if self._keys_ns else 0

    def place_for(self, deadline_ns: int) -> int:
        """Where a slot of that deadline would stand."""
        keys_ns = self._keys_ns
        return bisect_right(keys_ns, deadline_ns) if keys_ns and keys_ns[-1] > deadline_ns else len(keys_ns)

    def start_ns(self, place: int) -> int:
        """When the slot at a place starts, counted from the base."""
        return self._starts_ns[place] - self._gone_ns

    def room_ns(self, place: int) -> int:
        """The latest base at which the slot at a place and all after it still meet their deadlines."""
        return self._rooms_ns[place] + self._gone_ns

    def position(self, slot: Slot) -> int:
        """Where a slot stands."""
        if self.slots[0] is slot:
            return 0
        return self.slots.index(slot, bisect_right(self._keys_ns, slot.key_ns - 1))

    def insert(self, slot: Slot) -> None:
        """Put a slot in its place."""
        place = self.place_for(slot.key_ns)
        self.slots.insert(place, slot)
        self._keys_ns.insert(place, slot.key_ns)
        self._starts_ns.insert(place + 1, 0)
        self._rooms_ns.insert(place, AMPLE_NS)
        self.by_model.setdefault(slot.spec.id, []).append(slot)
        self._recompute(place)

    def extend(self, slot: Slot, ticket: Ticket, cost_ns: int) -> None:
        """Let a request join a slot, which costs `cost_ns` from now on."""
        request = ticket.request
        slot.tickets.append(ticket)
        slot.rows += request.rows
        slot.work = max(slot.work, request.work)
        slot.cost_ns = cost_ns
        slot.deadline_ns = min(slot.deadline_ns, request.deadline_ns)
        self._recompute(self.position(slot))

    def shrink(self, slot: Slot, ticket: Ticket, cost_ns: int) -> None:
        """Take a request out of a slot with others in it."""
        slot.tickets.remove(ticket)
        requests = [other.request for other in slot.tickets]
        slot.rows, slot.work = total(requests)
        slot.cost_ns = cost_ns
        slot.deadline_ns = _first_deadline_ns(requests)
        self._recompute(self.position(slot))

    def remove(self, slot: Slot) -> None:
        """Take a slot out."""
        place = self.position(slot)
        del self.slots[place], self._keys_ns[place], self._rooms_ns[place]
        alike = self.by_model[slot.spec.id]
        alike.remove(slot)
        if not alike:
            del self.by_model[slot.spec.id]
        if place:
            del self._starts_ns[place + 1]
            self._recompute(place)
        elif self.slots:
            del self._starts_ns[0]
            self._gone_ns += slot.cost_ns
        else:
            self._starts_ns, self._gone_ns = [0], 0

    def first_missed(self, base_ns: int) -> int | None:
        """The first place whose slot misses its deadline when the executor is free at `base_ns` only."""
        if base_ns <= self.room_ns(0):
            return None
        for place, slot in enumerate(self.slots):
            if base_ns + self.start_ns(place + 1) > slot.deadline_ns:
                return place
        return None

    def _recompute(self, first: int) -> None:
        """The slot at a place, or what stands before it, is another than it was."""
        slots, starts, rooms = self.slots, self._starts_ns, self._rooms_ns
        start_ns = starts[first]
        for place in range(first, len(slots)):
            start_ns += slots[place].cost_ns
            starts[place + 1] = start_ns
        room_ns = AMPLE_NS
        for place in range(len(slots) - 1, -1, -1):
            own_ns = slots[place].deadline_ns - starts[place + 1]
            room_ns = min(room_ns, own_ns)
            if place < first and rooms[place] == room_ns:
                return  # and so are all before it
            rooms[place] = room_ns

    def check(self) -> None:
        """Assert that the books agree with the slots."""
        assert self._keys_ns == [slot.key_ns for slot in self.slots] == sorted(self._keys_ns)
        assert sum(len(alike) for alike in self.by_model.values()) == len(self.slots)
        assert all(slot.tickets and slot.rows == sum(t.request.rows for t in slot.tickets) for slot in self.slots)
        end_ns, ends_ns = 0, [0]
        for slot in self.slots:
            end_ns += slot.cost_ns
            ends_ns.append(end_ns)
        assert [self.start_ns(place) for place in range(len(self.slots) + 1)] == ends_ns
        for place in range(len(self.slots)):
            rooms_ns = [
                slot.deadline_ns - end for slot, end in zip(self.slots[place:], ends_ns[place + 1 :], strict=True)
            ]
            assert self.room_ns(place) == min(AMPLE_NS + self._gone_ns, *rooms_ns)
