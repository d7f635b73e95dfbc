"""Requests that wait, in one line per model and form: the structure under the baselines.

A line is a heap in the order of a key that the scheduler gives (arrival, deadline, ...); ties keep the order of
coming. Every executor has a heap of the heads of those lines that it could run, so that the first of them is found
without a walk over all models. Entries that no longer hold are passed over when they come up.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable

from slotwise.policy.view import ExecutorView, Ticket, View

Line = tuple[str, int]
"""A model and a form: what may share a batch."""
Entry = tuple[int, int, Ticket]
Head = tuple[int, int, Line]


class Queues:
    """Waiting requests by model and form."""

    def __init__(self, view: View, key_ns: Callable[[Ticket], int]) -> None:
        self._view = view
        self._key_ns = key_ns
        self._serial = itertools.count()
        self._lines: dict[str, dict[Line, list[Entry]]] = {}
        self._serials: dict[int, int] = {}
        """The serial number of everyone's entry; an entry with another one is out of date."""
        self._lengths: Counter[str] = Counter()
        self._waiting: Counter[Line] = Counter()
        self._heads: dict[str, list[Head]] = {}

    def __len__(self) -> int:
        return len(self._serials)

    def length(self, model: str) -> int:
        """How many requests wait for a model."""
        return self._lengths[model]

    def waiting(self, line: Line) -> int:
        """How many requests wait in a line."""
        return self._waiting[line]

    def lines(self) -> list[Line]:
        """Every line in which requests wait."""
        return [name for lines in self._lines.values() for name in lines]

    def models(self) -> list[str]:
        """Models that requests wait for."""
        return list(self._lines)

    def put(self, ticket: Ticket) -> None:
        """Let a request wait."""
        serial = next(self._serial)
        name = (ticket.request.model, ticket.request.form)
        self._serials[ticket.request.id] = serial
        self._lengths[name[0]] += 1
        self._waiting[name] += 1
        line = self._lines.setdefault(name[0], {}).setdefault(name, [])
        heapq.heappush(line, (self._key_ns(ticket), serial, ticket))
        if line[0][1] == serial:
            self._offer(name)

    def remove(self, ticket: Ticket) -> None:
        """Let it wait no more."""
        serial = self._serials.pop(ticket.request.id)
        name = (ticket.request.model, ticket.request.form)
        self._lengths[name[0]] -= 1
        self._waiting[name] -= 1
        if self._lines[name[0]][name][0][1] == serial:
            self._settle(name)

    def ready(self, executor: ExecutorView, model: str) -> None:
        """A model can be run at an executor from now on."""
        for name, line in self._lines.get(model, {}).items():
            heapq.heappush(self._heads.setdefault(executor.name, []), (*line[0][:2], name))

    def lost(self, executor: str) -> None:
        """An executor is gone."""
        self._heads.pop(executor, None)

    def first(self, executor: ExecutorView) -> Line | None:
        """The line whose head comes first of those that the executor can run."""
        heads = self._heads.get(executor.name, [])
        while heads:
            key_ns, serial, name = heads[0]
            line = self._lines.get(name[0], {}).get(name)
            if line is not None and line[0][:2] == (key_ns, serial) and executor.can_run(name[0]):
                return name
            heapq.heappop(heads)
        return None

    def head(self, name: Line) -> Ticket:
        """The first request of a line."""
        return self._lines[name[0]][name][0][2]

    def head_key_ns(self, model: str) -> int:
        """The least key of those that wait for a model."""
        return min(line[0][0] for line in self._lines[model].values())

    def take(self, name: Line, rows_max: int) -> tuple[Ticket, ...]:
        """Take from the head as many as share a batch of at most `rows_max` rows; at least one."""
        line = self._lines[name[0]][name]
        taken: list[Ticket] = []
        rows = 0
        while line:
            _, serial, ticket = line[0]
            if self._serials.get(ticket.request.id) == serial:
                rows += ticket.request.rows
                if taken and (rows > rows_max or ticket.alone or taken[0].alone):
                    break
                taken.append(ticket)
                del self._serials[ticket.request.id]
            heapq.heappop(line)
        self._lengths[name[0]] -= len(taken)
        self._waiting[name] -= len(taken)
        self._settle(name)
        return tuple(taken)

    def _settle(self, name: Line) -> None:
        """The head of a line has left: let the next one that still waits take its place."""
        lines = self._lines[name[0]]
        line = lines[name]
        while line and self._serials.get(line[0][2].request.id) != line[0][1]:
            heapq.heappop(line)
        if line:
            self._offer(name)
            return
        del lines[name], self._waiting[name]
        if not lines:
            del self._lines[name[0]], self._lengths[name[0]]

    def _offer(self, name: Line) -> None:
        head = (*self._lines[name[0]][name][0][:2], name)
        for executor in self._view.executors.values():
            if executor.can_run(name[0]):
                heapq.heappush(self._heads.setdefault(executor.name, []), head)
