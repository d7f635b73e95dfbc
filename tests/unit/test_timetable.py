"""Timetables: however slots come, grow, shrink and go, their starts and rooms are what a fresh count would say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, Request
from slotwise.policy.timetable import AMPLE_NS, Slot, Timetable
from slotwise.policy.view import Ticket

PROFILE = Profile(rows=(1,), run_ns=(10,), load_ns=1, memory_bytes=1)
SPECS = [
    ModelSpec(id=f"m{number}/1", name=f"m{number}", version="1", profile=PROFILE, slo_ns=100, batch_max=8)
    for number in range(3)
]
STEPS = st.tuples(
    st.sampled_from(["insert", "insert", "extend", "shrink", "remove", "remove head"]),
    st.integers(0, 2),
    st.integers(1, 500),
    st.integers(1, 50),
)


def ticket(number: int, spec: ModelSpec, deadline_ns: int) -> Ticket:
    return Ticket(Request(id=number, model=spec.id, arrival_ns=0, deadline_ns=deadline_ns))


@given(st.lists(STEPS, max_size=60))
def test_the_books_agree_with_the_slots_after_every_change(steps: list[tuple[str, int, int, int]]) -> None:
    table = Timetable("core0", slots_max=100)
    for number, (step, which, deadline_ns, cost_ns) in enumerate(steps):
        slot = table.slots[deadline_ns % len(table)] if len(table) else None
        if step == "insert" or slot is None:
            table.insert(Slot(SPECS[which], [ticket(number, SPECS[which], deadline_ns)], cost_ns))
        elif step == "extend":
            table.extend(slot, ticket(number, slot.spec, deadline_ns), slot.cost_ns + cost_ns)
        elif step == "shrink" and len(slot.tickets) > 1:
            table.shrink(slot, slot.tickets[which % len(slot.tickets)], cost_ns)
        elif step == "remove":
            table.remove(slot)
        elif step == "remove head":
            table.remove(table.slots[0])
        table.check()


def test_a_place_has_room_until_a_slot_behind_it_would_miss() -> None:
    table = Timetable("core0", slots_max=100)
    for number, (deadline_ns, cost_ns) in enumerate([(100, 10), (120, 30), (300, 40)]):
        table.insert(Slot(SPECS[0], [ticket(number, SPECS[0], deadline_ns)], cost_ns))
    assert [table.start_ns(place) for place in range(4)] == [0, 10, 40, 80]
    assert [table.room_ns(place) for place in range(4)] == [80, 80, 220, AMPLE_NS]
    assert table.first_missed(80) is None
    assert table.first_missed(81) == 1
    assert table.backlog_ns == 80


def test_a_table_that_is_full_says_so() -> None:
    table = Timetable("core0", slots_max=1)
    assert not table.is_full
    table.insert(Slot(SPECS[0], [ticket(1, SPECS[0], 100)], 10))
    assert table.is_full
