"""What a scheduler is: the questions that the controller asks, and the choices that answer them.

A scheduler chooses one thing at a time. The controller carries each choice into the view before it asks
again, so a scheduler always looks at a world in which its last choice has been made.
"""

from __future__ import annotations

from typing import Final, Protocol

from slotwise.facts.events import Event
from slotwise.facts.types import FOREVER_NS, Reason, Refusal
from slotwise.facts.value import value
from slotwise.policy.view import BatchInFlight, Ticket

IN_FLIGHT_MAX: Final = 2
"""Batches that may be at an executor at once: the one that runs, and one that waits so that none is waited for."""


class Run:
    """Run these requests of one model together. The model must be ready at the executor."""

    __slots__ = ("executor", "latest_ns", "model", "tickets")

    def __init__(self, *, executor: str, model: str, tickets: tuple[Ticket, ...], latest_ns: int = FOREVER_NS) -> None:
        self.executor = executor
        self.model = model
        self.tickets = tickets
        self.latest_ns = latest_ns


@value
class LoadModel:
    """Make a model resident. There must be room for it."""

    executor: str
    model: str


@value
class UnloadModel:
    """Make room. No batch of the model may be under way at the executor."""

    executor: str
    model: str


@value
class Stop:
    """Stop a batch under way; its requests wait again."""

    executor: str
    batch: BatchInFlight


@value
class Drop:
    """Give a waiting request up."""

    ticket: Ticket
    reason: Reason
    message: str = ""
    predicted_ns: int = FOREVER_NS


Choice = Run | LoadModel | UnloadModel | Stop | Drop


class Scheduler(Protocol):
    """Decides which batch runs next, and who is told no."""

    def arrived(self, ticket: Ticket, now_ns: int) -> Refusal | None:
        """Take a waiting request in, or say why not. Also asked for one that is to be tried again."""

    def withdrawn(self, ticket: Ticket, now_ns: int) -> None:
        """A waiting request has ended for another reason."""

    def noted(self, event: Event, now_ns: int) -> None:
        """Something else has happened; the view holds it already."""

    def choose(self, now_ns: int) -> Choice | None:
        """The next thing to do, or None when there is nothing to do now."""

    def due_ns(self, now_ns: int) -> int:
        """When to ask again even if nothing happens; FOREVER_NS for never."""
