"""The contract's harness for a simulated fleet: the same models and executors, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable

from slotwise.engine.clock import VirtualClock
from slotwise.engine.ports import Fleet
from slotwise.facts.events import Event
from slotwise.facts.types import Request
from slotwise.sim.fleet import FleetSettings, SimFleet, SimSlice
from tests.contracts.harness import EXECUTORS, MEMORY_BYTES, MS, PAGE_BYTES, PAGES, SLOW, make_spec

STEP_NS = MS // 10
WAIT_NS_MAX = 60_000 * MS
SLOW_RUN_NS = 250 * MS
QUICK_RUN_NS = MS // 5


class SimHarness:
    """A fleet of two executors whose time passes only while something is waited for."""

    def __init__(self) -> None:
        self.specs = {model: make_spec(model, run_ns=SLOW_RUN_NS if model == SLOW else QUICK_RUN_NS) for model in PAGES}
        self.events: list[Event] = []
        self._clock = VirtualClock()
        self._serial = 0
        slices = tuple(SimSlice(executor=name, memory_bytes=MEMORY_BYTES, page_bytes=PAGE_BYTES) for name in EXECUTORS)
        self._fleet = SimFleet(
            settings=FleetSettings(slices=slices), clock=self._clock, truth=self.specs, rng=random.Random(3)
        )
        self._fleet.start(self.events.append)
        self.events.clear()

    @property
    def fleet(self) -> Fleet:
        return self._fleet

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def request(self, model: str) -> Request:
        self._serial += 1
        now_ns = self.now_ns()
        return Request(id=self._serial, model=model, arrival_ns=now_ns, deadline_ns=now_ns + self.specs[model].slo_ns)

    def wait_until(self, condition: Callable[[], object]) -> None:
        end_ns = self.now_ns() + WAIT_NS_MAX
        while not condition():
            assert self.now_ns() < end_ns, "waited a virtual minute in vain"
            self._clock.run(self.now_ns() + STEP_NS)

    def kill(self, executor: str) -> None:
        self._fleet.kill(executor)

    def hang(self, executor: str) -> None:
        self._fleet.hang(executor)
