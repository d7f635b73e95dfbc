"""Whom to take of a kind of which not all can be served: those who cost least, and the rest by the kind's share.

What `demand` leaves open is settled here, request by request, once it is known what place there would be: whoever makes
a planned batch cheaper a row is taken on credit, and a slot of its own is given only where its batch has time to grow
to the size that the demand would fill. No clock, no I/O.
"""

from __future__ import annotations

from slotwise.facts.types import ModelSpec
from slotwise.policy.demand import Demand, KindDemand
from slotwise.policy.offers import Answer, Offer
from slotwise.policy.view import Ticket, View

GROWTH_SHARE_MIN = 0.25
"""Of its run, what a batch needs of time to fill: what is shorter is lost to the way there and back."""


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
        return (
            (is_served or kind.is_last)
            and self._has_headroom(offer, ticket, now_ns)
            and self._can_grow(kind, spec, ticket, offer, now_ns)
        )

    def _is_prompt(self, offer: Offer | None, ticket: Ticket, now_ns: int) -> bool:
        """Whether the answer would come early in its allowance."""
        allowance_ns = ticket.request.deadline_ns - now_ns
        return offer is not None and offer.end_ns - now_ns <= self._prompt_share * allowance_ns

    def _has_headroom(self, offer: Offer, ticket: Ticket, now_ns: int) -> bool:
        """Whether the backlog stays short enough that those worth more than this request find a place behind it."""
        free_ns = self._view.executors[offer.table.executor].free_ns(now_ns)
        backlog_ns = free_ns - now_ns + offer.table.backlog_ns
        return backlog_ns <= self._headroom * (ticket.request.deadline_ns - now_ns - offer.added_ns)

    def _can_grow(self, kind: KindDemand, spec: ModelSpec, ticket: Ticket, offer: Offer, now_ns: int) -> bool:
        """Whether a new slot leaves its batch time to grow to the size that pays best of those that would be filled."""
        if spec.batch_max == 1 or ticket.alone:
            return True
        request, executor = ticket.request, offer.table.executor
        allowance_ns, per_ns = request.deadline_ns - now_ns, self._demand.rate_per_ns(kind, now_ns)
        best_ns, best_rows = offer.added_ns, request.rows
        for rows in spec.profile.rows:
            if request.rows < rows <= spec.batch_max:
                run_ns = self._view.estimates.run_ns(executor, spec, rows, request.work)
                window_ns = allowance_ns - run_ns
                is_filled = window_ns >= GROWTH_SHARE_MIN * run_ns and window_ns * per_ns >= rows - request.rows
                if is_filled and run_ns * best_rows < best_ns * rows:
                    best_ns, best_rows = run_ns, rows
        return offer.end_ns - offer.added_ns + best_ns <= request.deadline_ns
