"""What the simple schedulers share: requests that wait for executors, and models that are loaded for them.

An executor that is about to run dry is given the line whose head comes first; what it does with it is the scheduler's.
A model that requests wait for and that no executor holds is wanted everywhere, or where the scheduler says.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from slotwise.facts.events import (
    BatchDone,
    BatchFailed,
    Event,
    ExecutorLost,
    ExecutorUp,
    Loaded,
    LoadFailed,
    Unloaded,
)
from slotwise.facts.types import FOREVER_NS
from slotwise.facts.units import MS
from slotwise.facts.value import value
from slotwise.policy.demand import Demand, DemandSettings
from slotwise.policy.placement import Placement, PlacementSettings
from slotwise.policy.queues import Line, Queues
from slotwise.policy.scheduling import IN_FLIGHT_MAX, LoadModel, UnloadModel
from slotwise.policy.view import ExecutorView, Ticket, View


@value
class ServingSettings:
    """`ahead_ns` of work may lie at an executor; memory is filled as `placement` says."""

    ahead_ns: int = 1 * MS
    placement: PlacementSettings = PlacementSettings(evict_waiting=True)


@value
class Turn:
    """It is this line's turn at this executor."""

    executor: str
    line: Line


class Serving:
    """Lines of requests before the executors. `key_ns` says in which order they are served.

    `homes` names the executors that are to load a model which none of them holds; without it all are.
    """

    def __init__(
        self,
        view: View,
        settings: ServingSettings,
        key_ns: Callable[[Ticket], int],
        homes: Callable[[str], Iterable[str]] | None = None,
    ) -> None:
        self.queues = Queues(view, key_ns)
        self._view = view
        self._settings = settings
        self._homes = homes
        self._demand = Demand(DemandSettings())
        self._placement = Placement(
            view, self._demand, settings.placement, lambda model, _executor: self.queues.length(model) > 0
        )
        self._homeless: dict[str, None] = {}

    def put(self, ticket: Ticket, now_ns: int) -> None:
        """Let a request wait, and its model be loaded where no executor holds it."""
        request = ticket.request
        self._demand.note(request.model, request.priority, request.deadline_ns - now_ns, 1.0, 1, now_ns)
        self.queues.put(ticket)
        self._see_to(request.model)

    def noted(self, event: Event) -> None:
        """Follow executors and what they hold."""
        self._placement.noted(event)
        match event:
            case Loaded():
                self._homeless.pop(event.model, None)
                self.queues.ready(self._view.executors[event.executor], event.model)
            case LoadFailed() | Unloaded():
                self._see_to(event.model)
            case ExecutorUp():
                self._see_to(*self.queues.models())
            case ExecutorLost():
                self.queues.lost(event.executor)
                self._see_to(*self.queues.models())
            case BatchDone() | BatchFailed():
                # What could not be evicted while it ran may go now.
                self._see_to(*itertools.islice(self._homeless, 1))

    @property
    def is_short(self) -> bool:
        """Whether requests wait for a model that no executor holds."""
        return bool(self._homeless)

    def want(self, executor: str, model: str, now_ns: int) -> None:
        """Have a model loaded at an executor as well."""
        self._placement.want(executor, model, now_ns)

    def turn(self, now_ns: int) -> Turn | None:
        """The first executor that is about to run dry and could run something, and the line that is first there."""
        for executor in self._view.executors.values():
            if self._is_hungry(executor, now_ns):
                line = self.queues.first(executor)
                if line is not None:
                    return Turn(executor=executor.name, line=line)
        return None

    def place(self, now_ns: int) -> LoadModel | UnloadModel | None:
        """See to the memory."""
        return self._placement.choose(now_ns)

    def due_ns(self, now_ns: int) -> int:
        """When the next executor is about to run dry, if anything waits."""
        if not len(self.queues):
            return FOREVER_NS
        ends = [e.free_ns(now_ns) - self._settings.ahead_ns for e in self._view.executors.values() if e.batches]
        return min((end for end in ends if end > now_ns), default=FOREVER_NS)

    def _is_hungry(self, executor: ExecutorView, now_ns: int) -> bool:
        return len(executor.batches) < IN_FLIGHT_MAX and executor.free_ns(now_ns) - now_ns <= self._settings.ahead_ns

    def _see_to(self, *models: str) -> None:
        """Ask for each of these models everywhere, if requests wait for it and no executor holds it."""
        executors = self._view.executors
        for model in models:
            if not self.queues.length(model) or self._view.copies(model):
                self._homeless.pop(model, None)
                continue
            self._homeless[model] = None
            for name in executors if self._homes is None else self._homes(model):
                self._placement.want(name, model, self.queues.head_key_ns(model))
