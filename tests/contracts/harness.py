"""What the fleet's contract needs of a fleet under trial, be it of processes or simulated.

The models are the same for every harness, by id and by booked memory; what they compute is the harness's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from slotwise.engine.ports import Fleet
from slotwise.facts.events import Event
from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, Request

MIB = 1 << 20
MS = 1_000_000

EXECUTORS = ("a", "b")
PAGE_BYTES = MIB
MEMORY_BYTES = 10 * MIB
"""Of each executor: ten pages."""

QUICK, SLOW, LEFT, RIGHT, LARGE = "quick/1", "slow/1", "left/1", "right/1", "large/1"
PAGES = {QUICK: 2, SLOW: 3, LEFT: 4, RIGHT: 5, LARGE: 11}
"""What each model is booked with; the large one fits nowhere."""


class FleetHarness(Protocol):
    """A fleet whose two executors are up and hold nothing, and the means to watch and to hurt it."""

    @property
    def fleet(self) -> Fleet:
        """The fleet under trial."""

    @property
    def events(self) -> list[Event]:
        """All that was posted since the test began, in order."""

    @property
    def specs(self) -> Mapping[str, ModelSpec]:
        """The models, `QUICK` and so on, by id. A run of the slow one takes 0.2 s or more, of others a few ms."""

    def now_ns(self) -> int:
        """The present instant on the engine's clock."""

    def request(self, model: str) -> Request:
        """A request that the model can answer, of as many rows as its spec's profile was made for."""

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Let time pass until an event makes the condition true; fails after a bounded wait."""

    def kill(self, executor: str) -> None:
        """End an executor from outside."""

    def hang(self, executor: str) -> None:
        """Let an executor fall silent without dying."""


def make_spec(model: str, *, run_ns: int, path: str = "") -> ModelSpec:
    """A model of the contract. It is booked with a little less than its whole pages."""
    name, _, version = model.partition("/")
    profile = Profile(rows=(1,), run_ns=(run_ns,), load_ns=2 * MS, memory_bytes=PAGES[model] * PAGE_BYTES - 1)
    return ModelSpec(
        id=model,
        name=name,
        version=version,
        profile=profile,
        slo_ns=1_000 * MS,
        batch_max=8,
        path=path,
        batchable=True,
    )
