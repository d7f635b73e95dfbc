"""A whole system in virtual time: clients, loop, controller and fleet on one clock, from one seed.

The controller is handed in, as the product's loop is handed one; nothing here knows a policy.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from slotwise.engine.clock import Alarm, VirtualClock
from slotwise.engine.loop import Engine
from slotwise.engine.ports import Controller, Recorder
from slotwise.facts.actions import Reply
from slotwise.facts.events import Arrived, Cancelled, Event, ModelAdded
from slotwise.facts.types import ModelSpec, Request, TensorRef
from slotwise.pipelines.deadlines import Deadlines
from slotwise.pipelines.relay import Relay
from slotwise.pipelines.tensors import Tensors
from slotwise.sim.fleet import FleetSettings, SimFleet
from slotwise.sim.front import SimFront
from slotwise.workload.player import Asking, Player
from slotwise.workload.values import Arrival


class NoTensors:
    """The memory of virtual time, in which requests and answers carry no tensors; an `Arena` and `Outputs`."""

    segment = 0

    def allocate(self, nbytes: int) -> int | None:
        """There is never room."""
        return None

    def keep(self, region: int) -> None:
        """Nothing lies here."""

    def release(self, region: int) -> None:
        """Nothing lies here."""

    def view(self, offset: int, nbytes: int) -> memoryview:
        """No bytes."""
        return memoryview(b"")

    def read(self, ref: TensorRef) -> memoryview:
        """No bytes."""
        return memoryview(b"")


class World:
    """One simulated system, ready to be fed and run."""

    def __init__(
        self,
        *,
        controller: Controller,
        models: Sequence[ModelSpec],
        fleet: FleetSettings,
        seed: int,
        recorders: Sequence[Recorder] = (),
        on_reply: Callable[[Request, Reply], None] | None = None,
        believed: Sequence[ModelSpec] | None = None,
        deadlines: Deadlines = Deadlines.EFFECTIVE,
        pipeline_recorders: Sequence[Recorder] = (),
    ) -> None:
        """`models` hold the true profiles; `believed`, where given, what the controller is told instead.

        `deadlines` are the steps' of those that are pipelines; the requests to these are told to `pipeline_recorders`.
        """
        self.clock = VirtualClock()
        self._on_reply = on_reply
        self._asked: dict[int, Callable[[int], None]] = {}
        self.front = SimFront(self.clock, self._replied)
        truth = {spec.id: spec for spec in models}
        self.fleet = SimFleet(settings=fleet, clock=self.clock, truth=truth, rng=random.Random(f"{seed}:fleet"))
        self._ids = itertools.count(1)
        nothing = NoTensors()
        self.relay = Relay(
            post=self._post,
            front=self.front,
            clock=self.clock,
            request_ids=self._ids,
            members=truth if believed is None else {spec.id: spec for spec in believed},
            tensors=Tensors(nothing, nothing),
            deadlines=deadlines,
            recorders=pipeline_recorders,
        )
        self.engine = Engine(
            clock=self.clock, controller=controller, fleet=self.fleet, front=self.relay, recorders=recorders
        )
        self.on_ask: Callable[[Request], None] | None = None
        """Told of every request as it is sent."""
        for spec in believed if believed is not None else models:
            self.relay.post(ModelAdded(spec=spec))
        self.fleet.start(self.engine.post)

    def feed(self, arrivals: Iterable[Arrival]) -> None:
        """Let these arrive, each in its time; they are drawn one by one."""
        self.play(Player(arrivals))

    def play(self, player: Player, start_ns: int = 0) -> None:
        """Let everybody in a workload ask, from `start_ns` on; clients are told of their answers."""
        self._go_on(_Playing(player, start_ns))

    def ask(self, arrival: Arrival) -> Request:
        """Send one request now."""
        now_ns = self.clock.now_ns()
        request = Request(
            id=next(self._ids),
            model=arrival.model,
            arrival_ns=now_ns,
            deadline_ns=now_ns + arrival.slo_ns,
            rows=arrival.rows,
            priority=arrival.priority,
        )
        self.front.expect(request)
        self.relay.post(Arrived(request=request))
        if self.on_ask is not None:
            self.on_ask(request)
        return request

    def cancel(self, request_id: int) -> None:
        """Let the client of a request go away."""
        self.relay.post(Cancelled(request_id=request_id))

    def run(self, until_ns: int) -> None:
        """Let time pass."""
        self.clock.run(until_ns)

    def _post(self, event: Event) -> None:
        self.engine.post(event)

    def _go_on(self, playing: _Playing) -> None:
        """Be called when the next of a workload is due."""
        due_ns = playing.player.due_ns()
        if due_ns is None:
            return
        at_ns = playing.start_ns + due_ns
        if playing.alarm is not None:
            if playing.at_ns <= at_ns:
                return
            playing.alarm.cancel()
        playing.at_ns = at_ns
        playing.alarm = self.clock.call_at(at_ns, partial(self._ask_due, playing))

    def _ask_due(self, playing: _Playing) -> None:
        """Ask all that is due at this instant, so that one turn decides on it, as a server finds it at its sockets."""
        playing.alarm = None
        due_ns: int | None = playing.at_ns - playing.start_ns
        while due_ns is not None and due_ns <= playing.at_ns - playing.start_ns:
            asking = playing.player.take()
            request = self.ask(asking.arrival)
            if asking.clients is not None:
                self._asked[request.id] = partial(self._answered, playing, asking)
            due_ns = playing.player.due_ns()
        self._go_on(playing)

    def _replied(self, request: Request, reply: Reply) -> None:
        if self._on_reply is not None:
            self._on_reply(request, reply)
        tell = self._asked.pop(request.id, None)
        if tell is not None:
            tell(reply.retry_after_ns)

    def _answered(self, playing: _Playing, asking: Asking, retry_after_ns: int) -> None:
        playing.player.answered(asking, self.clock.now_ns() - playing.start_ns, retry_after_ns)
        self._go_on(playing)


class _Playing:
    """A workload under way, and the alarm for its next request."""

    def __init__(self, player: Player, start_ns: int) -> None:
        self.player = player
        self.start_ns = start_ns
        self.at_ns = 0
        self.alarm: Alarm | None = None
