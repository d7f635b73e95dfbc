"""Whom to take of a kind of which not all can be served: those who cost least, and the rest by the kind's share.

What `demand` leaves open is settled here, request by request, once it is known what place there would be: whoever makes
a planned batch cheaper a row is taken on credit, and a slot of its own is given only where its batch has time to grow
to the size that the demand would fill; beyond the share too, while the backlog is too short for batches to fill.
No clock, no I/O.
"""

from __future__ import annotations

from slotwise.facts.types import ModelSpec, Request
from slotwise.policy.demand import Demand, KindDemand
from slotwise.policy.offers import Answer, Offer
from slotwise.policy.turns import Company
from slotwise.policy.view import Ticket, View

GROWTH_SHARE_MIN = 0.25
"""Of its run, what a batch needs of time to fill: what is shorter is lost to the way there and back."""

BATCHES_AHEAD = 2
"""How many full batches may lie before a new one that is only to keep the executor busy: one runs, one fills."""


class Growth:
    """What becomes of a batch: how long it runs then, and how much work before it lets it fill meanwhile (0: none)."""

    __slots__ = ("lasts_ns", "run_ns")

    def __init__(self, run_ns: int, lasts_ns: int) -> None:
        self.run_ns = run_ns
        self.lasts_ns = lasts_ns


class Rationing:
    """Chooses under scarcity. `prompt_share` and `headroom` are shares of a request's allowance."""

    def __init__(self, view: View, demand: Demand, *, prompt_share: float, headroom: float) -> None:
        self._view = view
        self._demand = demand
        self._prompt_share = prompt_share
        self._headroom = headroom

    def takes(self, kind: KindDemand, spec: ModelSpec, ticket: Ticket, answer: Answer, now_ns: int) -> bool:
        """Whether a request that has just arrived may have the place it was offered. Counts it for its kind's share."""
        is_served = kind.take_credit()
        offer = answer.best
        if kind.share >= 1.0 or (self._demand.is_burst and self._is_prompt(offer, ticket, now_ns)):
            return True
        if offer is None:
            return is_served
        if offer.slot is not None:
            is_cheaper = offer.added_ns * offer.slot.rows < offer.slot.cost_ns * ticket.request.rows
            return is_served or is_cheaper
        growth = self._growth(kind, spec, ticket, offer, now_ns)
        backlog_ns = self._backlog_ns(offer, now_ns)
        return (
            (is_served or (kind.is_last and backlog_ns < growth.lasts_ns))
            and backlog_ns <= self._headroom * (ticket.request.deadline_ns - now_ns - offer.added_ns)
            and offer.end_ns - offer.added_ns + growth.run_ns <= ticket.request.deadline_ns
        )

    def company(self, spec: ModelSpec, request: Request, executor: str, now_ns: int) -> Company:
        """How many requests alike had best come at once: as many as pay best in a batch that has time to wait a bit."""
        estimates = self._view.estimates
        allowance_ns = request.deadline_ns - now_ns - estimates.way_ns(executor, spec.id)
        best_ns, best_rows = estimates.run_ns(executor, spec, request.rows, request.work), request.rows
        for rows in spec.profile.rows:
            if request.rows < rows <= spec.batch_max:
                run_ns = estimates.run_ns(executor, spec, rows, request.work)
                if (1.0 + GROWTH_SHARE_MIN) * run_ns <= allowance_ns and run_ns * best_rows <= best_ns * rows:
                    best_ns, best_rows = run_ns, rows
        return Company(requests=best_rows // request.rows, run_ns=best_ns)

    def _is_prompt(self, offer: Offer | None, ticket: Ticket, now_ns: int) -> bool:
        """Whether the answer would come early in its allowance."""
        allowance_ns = ticket.request.deadline_ns - now_ns
        return offer is not None and offer.end_ns - now_ns <= self._prompt_share * allowance_ns

    def _backlog_ns(self, offer: Offer, now_ns: int) -> int:
        """How much work is before those who come next; if it is short, those worth more find a place behind it."""
        return self._view.executors[offer.table.executor].free_ns(now_ns) - now_ns + offer.table.backlog_ns

    def _growth(self, kind: KindDemand, spec: ModelSpec, ticket: Ticket, offer: Offer, now_ns: int) -> Growth:
        """To what the batch of a new slot should grow: the size that pays best of those that would be filled."""
        request, executor = ticket.request, offer.table.executor
        best_ns, best_rows = offer.added_ns, request.rows
        if spec.batch_max == 1 or ticket.alone:
            return Growth(best_ns, 0)
        allowance_ns, per_ns = request.deadline_ns - now_ns, self._demand.rate_per_ns(kind, now_ns)
        for rows in spec.profile.rows:
            if request.rows < rows <= spec.batch_max:
                run_ns = self._view.estimates.run_ns(executor, spec, rows, request.work)
                window_ns = allowance_ns - run_ns
                is_filled = window_ns >= GROWTH_SHARE_MIN * run_ns and window_ns * per_ns >= rows - request.rows
                if is_filled and run_ns * best_rows < best_ns * rows:
                    best_ns, best_rows = run_ns, rows
        missing = max(best_rows - request.rows, 1)
        return Growth(best_ns, max(BATCHES_AHEAD * best_ns, int(missing / per_ns) if per_ns else 0))
