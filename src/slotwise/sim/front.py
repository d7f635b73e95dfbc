"""Clients in virtual time: they count what they are told, and can send again when they are.

Nothing is kept of a request that has ended, so that a simulated week takes no more memory than an hour.
"""

from __future__ import annotations

from collections.abc import Callable

from slotwise.engine.clock import VirtualClock
from slotwise.facts.actions import Reply
from slotwise.facts.histogram import LogHistogram
from slotwise.facts.types import Outcome, Reason, Request
from slotwise.facts.value import value


@value
class Tally:
    """How the requests of some models ended. Latencies count answers only, early or late.

    Quantiles are near the true ones, within `facts.histogram.ERROR_MAX` of them; the longest is exact.
    """

    offered: int
    outcomes: dict[Outcome, int]
    reasons: dict[Reason, int]
    latency_ns_p50: int
    latency_ns_p99: int
    latency_ns_max: int
    refusal_ns_p50: int

    @property
    def in_time(self) -> int:
        """Answers inside their deadline."""
        return self.outcomes.get(Outcome.IN_TIME, 0)


class _Ends:
    """How requests of one model have ended so far."""

    __slots__ = ("latencies", "offered", "outcomes", "reasons", "refusals")

    def __init__(self) -> None:
        self.offered = 0
        self.outcomes: dict[Outcome, int] = {}
        self.reasons: dict[Reason, int] = {}
        self.latencies = LogHistogram()
        self.refusals = LogHistogram()

    def add(self, other: _Ends) -> None:
        self.offered += other.offered
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count
        for reason, count in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count
        self.latencies.merge(other.latencies)
        self.refusals.merge(other.refusals)


class SimFront:
    """Keeps open requests and counts the others; an `engine.ports.Front`. `on_reply` lets closed-loop clients go on."""

    def __init__(self, clock: VirtualClock, on_reply: Callable[[Request, Reply], None] | None = None) -> None:
        self._clock = clock
        self._on_reply = on_reply
        self._open: dict[int, Request] = {}
        self._ends: dict[str, _Ends] = {}

    def expect(self, request: Request) -> None:
        """A request was sent and must be answered once."""
        self._open[request.id] = request
        ends = self._ends.get(request.model)
        if ends is None:
            ends = self._ends[request.model] = _Ends()
        ends.offered += 1

    def reply(self, reply: Reply) -> None:
        """Count the answer. A second one, or one to nobody, is our bug."""
        request = self._open.pop(reply.request_id, None)
        assert request is not None, f"request {reply.request_id} was not open: {reply}"
        outcome, reason = reply.outcome, reply.reason
        ends = self._ends[request.model]
        ends.outcomes[outcome] = ends.outcomes.get(outcome, 0) + 1
        ends.reasons[reason] = ends.reasons.get(reason, 0) + 1
        took_ns = self._clock.now_ns() - request.arrival_ns
        if outcome is Outcome.IN_TIME or outcome is Outcome.LATE:
            ends.latencies.add(took_ns)
        elif outcome is Outcome.REFUSED:
            ends.refusals.add(took_ns)
        if self._on_reply is not None:
            self._on_reply(request, reply)

    def unanswered(self) -> int:
        """Requests that still wait."""
        return len(self._open)

    def tally(self, *models: str) -> Tally:
        """How the requests of these models (of all, when none is named) ended."""
        ends = _Ends()
        for name in models or tuple(self._ends):
            if name in self._ends:
                ends.add(self._ends[name])
        return Tally(
            offered=ends.offered,
            outcomes=dict(ends.outcomes),
            reasons=dict(ends.reasons),
            latency_ns_p50=ends.latencies.quantile(0.5),
            latency_ns_p99=ends.latencies.quantile(0.99),
            latency_ns_max=ends.latencies.ns_max,
            refusal_ns_p50=ends.refusals.quantile(0.5),
        )
