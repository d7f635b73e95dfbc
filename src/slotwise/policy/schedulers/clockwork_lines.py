"""What Clockwork keeps of waiting requests and of executors: batch queues, trackers of availability, strategies.

A `Line` has one queue for each batch size, and every request of the line stands in all of them until it is taken,
or cannot be served in a batch of that size any more. Requests share a line if they may share a batch; one of
several rows, or that must run alone, has a line with the single size 1. Pure state: when and where
a batch runs is decided in `clockwork`.
"""

from __future__ import annotations

from collections import deque

from slotwise.facts.types import FOREVER_NS, ModelSpec, Request
from slotwise.policy.estimates import Estimates
from slotwise.policy.view import Ticket

LineName = tuple[int, int, int]
"""Form, rows, and the id of a request that must run alone (else 0)."""


def line_name(ticket: Ticket) -> LineName:
    """The line that a request belongs to."""
    request = ticket.request
    return (request.form, request.rows, request.id if ticket.alone else 0)


class Waiting:
    """A request that waits for its batch. `due_ns` is the effective deadline, a little before the client's."""

    __slots__ = ("due_ns", "line", "load_work_ns", "run_work_ns", "serial", "ticket")

    def __init__(self, ticket: Ticket, line: Line, serial: int, due_ns: int) -> None:
        self.ticket = ticket
        self.line = line
        self.serial = serial
        self.due_ns = due_ns
        self.run_work_ns = 0
        self.load_work_ns = 0


class Line:
    """Requests that may share a batch, in order of arrival, once for each batch size."""

    __slots__ = ("_queues", "_work", "model", "name", "rows", "sizes")

    def __init__(self, name: LineName, head: Request, sizes: tuple[int, ...]) -> None:
        self.name = name
        self.model = head.model
        self.sizes = sizes
        self.rows = head.rows
        self._work = head.work
        self._queues: tuple[deque[Waiting], ...] = tuple(deque() for _ in sizes)

    def __len__(self) -> int:
        return len(self._queues[0])

    def put(self, waiting: Waiting) -> None:
        """Join every queue."""
        for queue in self._queues:
            queue.append(waiting)

    def remove(self, waiting: Waiting) -> None:
        """Leave every queue that it has not left as its head."""
        for queue in self._queues:
            if queue and queue[0].serial <= waiting.serial <= queue[-1].serial:
                queue.remove(waiting)

    def level(self) -> int:
        """How many of `sizes`, from the smallest, can be filled, whatever the deadlines."""
        level = 0
        for size, queue in zip(self.sizes, self._queues, strict=True):
            if len(queue) < size:
                break
            level += 1
        return level

    def run_ns(self, size: int, executor: str, spec: ModelSpec, estimates: Estimates) -> int:
        """Expected time of a full batch of a size."""
        return estimates.run_ns(executor, spec, size * self.rows, self._work)

    def latest_ns(self, level: int, executor: str, spec: ModelSpec, estimates: Estimates) -> int:
        """The latest start of a full batch of the size at `level` that answers its head before it is due."""
        return self._queues[level - 1][0].due_ns - self.run_ns(self.sizes[level - 1], executor, spec, estimates)

    def take(self, level: int, start_ns: int, executor: str, spec: ModelSpec, estimates: Estimates) -> list[Waiting]:
        """The largest full batch, of at least the size at `level`, whose head is in time; empty if there is none.

        Heads that a batch of a size would answer too late leave the queue of that size. Whoever arrived before the
        last one taken leaves all queues, taken or not.
        """
        reached = 0
        for size, queue in zip(self.sizes, self._queues, strict=True):
            end_ns = start_ns + self.run_ns(size, executor, spec, estimates) if len(queue) >= size else FOREVER_NS
            while len(queue) >= size and queue[0].due_ns < end_ns:
                queue.popleft()
            if len(queue) < size:
                break
            reached += 1
        return self._pop(reached) if reached >= level else []

    def _pop(self, level: int) -> list[Waiting]:
        queue = self._queues[level - 1]
        taken = [queue.popleft() for _ in range(self.sizes[level - 1])]
        last = taken[-1].serial
        for queue in self._queues:
            while queue and queue[0].serial <= last:
                queue.popleft()
        return taken


class Tracker:
    """When an executor will have done what it was sent: its batches in order, or its loads.

    `future_ns` is what an action takes to get there. One that overruns in silence by more than `lag_ns` is taken to
    have begun later than it did, so that what follows it stays bounded.
    """

    __slots__ = ("_begin_ns", "_future_ns", "_lag_ns", "_sizes_ns", "_total_ns")

    def __init__(self, future_ns: int, lag_ns: int) -> None:
        self._future_ns = future_ns
        self._lag_ns = lag_ns
        self._sizes_ns: dict[int, int] = {}
        self._total_ns = 0
        self._begin_ns = 0

    def sent(self, number: int, expected_ns: int, now_ns: int) -> None:
        """An action is on its way."""
        if not self._sizes_ns:
            self._begin_ns = now_ns
        self._sizes_ns[number] = expected_ns
        self._total_ns += expected_ns

    def done(self, number: int, ended_ns: int) -> None:
        """An action has succeeded, in its turn or out of it."""
        is_head = self._is_head(number)
        expected_ns = self._remove(number)
        self._begin_ns = ended_ns if is_head else self._begin_ns + expected_ns

    def failed(self, number: int, now_ns: int) -> None:
        """An action has come back undone."""
        if self._is_head(number):
            self._begin_ns = now_ns
        self._remove(number)

    def free_ns(self, now_ns: int) -> int:
        """When the next action could start, at the earliest."""
        if not self._sizes_ns:
            return now_ns + self._future_ns
        head_ns = next(iter(self._sizes_ns.values()))
        self._begin_ns = max(self._begin_ns, now_ns - self._lag_ns - head_ns)
        return max(self._begin_ns + self._total_ns, now_ns + self._future_ns)

    def room_ns(self, ahead_ns: int) -> int:
        """The instant from which less than `ahead_ns` will be outstanding; FOREVER_NS if a result must come first."""
        if not self._sizes_ns:
            return 0
        head_ns = next(iter(self._sizes_ns.values()))
        if self._total_ns - head_ns >= self._lag_ns + ahead_ns:
            return FOREVER_NS
        return self._begin_ns + self._total_ns - ahead_ns + 1

    def _is_head(self, number: int) -> bool:
        return next(iter(self._sizes_ns), None) == number

    def _remove(self, number: int) -> int:
        expected_ns = self._sizes_ns.pop(number)
        self._total_ns -= expected_ns
        return expected_ns


Strategy = tuple[int, int, str, int, int, Line]
"""Latest start, batch size, model, a serial number for ties, the level of the size, line."""


class Lane:
    """An executor as Clockwork sees it: a strategy for each line that it could serve, and its batches under way."""

    __slots__ = ("alarm_ns", "heap", "name", "running", "strategies", "tracker")

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name = name
        self.tracker = tracker
        self.alarm_ns = 0
        self.heap: list[Strategy] = []
        self.strategies: dict[Line, Strategy] = {}
        self.running: dict[int, list[Waiting]] = {}
