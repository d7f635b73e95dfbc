"""How requests ended, counted by the way they took; those that ended as they must not are kept one by one."""

from __future__ import annotations

import enum
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

STRAYS_MAX = 1000
"""Kept one by one; further ones are counted only."""


class End(enum.StrEnum):
    """How a request ended for its client."""

    OK = "ok"
    REFUSED = "refused"
    """Turned away at once: 503, 429."""
    TOO_LATE = "too_late"
    REJECTED = "rejected"
    """A flawed request, told so: 4xx."""
    REMOVED = "removed"
    """A sound request whose model was unloaded meanwhile, told so: 404."""
    DOOR_KILLED = "door_killed"
    """The gRPC door was killed while the call was under way, and the connection died with it."""
    WRONG = "wrong"
    """An answer that is not the one expected: other numbers, 4xx for a sound request, 200 for a flawed one, 500."""
    UNANSWERED = "unanswered"
    SURPLUS = "surplus"
    """A reply that nobody had asked for, beside the request's own."""


_REMOVED_TOLD = ("model_removed", "is not on offer")
"""The server's words for it: while the request waited, and before all of it had arrived."""
STRAYS = (End.WRONG, End.UNANSWERED, End.SURPLUS)


@dataclass(frozen=True)
class Outcome:
    """An end, and what was said or seen in words."""

    end: End
    told: str = ""


class Stray(msgspec.Struct, frozen=True, tag="stray"):
    """A request that ended as none must."""

    at_s: float
    way: str
    model: str
    end: str
    told: str
    took_s: float


def tells_removed(told: str) -> bool:
    """Whether an error says that the model was taken away while the request was under way."""
    return any(words in told for words in _REMOVED_TOLD)


class Tally:
    """Counts ends. `on_stray` is called with each that must not be."""

    def __init__(self, on_stray: Callable[[Stray], None]) -> None:
        self._on_stray = on_stray
        self._began_s = time.monotonic()
        self.counts: Counter[tuple[str, End]] = Counter()
        self.faults: Counter[str] = Counter()
        """What was done to the server, by its name."""

    def now_s(self) -> float:
        """Seconds since the soak began."""
        return time.monotonic() - self._began_s

    def add(self, way: str, model: str, outcome: Outcome, took_s: float = 0.0) -> None:
        """One request has ended."""
        self.counts[way, outcome.end] += 1
        if outcome.end in STRAYS and self.strays <= STRAYS_MAX:
            at_s = round(self.now_s(), 3)
            self._on_stray(Stray(at_s, way, model, outcome.end, outcome.told[:300], round(took_s, 3)))

    def told(self) -> dict[str, int]:
        """The counts, with a way and an end for a name."""
        return {f"{way} {end}": count for (way, end), count in sorted(self.counts.items())}

    def total(self, end: End) -> int:
        """How many ended so, on all ways."""
        return sum(count for (_, one), count in self.counts.items() if one is end)

    @property
    def strays(self) -> int:
        """How many ended as none must."""
        return sum(self.total(end) for end in STRAYS)
