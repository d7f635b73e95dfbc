"""Clients in virtual time: they count what they are told, and can send again when they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from slotwise.engine.clock import VirtualClock
from slotwise.facts.actions import Reply
from slotwise.facts.types import Outcome, Reason, Request
from slotwise.facts.value import value


@value
class Tally:
    """How the requests of one model ended. Latencies count answers only, early or late."""

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


class SimFront:
    """Keeps open requests and tallies; an `engine.ports.Front`. `on_reply` lets closed-loop clients go on."""

    def __init__(self, clock: VirtualClock, on_reply: Callable[[Request, Reply], None] | None = None) -> None:
        self._clock = clock
        self._on_reply = on_reply
        self._open: dict[int, Request] = {}
        self._offered: Counter[str] = Counter()
        self._outcomes: dict[str, Counter[Outcome]] = {}
        self._reasons: dict[str, Counter[Reason]] = {}
        self._latencies_ns: dict[str, list[int]] = {}
        self._refusals_ns: dict[str, list[int]] = {}

    def expect(self, request: Request) -> None:
        """A request was sent and must be answered once."""
        self._open[request.id] = request
        self._offered[request.model] += 1

    def reply(self, reply: Reply) -> None:
        """Count the answer. A second one, or one to nobody, is our bug."""
        assert reply.request_id in self._open, f"request {reply.request_id} was not open: {reply}"
        request = self._open.pop(reply.request_id)
        self._outcomes.setdefault(request.model, Counter())[reply.outcome] += 1
        self._reasons.setdefault(request.model, Counter())[reply.reason] += 1
        took_ns = self._clock.now_ns() - request.arrival_ns
        if reply.outcome in (Outcome.IN_TIME, Outcome.LATE):
            self._latencies_ns.setdefault(request.model, []).append(took_ns)
        elif reply.outcome is Outcome.REFUSED:
            self._refusals_ns.setdefault(request.model, []).append(took_ns)
        if self._on_reply is not None:
            self._on_reply(request, reply)

    def unanswered(self) -> int:
        """Requests that still wait."""
        return len(self._open)

    def tally(self, *models: str) -> Tally:
        """How the requests of these models (of all, when none is named) ended."""
        names = models or tuple(self._offered)
        outcomes: Counter[Outcome] = sum((self._outcomes.get(name, Counter()) for name in names), Counter())
        reasons: Counter[Reason] = sum((self._reasons.get(name, Counter()) for name in names), Counter())
        latencies = sorted(ns for name in names for ns in self._latencies_ns.get(name, ()))
        refusals = sorted(ns for name in names for ns in self._refusals_ns.get(name, ()))
        return Tally(
            offered=sum(self._offered[name] for name in names),
            outcomes=dict(outcomes),
            reasons=dict(reasons),
            latency_ns_p50=_at(latencies, 0.5),
            latency_ns_p99=_at(latencies, 0.99),
            latency_ns_max=latencies[-1] if latencies else 0,
            refusal_ns_p50=_at(refusals, 0.5),
        )


def _at(ascending: list[int], share: float) -> int:
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))] if ascending else 0
