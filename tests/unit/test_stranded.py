"""Requests without a slot: by what would help them, and until when anything can."""

from __future__ import annotations

from slotwise.facts.types import FOREVER_NS, Request
from slotwise.policy.stranded import NOWHERE, Stranded
from slotwise.policy.view import Ticket


def ticket(request_id: int, deadline_ns: int = 100, model: str = "m") -> Ticket:
    return Ticket(Request(id=request_id, model=model, arrival_ns=0, deadline_ns=deadline_ns))


def test_those_who_wait_for_one_load_are_told_from_those_who_wait_for_another() -> None:
    stranded = Stranded()
    one, other = ticket(1), ticket(2)
    stranded.put(one, ("e0", "m"))
    stranded.put(other, ("e1", "m"))
    assert list(stranded.at(("e0", "m"))) == [one]
    assert stranded.take_all(("e0", "m")) == [one]
    assert 1 not in stranded
    assert 2 in stranded


def test_who_leaves_says_where_it_waited() -> None:
    stranded = Stranded()
    one, other = ticket(1), ticket(2)
    stranded.put(one, ("e0", "m"))
    stranded.put(other)
    assert stranded.take(one) == ("e0", "m")
    assert stranded.take(other) == NOWHERE
    assert not stranded.at(("e0", "m"))


def test_an_executor_takes_with_it_only_those_who_waited_there() -> None:
    stranded = Stranded()
    stranded.put(ticket(1, model="a"), ("e0", "a"))
    stranded.put(ticket(2, model="b"), ("e0", "b"))
    stranded.put(ticket(3, model="a"), ("e1", "a"))
    stranded.put(ticket(4))
    assert [lost.request.id for lost in stranded.take_executor("e0")] == [1, 2]
    assert [3 in stranded, 4 in stranded] == [True, True]


def test_a_model_takes_with_it_all_who_waited_for_it_anywhere() -> None:
    stranded = Stranded()
    stranded.put(ticket(1, model="a"), ("e0", "a"))
    stranded.put(ticket(2, model="b"), ("e0", "b"))
    stranded.put(ticket(3, model="a"), ("e1", "a"))
    assert [lost.request.id for lost in stranded.take_model("a")] == [1, 3]
    assert 2 in stranded


def test_the_earliest_deadline_is_due_first_and_not_before() -> None:
    stranded = Stranded()
    late, early = ticket(1, deadline_ns=200), ticket(2, deadline_ns=100)
    stranded.put(late, ("e0", "m"))
    stranded.put(early)
    assert stranded.due_ns() == 100
    assert stranded.first_expired(99) is None
    assert stranded.first_expired(100) is early


def test_who_has_left_is_never_due() -> None:
    stranded = Stranded()
    early, late = ticket(1, deadline_ns=100), ticket(2, deadline_ns=200)
    stranded.put(early, ("e0", "m"))
    stranded.put(late, ("e0", "m"))
    stranded.take(early)
    assert stranded.due_ns() == 200
    stranded.take_all(("e0", "m"))
    assert stranded.due_ns() == FOREVER_NS
    assert stranded.first_expired(FOREVER_NS - 1) is None


def test_who_waits_again_elsewhere_is_found_there_only() -> None:
    stranded = Stranded()
    one = ticket(1)
    stranded.put(one, ("e0", "m"))
    stranded.take(one)
    stranded.put(one, ("e1", "m"))
    assert not stranded.at(("e0", "m"))
    assert stranded.first_expired(100) is one
    assert stranded.take(one) == ("e1", "m")
