"""A whole system in one process on the real clock: engine, controller and a fleet that waits profiles out.

Requests are posted by a workload's player as they are due. What the controller takes of the processor is told apart by
the questions that it asks its scheduler; the rest of it is its own. All else is the loop's, the fleet's, the player's.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import time
from collections.abc import Sequence

from slotwise.engine.clock import RealClock
from slotwise.engine.loop import Engine
from slotwise.facts.actions import Action, Reply
from slotwise.facts.events import Arrived, Event, ModelAdded
from slotwise.facts.types import ModelSpec, Outcome, Refusal, Request
from slotwise.facts.units import S
from slotwise.facts.value import value
from slotwise.policy.controller import Controller
from slotwise.policy.estimates import Estimates
from slotwise.policy.presets import find_preset, overridden
from slotwise.policy.scheduling import Choice, Scheduler
from slotwise.policy.view import Ticket, View
from slotwise.sim.fleet import FleetSettings, SimFleet
from slotwise.workload.player import Player, player_of
from slotwise.workload.values import Workload

LOADING_S = 2.0
"""What first loads are given before anything is asked."""
DRAIN_S = 1.0
"""How long answers are waited for after a workload."""


@value
class Spent:
    """Nanoseconds of one workload: of the process, of the controller, and of its scheduler by what it was asked."""

    process_ns: int
    controller_ns: int
    arrival_ns: int
    choose_ns: int
    result_ns: int


@value
class Outcomes:
    """What came of one workload."""

    offered: int
    in_time: int
    spent: Spent


class TimedScheduler:
    """Any scheduler, with a watch on what each question takes."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.arrival_ns = self.choose_ns = self.result_ns = 0

    def arrived(self, ticket: Ticket, now_ns: int) -> Refusal | None:
        """As the scheduler."""
        began_ns = time.thread_time_ns()
        answer = self._scheduler.arrived(ticket, now_ns)
        self.arrival_ns += time.thread_time_ns() - began_ns
        return answer

    def withdrawn(self, ticket: Ticket, now_ns: int) -> None:
        """As the scheduler."""
        began_ns = time.thread_time_ns()
        self._scheduler.withdrawn(ticket, now_ns)
        self.result_ns += time.thread_time_ns() - began_ns

    def noted(self, event: Event, now_ns: int) -> None:
        """As the scheduler."""
        began_ns = time.thread_time_ns()
        self._scheduler.noted(event, now_ns)
        self.result_ns += time.thread_time_ns() - began_ns

    def choose(self, now_ns: int) -> Choice | None:
        """As the scheduler."""
        began_ns = time.thread_time_ns()
        answer = self._scheduler.choose(now_ns)
        self.choose_ns += time.thread_time_ns() - began_ns
        return answer

    def due_ns(self, now_ns: int) -> int:
        """As the scheduler."""
        began_ns = time.thread_time_ns()
        answer = self._scheduler.due_ns(now_ns)
        self.choose_ns += time.thread_time_ns() - began_ns
        return answer


class TimedController:
    """A controller under a policy, with a watch on it and on its scheduler."""

    def __init__(self, policy: str, settings: dict[str, object]) -> None:
        preset = find_preset(policy)
        view = View(Estimates(preset.estimates))
        self.scheduler = TimedScheduler(preset.build(view, overridden(preset.settings, settings, policy)))
        self._controller = Controller(view, self.scheduler)
        self.spent_ns = 0

    def handle(self, events: Sequence[Event], now_ns: int) -> list[Action]:
        """As the controller."""
        began_ns = time.thread_time_ns()
        actions = self._controller.handle(events, now_ns)
        self.spent_ns += time.thread_time_ns() - began_ns
        return actions


class Pretended:
    """The system; its own front, too. `start` it, then `play` workloads one after the other."""

    def __init__(
        self, policy: str, settings: dict[str, object], models: Sequence[ModelSpec], fleet: FleetSettings
    ) -> None:
        self._clock = RealClock(asyncio.get_running_loop())
        self._controller = TimedController(policy, settings)
        self._fleet = SimFleet(
            settings=fleet, clock=self._clock, truth={spec.id: spec for spec in models}, rng=random.Random(1)
        )
        self._engine = Engine(clock=self._clock, controller=self._controller, fleet=self._fleet, front=self)
        self._models = models
        self._ids = itertools.count(1)
        self._offered = self._in_time = 0

    async def start(self) -> None:
        """Bring the fleet up and let it load."""
        for spec in self._models:
            self._engine.post(ModelAdded(spec=spec))
        self._fleet.start(self._engine.post)
        await asyncio.sleep(LOADING_S)
        gc.collect()
        gc.freeze()

    async def play(self, workload: Workload) -> Outcomes:
        """Ask what the workload says, when it says so, and see what comes of it."""
        self._offered = self._in_time = 0
        before = self._spent()
        self._pump(player_of(workload), self._clock.now_ns())
        await asyncio.sleep(workload.duration_s)
        spent = self._spent()
        await asyncio.sleep(DRAIN_S)
        return Outcomes(offered=self._offered, in_time=self._in_time, spent=_less(spent, before))

    def reply(self, reply: Reply) -> None:
        """Count what comes in time."""
        self._in_time += reply.outcome is Outcome.IN_TIME

    def _pump(self, player: Player, start_ns: int) -> None:
        """Ask what is due, and come back when the next is."""
        now_ns = self._clock.now_ns()
        due_ns = player.due_ns()
        while due_ns is not None and start_ns + due_ns <= now_ns:
            arrival = player.take().arrival
            at_ns = start_ns + due_ns  # whoever is late with it is not excused
            request = Request(
                id=next(self._ids), model=arrival.model, arrival_ns=at_ns, deadline_ns=at_ns + arrival.slo_ns
            )
            self._engine.post(Arrived(request=request))
            self._offered += 1
            due_ns = player.due_ns()
        if due_ns is not None:
            self._clock.call_at(start_ns + due_ns, lambda: self._pump(player, start_ns))

    def _spent(self) -> Spent:
        scheduler = self._controller.scheduler
        return Spent(
            process_ns=int(time.process_time() * S),
            controller_ns=self._controller.spent_ns,
            arrival_ns=scheduler.arrival_ns,
            choose_ns=scheduler.choose_ns,
            result_ns=scheduler.result_ns,
        )


def _less(after: Spent, before: Spent) -> Spent:
    return Spent(
        process_ns=after.process_ns - before.process_ns,
        controller_ns=after.controller_ns - before.controller_ns,
        arrival_ns=after.arrival_ns - before.arrival_ns,
        choose_ns=after.choose_ns - before.choose_ns,
        result_ns=after.result_ns - before.result_ns,
    )
