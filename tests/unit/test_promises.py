"""The books of what was promised: timetables and requests' places in them always agree."""

from __future__ import annotations

from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, Request
from slotwise.policy.estimates import Estimates, EstimateSettings
from slotwise.policy.offers import Offer
from slotwise.policy.promises import Promises
from slotwise.policy.timetable import Slot, Timetable
from slotwise.policy.view import BatchInFlight, ExecutorView, Ticket, TicketState, View

PROFILE = Profile(rows=(1, 2, 4), run_ns=(10, 14, 22), load_ns=5, memory_bytes=1)


def spec(name: str = "m") -> ModelSpec:
    return ModelSpec(id=name, name=name, version="1", profile=PROFILE, slo_ns=1_000, batch_max=4, batchable=True)


def ticket(request_id: int, deadline_ns: int = 1_000, model: str = "m") -> Ticket:
    return Ticket(Request(id=request_id, model=model, arrival_ns=0, deadline_ns=deadline_ns))


def books(*executors: str) -> Promises:
    promises = Promises(View(Estimates(EstimateSettings())))
    for name in executors:
        promises.tables[name] = Timetable(name, 10)
    return promises


def put(promises: Promises, executor: str, *tickets: Ticket) -> Slot:
    model = spec(tickets[0].request.model)
    slot = Slot(model, list(tickets), PROFILE.expected_ns(len(tickets)))
    promises.put(promises.tables[executor], slot)
    return slot


def batch_of(tickets: tuple[Ticket, ...]) -> BatchInFlight:
    return BatchInFlight(
        batch_id=1,
        spec=spec(),
        tickets=tickets,
        rows=len(tickets),
        work=1.0,
        expected_ns=14,
        sent_ns=0,
        latest_ns=1_000,
        predicted_end_ns=14,
    )


def test_an_accepted_offer_is_a_place_in_its_timetable() -> None:
    promises = books("e0")
    table = promises.tables["e0"]
    first, second = ticket(1), ticket(2)
    promises.accept(spec(), first, Offer(table, None, 10, 10, 0.0))
    promises.accept(spec(), second, Offer(table, table.slots[0], 14, 4, 0.0))
    assert [1 in promises, 2 in promises, 3 in promises] == [True, True, False]
    assert [slot.tickets for slot in table.slots] == [[first, second]]
    assert table.backlog_ns == 14
    table.check()


def test_one_who_leaves_company_makes_its_batch_cheaper() -> None:
    promises = books("e0")
    first, second = ticket(1), ticket(2)
    put(promises, "e0", first, second)
    promises.take(first)
    table = promises.tables["e0"]
    assert 1 not in promises
    assert table.backlog_ns == 10
    table.check()


def test_the_last_to_leave_takes_the_slot_away() -> None:
    promises = books("e0")
    only = ticket(1)
    put(promises, "e0", only)
    promises.take(only)
    assert not len(promises.tables["e0"])
    assert not promises.is_waiting("m", "e0")


def test_those_of_a_merged_slot_leave_the_slot_they_joined() -> None:
    promises = books("e0")
    first, second = ticket(1, deadline_ns=500), ticket(2, deadline_ns=900)
    slot, other = put(promises, "e0", first), put(promises, "e0", second)
    table = promises.tables["e0"]
    promises.merge(table, slot, other, 14)
    assert table.slots == [slot]
    promises.take(second)
    assert slot.tickets == [first]
    table.check()


def test_a_model_that_leaves_frees_its_slots_everywhere_and_no_others() -> None:
    promises = books("e0", "e1")
    put(promises, "e0", ticket(1, model="a"))
    put(promises, "e0", ticket(2, model="b"))
    put(promises, "e1", ticket(3, model="a"))
    assert [found.request.id for found in promises.take_model("a")] == [1, 3]
    assert [promises.is_waiting("a", "e0"), promises.is_waiting("b", "e0")] == [False, True]
    assert 2 in promises


def test_of_a_lost_executor_only_those_that_wait_are_to_be_placed_again() -> None:
    promises = books("e0", "e1")
    waiting, running = ticket(1), ticket(2)
    put(promises, "e0", waiting)
    put(promises, "e0", running)
    running.move(TicketState.RUNNING)
    assert promises.take_executor("e0") == [waiting]
    assert "e0" not in promises.tables
    assert [1 in promises, 2 in promises] == [False, False]


def test_a_place_kept_for_a_stopped_batch_goes_when_the_batch_ended_all_the_same() -> None:
    promises = books("e0")
    tickets = (ticket(1), ticket(2))
    slot = promises.keep_place(ExecutorView("e0", 1, 1), batch_of(tickets), list(tickets))
    promises.put(promises.tables["e0"], slot)
    for one in tickets:
        one.move(TicketState.RUNNING)
    promises.clear_kept()
    assert [1 in promises, 2 in promises] == [True, True], "the batch is not back yet"
    for one in tickets:
        one.move(TicketState.ENDED)
    promises.clear_kept()
    assert [1 in promises, 2 in promises] == [False, False]
    assert not len(promises.tables["e0"])


def test_a_place_kept_for_a_stopped_batch_stays_when_its_requests_wait_again() -> None:
    promises = books("e0")
    one = ticket(1)
    promises.put(promises.tables["e0"], promises.keep_place(ExecutorView("e0", 1, 1), batch_of((one,)), [one]))
    one.move(TicketState.RUNNING)
    one.move(TicketState.WAITING)
    promises.clear_kept()
    assert 1 in promises
