"""What goes wrong in virtual time, drawn from a seed: executors that die or fall silent, clients that go away.

Overruns are the fleet's own noise (`sim/fleet`). Faults only happen to the world; noticing them and making up
for them is the product's.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from slotwise.facts.types import Request
from slotwise.facts.units import S
from slotwise.facts.value import value
from slotwise.sim.world import World


@value
class Faults:
    """Mean times between faults of the whole fleet, exponential; 0 for never. `cancelled_share` of clients go away."""

    kill_s: float = 0.0
    hang_s: float = 0.0
    cancelled_share: float = 0.0
    patience_ns: int = S // 50
    """How long a client that goes away waits, on average."""


class Injector:
    """Lets faults happen to a world until a given instant."""

    def __init__(self, world: World, faults: Faults, executors: tuple[str, ...], seed: int) -> None:
        self._world = world
        self._faults = faults
        self._executors = executors
        self._rng = random.Random(f"{seed}:faults")
        self._until_ns = 0
        self.kills = 0
        self.hangs = 0
        self.cancels = 0

    def run(self, until_ns: int) -> None:
        """Begin; no fault happens after `until_ns`."""
        self._until_ns = until_ns
        if self._faults.kill_s:
            self._again(self._faults.kill_s, self._kill)
        if self._faults.hang_s:
            self._again(self._faults.hang_s, self._hang)
        if self._faults.cancelled_share:
            self._world.on_ask = self._asked

    def _again(self, mean_s: float, fault: Callable[[], None]) -> None:
        at_ns = self._world.clock.now_ns() + int(self._rng.expovariate(1 / mean_s) * S)
        if at_ns < self._until_ns:
            self._world.clock.call_at(at_ns, fault)

    def _kill(self) -> None:
        self._world.fleet.kill(self._rng.choice(self._executors))
        self.kills += 1
        self._again(self._faults.kill_s, self._kill)

    def _hang(self) -> None:
        self._world.fleet.hang(self._rng.choice(self._executors))
        self.hangs += 1
        self._again(self._faults.hang_s, self._hang)

    def _asked(self, request: Request) -> None:
        if self._rng.random() < self._faults.cancelled_share:
            at_ns = self._world.clock.now_ns() + int(self._rng.expovariate(1 / self._faults.patience_ns))
            self._world.clock.call_at(at_ns, lambda: self._leave(request))

    def _leave(self, request: Request) -> None:
        self._world.cancel(request.id)
        self.cancels += 1
