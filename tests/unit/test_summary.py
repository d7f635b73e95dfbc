"""What is told of a server and of a node in a line."""

from __future__ import annotations

from slotwise.edges.fleets.nodes.agent import NodeCounts
from slotwise.facts.actions import Reply
from slotwise.facts.events import Arrived
from slotwise.facts.types import Outcome, Request, Timing
from slotwise.facts.units import MS, S
from slotwise.summary import Tally, tell_node


def arrived(number: int) -> Arrived:
    return Arrived(request=Request(id=number, model="m/1", arrival_ns=0, deadline_ns=S))


def reply(number: int, outcome: Outcome, arrival_ns: int | None = None) -> Reply:
    timing = None
    if arrival_ns is not None:
        timing = Timing(
            arrival_ns=arrival_ns, sent_ns=0, started_ns=0, ended_ns=0, executor="a", rows=1, attempts=1, predicted_ns=0
        )
    return Reply(request_id=number, outcome=outcome, timing=timing)


def test_a_line_tells_what_came_since_the_last_one() -> None:
    tally = Tally()
    tally.record(0, [arrived(1), arrived(2), arrived(3)], [])
    ends = [reply(1, Outcome.IN_TIME, 0), reply(2, Outcome.LATE, 2 * MS), reply(3, Outcome.REFUSED)]
    tally.record(10 * MS, [], ends)
    assert tally.tell(10 * S, 2 * MS) == (
        "0.3 requests/s, 0.1 in time/s; late 1, refused 1, dropped 0, failed 0, cancelled 0;"
        " answers took 9.0 ms, 10.0 at most; lag 2.0 ms (p99)"
    )
    assert tally.tell(20 * S, 0).startswith("0.0 requests/s, 0.0 in time/s; late 0, refused 0")


def test_a_node_tells_whom_it_serves() -> None:
    before = NodeCounts(front="", executors_up=2, batches=5, failures=0, loads=0)
    now = NodeCounts(front="10.0.0.1:4711", executors_up=2, batches=105, failures=1, loads=3)
    assert tell_node(now, before, 10.0) == "10.0 batches/s; failed 1, loads 3; 2 executors up, front 10.0.0.1:4711"
