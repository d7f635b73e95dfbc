"""Requests that wait, in one line per model and form: the structure under the baselines.

A line is kept in the order of a key that the scheduler gives (arrival, deadline, ...); ties keep the order of
coming. Lines are few and short where load is bounded; nothing here is meant for the hottest path.
"""

from __future__ import annotations

import itertools
from bisect import insort
from collections.abc import Callable, Iterable

from slotwise.policy.view import Ticket

Line = tuple[str, int]
"""A model and a form: what may share a batch."""
Entry = tuple[int, int, Ticket]


class Queues:
    """Waiting requests by model and form."""

    def __init__(self, key_ns: Callable[[Ticket], int]) -> None:
        self._key_ns = key_ns
        self._serial = itertools.count()
        self._lines: dict[Line, list[Entry]] = {}
        self._entries: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def length(self, model: str) -> int:
        """How many requests wait for a model."""
        return sum(len(line) for (name, _), line in self._lines.items() if name == model)

    def models(self) -> list[str]:
        """Models that requests wait for."""
        return list(dict.fromkeys(model for model, _ in self._lines))

    def put(self, ticket: Ticket) -> None:
        """Let a request wait."""
        entry = (self._key_ns(ticket), next(self._serial), ticket)
        self._entries[ticket.request.id] = entry
        insort(self._lines.setdefault((ticket.request.model, ticket.request.form), []), entry)

    def remove(self, ticket: Ticket) -> None:
        """Let it wait no more."""
        entry = self._entries.pop(ticket.request.id)
        name = (ticket.request.model, ticket.request.form)
        line = self._lines[name]
        line.remove(entry)
        if not line:
            del self._lines[name]

    def first(self, runnable: Callable[[str], bool]) -> Line | None:
        """The line whose head comes first of those whose model can run."""
        heads = [(line[0][:2], name) for name, line in self._lines.items() if runnable(name[0])]
        return min(heads)[1] if heads else None

    def head(self, name: Line) -> Ticket:
        """The first request of a line."""
        return self._lines[name][0][2]

    def head_key_ns(self, model: str) -> int:
        """The least key of those that wait for a model."""
        return min(line[0][0] for (name, _), line in self._lines.items() if name == model)

    def heads(self) -> Iterable[Ticket]:
        """The first request of every line."""
        return [line[0][2] for line in self._lines.values()]

    def take(self, name: Line, rows_max: int) -> tuple[Ticket, ...]:
        """Take from the head as many as share a batch of at most `rows_max` rows; at least one."""
        taken: list[Ticket] = []
        rows = 0
        for _, _, ticket in self._lines[name]:
            rows += ticket.request.rows
            if taken and (rows > rows_max or ticket.alone or taken[0].alone):
                break
            taken.append(ticket)
        for ticket in taken:
            self.remove(ticket)
        return tuple(taken)
