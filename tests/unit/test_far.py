"""Promises at executors on other machines count the way there and back."""

from __future__ import annotations

import itertools

from slotwise.facts.actions import Action, Load, Reply, RunBatch
from slotwise.facts.events import Arrived, BatchDone, BatchFailed, Event, ExecutorUp, Loaded, ModelAdded
from slotwise.facts.profile import Profile
from slotwise.facts.types import Failure, ModelSpec, Outcome, Reason, Request
from slotwise.facts.units import MS, S
from slotwise.policy.presets import build_controller

SPEC = ModelSpec(
    id="m/1",
    name="m",
    version="1",
    profile=Profile(rows=(1,), run_ns=(10 * MS,), load_ns=MS, memory_bytes=1),
    slo_ns=S,
)
LINK_NS = 2 * MS


class Far:
    """A controller with one executor, on another machine, that holds the model."""

    def __init__(self) -> None:
        self.controller = build_controller("slotwise")
        self._ids = itertools.count(1)
        up = ExecutorUp(executor="far:a", memory_bytes=100, way_ns=LINK_NS)
        (load,) = self.found(Load, self.handle(0, ModelAdded(spec=SPEC), up))
        loaded = Loaded(executor="far:a", model="m/1", load_id=load.load_id, started_ns=0, ended_ns=MS)
        self.handle(S, loaded)

    def handle(self, now_ns: int, *events: Event) -> list[Action]:
        return self.controller.handle(events, now_ns)

    def found(self, kind: type, actions: list[Action]) -> list:
        return [action for action in actions if isinstance(action, kind)]

    def ask(self, now_ns: int, allowance_ns: int) -> list[Action]:
        request = Request(id=next(self._ids), model="m/1", arrival_ns=now_ns, deadline_ns=now_ns + allowance_ns)
        return self.handle(now_ns, Arrived(request=request))


def test_a_request_that_could_run_in_time_but_not_come_back_in_time_is_refused() -> None:
    far = Far()
    (reply,) = far.found(Reply, far.ask(S, 11 * MS))
    assert (reply.outcome, reply.reason) == (Outcome.REFUSED, Reason.INFEASIBLE)
    assert reply.predicted_ns >= S + 12 * MS
    assert far.found(RunBatch, far.ask(S, 13 * MS))


def test_tensors_that_take_long_are_learned_by_model() -> None:
    far = Far()
    now_ns = S
    for _ in range(5):
        (run,) = far.found(RunBatch, far.ask(now_ns, 200 * MS))
        started_ns = now_ns + 30 * MS
        done = BatchDone(executor="far:a", batch_id=run.batch_id, started_ns=started_ns, ended_ns=started_ns + 10 * MS)
        now_ns += 45 * MS
        (reply,) = far.found(Reply, far.handle(now_ns, done))
        assert reply.outcome is Outcome.IN_TIME
    assert far.controller.view.estimates.way_ns("far:a", "m/1") == 35 * MS
    assert far.found(RunBatch, far.ask(now_ns, 40 * MS)) == []


def test_what_could_not_be_sent_in_time_is_not_promised_again_but_now_and_then() -> None:
    far = Far()
    (run,) = far.found(RunBatch, far.ask(S, 100 * MS))
    back = BatchFailed(
        executor="far:a", batch_id=run.batch_id, failure=Failure.TOO_LATE, started_ns=2 * S, ended_ns=2 * S
    )
    (reply,) = far.found(Reply, far.handle(S, back))
    assert (reply.outcome, reply.reason) == (Outcome.DROPPED, Reason.EXPIRED)
    tries = [bool(far.found(RunBatch, far.ask(3 * S + serial * S, 100 * MS))) for serial in range(30)]
    assert not any(tries[:5])
    assert any(tries)
