"""Requests that bid: found by model and by how many they are, and told no when their chance has gone."""

from __future__ import annotations

from slotwise.facts.types import FOREVER_NS, Request
from slotwise.policy.schedulers.slotwise_bids import Bids
from slotwise.policy.view import Ticket


def ticket(request_id: int, model: str = "m") -> Ticket:
    return Ticket(Request(id=request_id, model=model, arrival_ns=0, deadline_ns=1_000))


def test_models_are_found_by_how_many_bid_for_them() -> None:
    bids = Bids()
    tickets = [ticket(1, "a"), ticket(2, "b"), ticket(3, "a")]
    for one in tickets:
        bids.put(one, 100)
    assert [bids.count_max, list(bids.models(2)), list(bids.models(1))] == [2, ["a"], ["b"]]
    bids.take(tickets[0])
    assert [bids.count_max, list(bids.models(1))] == [1, ["b", "a"]]
    assert bids.take_model("b") == [tickets[1]]
    bids.take(tickets[2])
    assert [bids.count_max, len(bids)] == [0, 0]


def test_one_whose_chance_was_prolonged_is_due_later_and_counts_once() -> None:
    bids = Bids()
    one = ticket(1)
    bids.put(one, 100)
    bids.put(one, 200)
    assert [bids.due_ns(), len(bids), len(bids.at("m"))] == [200, 1, 1]
    assert bids.first_expired(199) is None
    assert bids.first_expired(200) is one


def test_who_was_served_is_never_due() -> None:
    bids = Bids()
    one, other = ticket(1), ticket(2)
    bids.put(one, 100)
    bids.put(other, 200)
    bids.take(one)
    assert bids.due_ns() == 200
    bids.take_model("m")
    assert bids.due_ns() == FOREVER_NS
    assert bids.first_expired(FOREVER_NS - 1) is None
