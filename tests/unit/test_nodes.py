"""What a front knows of a node's clock and of the link to it, from what was measured."""

from __future__ import annotations

import random

from slotwise.edges.fleets.messages import Tensor
from slotwise.edges.fleets.nodes.budget import Budget
from slotwise.edges.fleets.nodes.cargo import Cargo
from slotwise.edges.fleets.nodes.clock import ClockEstimate, Order
from slotwise.facts.types import FOREVER_NS, ZEROS_SEGMENT, TensorRef

US, MS, S = 1_000, 1_000_000, 1_000_000_000
AHEAD_NS = -1234 * S
WAY_NS = 100 * US


def trip(estimate: ClockEstimate, sent_ns: int, out_ns: int, back_ns: int) -> None:
    received_ns = sent_ns + out_ns + AHEAD_NS
    estimate.add(sent_ns, received_ns, received_ns + 20 * US, sent_ns + out_ns + 20 * US + back_ns)


def test_a_clock_is_known_to_within_half_of_the_shortest_round_trip_whatever_delays_the_others() -> None:
    source = random.Random(1)
    estimate = ClockEstimate(16)
    for at in range(200):
        trip(estimate, at * S, WAY_NS + int(source.expovariate(1 / (5 * MS))), WAY_NS + source.randrange(20 * US))
        if at >= 16:
            assert abs(estimate.ahead_ns - AHEAD_NS) <= estimate.round_trip_ns // 2
    trip(estimate, 201 * S, WAY_NS, WAY_NS)
    assert estimate.ahead_ns == AHEAD_NS
    assert estimate.round_trip_ns == 2 * WAY_NS


def test_an_estimate_of_a_clock_follows_one_that_drifts() -> None:
    estimate = ClockEstimate(4)
    trip(estimate, S, WAY_NS, WAY_NS)
    for at in range(2, 8):
        received_ns = at * S + WAY_NS + AHEAD_NS + MS
        estimate.add(at * S, received_ns, received_ns, at * S + 3 * WAY_NS)
    assert abs(estimate.ahead_ns - AHEAD_NS - MS) <= WAY_NS


def test_never_and_forever_are_what_they_are_on_any_clock() -> None:
    estimate = ClockEstimate(4)
    trip(estimate, S, WAY_NS, WAY_NS)
    assert [estimate.there(at) for at in (0, FOREVER_NS)] == [0, FOREVER_NS]
    assert estimate.here(estimate.there(5 * S)) == 5 * S


def test_runs_keep_their_order_however_the_estimate_moves() -> None:
    order = Order()
    assert order.place(10, 20, earliest_ns=0, now_ns=100) == (10, 20)
    assert order.place(18, 30, earliest_ns=0, now_ns=100) == (20, 30)
    assert order.place(35, 60, earliest_ns=40, now_ns=55) == (40, 55)


def test_what_an_executor_makes_itself_takes_no_room_in_a_frame() -> None:
    cargo, data = Cargo(), memoryview(b"1234")
    made = TensorRef(name="x", datatype="FP32", shape=(1000,), segment=ZEROS_SEGMENT, offset=0, nbytes=4000)
    sent = TensorRef(name="y", datatype="FP32", shape=(1,), segment=0, offset=128, nbytes=4)
    assert cargo.add(made, lambda _: data) == Tensor("x", "FP32", (1000,), 0, 4000, ZEROS_SEGMENT)
    assert cargo.nbytes == 0
    assert cargo.add(sent, lambda _: data) == Tensor("y", "FP32", (1,), 0, 4)


def test_a_slow_link_is_known_by_the_frames_that_crossed_it() -> None:
    budget = Budget()
    per_s, nbytes = 1_000_000, 100_000
    assert budget.arrives_ns(nbytes, 0, WAY_NS) == WAY_NS, "nothing is known, so nothing is held against it"
    for frame in range(8):
        budget.sent(nbytes, 0)
        budget.received((frame + 1) * nbytes, WAY_NS + (frame + 1) * nbytes * S // per_s, WAY_NS)
    assert abs(budget.bytes_per_s - per_s) < per_s / 100
    now_ns = 10 * S
    assert abs(budget.arrives_ns(nbytes, now_ns, WAY_NS) - (now_ns + WAY_NS + S // 10)) < MS
    budget.sent(3 * nbytes, now_ns)
    assert budget.backlog_bytes == 3 * nbytes
    assert abs(budget.arrives_ns(nbytes, now_ns, WAY_NS) - (now_ns + WAY_NS + 4 * S // 10)) < 4 * MS


def test_a_link_that_stalls_is_found_slow_before_what_it_holds_has_come() -> None:
    budget = Budget()
    budget.sent(100_000, 0)
    budget.received(100_000, WAY_NS + MS, WAY_NS)
    budget.sent(100_000, 10 * MS)
    assert budget.arrives_ns(100_000, 510 * MS, WAY_NS) < 513 * MS, "the other end may have said so, unheard as yet"
    budget.received(100_000, 510 * MS, WAY_NS)
    assert budget.arrives_ns(100_000, 511 * MS, WAY_NS) > 1_000 * MS
