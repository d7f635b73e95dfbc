"""The load: arrivals at random instants at a modest rate, and now and then a burst over capacity."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from slotwise.demo.mix import Exhibit
from soak.questions import Asked, draw
from soak.tally import End, Outcome, Tally

SHARES = {"http": 0.35, "json": 0.15, "grpc": 0.25, "local": 0.25}
BURST_EVERY_S = 45.0
BURST_REQUESTS = (100, 300)
BURST_S = 0.3
LAG_S_MAX = 1.0
"""Arrivals that this program is late for by more are left out: it must not make up for a pause by a burst."""


class Way(Protocol):
    """How a request gets to the server."""

    async def ask(self, asked: Asked) -> Outcome:
        """How it ended."""
        ...


class Load:
    """Asks until told to stop; then waits for every answer."""

    def __init__(
        self, ways: Mapping[str, Way], exhibits: Sequence[Exhibit], tally: Tally, rate_per_s: float, seed: int
    ) -> None:
        self._ways = ways
        self._exhibits = exhibits
        self._tally = tally
        self._rate_per_s = rate_per_s
        self._rng = random.Random(seed)
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def under_way(self) -> int:
        """Requests sent and not yet answered."""
        return len(self._under_way)

    async def run(self, stop: asyncio.Event) -> None:
        """Send requests until told to stop."""
        loop, rng = asyncio.get_running_loop(), self._rng
        due_s = loop.time()
        burst_s = due_s + rng.expovariate(1 / BURST_EVERY_S)
        while not stop.is_set():
            due_s = max(due_s + rng.expovariate(self._rate_per_s), loop.time() - LAG_S_MAX)
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            self.begin(draw(rng, self._exhibits))
            if loop.time() >= burst_s:
                self._tally.faults["burst"] += 1
                burst_s += rng.expovariate(1 / BURST_EVERY_S)
                await self._burst(rng.randint(*BURST_REQUESTS))

    async def answered(self) -> None:
        """Wait until nothing is under way any more."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def begin(self, asked: Asked, way: str | None = None) -> None:
        """Send a request by some way."""
        (drawn,) = self._rng.choices(list(SHARES), list(SHARES.values()))
        name = way or ("http" if drawn == "json" and not asked.fits_json() else drawn)
        task = asyncio.create_task(self._ask(name, asked))
        self._under_way.add(task)
        task.add_done_callback(lambda task: self._ended(name, asked, task))

    async def _burst(self, requests: int) -> None:
        for _ in range(requests):
            self.begin(draw(self._rng, self._exhibits))
            await asyncio.sleep(BURST_S / requests)

    def _ended(self, way: str, asked: Asked, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):  # else this program is told to end
            self._tally.add(way, asked.model, Outcome(End.WRONG, f"this program cannot read the answer: {error!r}"))

    async def _ask(self, way: str, asked: Asked) -> None:
        began_s = time.monotonic()
        outcome = await self._ways[way].ask(asked)
        self._tally.add(way, asked.model, outcome, time.monotonic() - began_s)
