"""Deferred batching, as Symphony has it (Chen et al., 2023): a batch waits as long as waiting can make it larger.

With b requests waiting, the batch is sent when one more could not be waited for: when a batch of b + 1 that began
later would answer its head too late. A full batch is sent at once, and so is every other while some model waits for
room in memory. Executors stay idle meanwhile, which costs nothing while there is capacity to spare, and fills
batches where these pay; nothing is refused.
"""

from __future__ import annotations

from slotwise.facts.events import Event
from slotwise.facts.types import FOREVER_NS, Reason, Refusal
from slotwise.facts.units import MS
from slotwise.facts.value import value
from slotwise.policy.queues import Line
from slotwise.policy.scheduling import Choice, Drop, Run
from slotwise.policy.serving import Serving, ServingSettings
from slotwise.policy.view import ExecutorView, Ticket, View


@value
class DeferredSettings:
    """`buffer_ns` is how long before the deadline an answer is aimed at."""

    buffer_ns: int = 1 * MS
    serving: ServingSettings = ServingSettings()


class Deferred:
    """Serves the batch that must start first, once it must."""

    def __init__(self, view: View, settings: DeferredSettings) -> None:
        self._view = view
        self._settings = settings
        self._serving = Serving(view, settings.serving, lambda ticket: ticket.request.deadline_ns)

    def arrived(self, ticket: Ticket, now_ns: int) -> Refusal | None:
        """Take everything in."""
        self._serving.put(ticket, now_ns)
        return None

    def withdrawn(self, ticket: Ticket, now_ns: int) -> None:
        """Forget a request that has ended."""
        self._serving.queues.remove(ticket)

    def noted(self, event: Event, now_ns: int) -> None:
        """Loads and executors matter; the queue does not care."""
        self._serving.noted(event)

    def choose(self, now_ns: int) -> Choice | None:
        """Give each idle executor the batch with the earliest latest start of those that can wait no longer."""
        queues = self._serving.queues
        for executor in self._view.executors.values():
            if executor.batches or executor.is_replacing:
                continue
            best: Line | None = None
            best_ns = FOREVER_NS
            for line in queues.lines():
                if not executor.can_run(line[0]):
                    continue
                head = queues.head(line)
                if head.request.deadline_ns <= now_ns:
                    queues.remove(head)
                    return Drop(ticket=head, reason=Reason.EXPIRED, message="its deadline passed while it waited")
                latest_ns = self._latest_ns(executor, line, 0)
                if self._due_ns(executor, line) <= now_ns and latest_ns < best_ns:
                    best, best_ns = line, latest_ns
            if best is not None:
                tickets = queues.take(best, self._view.models[best[0]].spec.batch_max)
                return Run(executor=executor.name, model=best[0], tickets=tickets)
        return self._serving.place(now_ns)

    def due_ns(self, now_ns: int) -> int:
        """When the next batch can wait no longer, at an executor that is idle."""
        due_ns = FOREVER_NS
        for executor in self._view.executors.values():
            if not executor.batches:
                for line in self._serving.queues.lines():
                    if executor.can_run(line[0]):
                        due_ns = min(due_ns, self._due_ns(executor, line))
        return max(due_ns, now_ns + 1)

    def _due_ns(self, executor: ExecutorView, line: Line) -> int:
        """From when on the line's batch cannot grow by waiting, or must not; 0 for at once."""
        is_full = self._serving.queues.waiting(line) >= self._view.models[line[0]].spec.batch_max
        return 0 if is_full or self._serving.is_short else self._latest_ns(executor, line, 1)

    def _latest_ns(self, executor: ExecutorView, line: Line, more: int) -> int:
        """The latest start of those who wait, and so many more, that answers the first of them in time."""
        queues, spec = self._serving.queues, self._view.models[line[0]].spec
        request = queues.head(line).request
        rows = min(spec.batch_max, queues.waiting(line) + more)
        run_ns = self._view.estimates.run_ns(executor.name, spec, rows, request.work)
        return request.deadline_ns - self._settings.buffer_ns - run_ns
