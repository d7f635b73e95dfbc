"""What a server, or a node, has done since the last time, in a line. Pure: whoever prints it has the clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from slotwise.edges.fleets.nodes.agent import NodeCounts
from slotwise.facts.actions import Action, Reply
from slotwise.facts.events import Arrived, Event
from slotwise.facts.types import Outcome
from slotwise.facts.units import MS, S

SHOWN = (Outcome.LATE, Outcome.REFUSED, Outcome.DROPPED, Outcome.FAILED, Outcome.CANCELLED)
"""Beside those in time, which have a rate."""


class Tally:
    """Counts what turns bring, until it is told; an `engine.ports.Recorder`."""

    def __init__(self) -> None:
        self._since_ns: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._arrived = 0
        self._outcomes: Counter[Outcome] = Counter()
        self._took_ns = 0
        self._took_ns_max = 0

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Count one turn in."""
        if self._since_ns is None:
            self._since_ns = now_ns
        self._arrived += sum([type(event) is Arrived for event in events])
        for action in actions:
            if type(action) is Reply:
                self._outcomes[action.outcome] += 1
                if action.timing is not None:
                    took_ns = now_ns - action.timing.arrival_ns
                    self._took_ns += took_ns
                    self._took_ns_max = max(self._took_ns_max, took_ns)

    def tell(self, now_ns: int, lag_ns_p99: int) -> str:
        """The line, and a new beginning."""
        seconds = max(1, now_ns - (now_ns if self._since_ns is None else self._since_ns)) / S
        outcomes = self._outcomes
        answered = outcomes[Outcome.IN_TIME] + outcomes[Outcome.LATE]
        line = (
            f"{self._arrived / seconds:.1f} requests/s, {outcomes[Outcome.IN_TIME] / seconds:.1f} in time/s;"
            f" {', '.join(f'{outcome.value} {outcomes[outcome]}' for outcome in SHOWN)};"
            f" answers took {self._took_ns / max(1, answered) / MS:.1f} ms, {self._took_ns_max / MS:.1f} at most;"
            f" lag {lag_ns_p99 / MS:.1f} ms (p99)"
        )
        self._begin()
        self._since_ns = now_ns
        return line


def tell_node(now: NodeCounts, before: NodeCounts, seconds: float) -> str:
    """The line of a node."""
    batches = now.batches - before.batches
    return (
        f"{batches / seconds:.1f} batches/s; failed {now.failures - before.failures}, loads {now.loads - before.loads};"
        f" {now.executors_up} executors up, front {now.front or 'none'}"
    )
