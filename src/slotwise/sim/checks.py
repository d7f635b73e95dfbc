"""What must hold after every turn, whatever the scheduler, the load and the faults. Breach is an AssertionError.

`Checks` sees only what crosses the loop: events in, actions out. So the same object watches a live system.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from slotwise.facts.actions import Action, Load, Reply, RunBatch, Unload, WakeAt
from slotwise.facts.events import (
    Arrived,
    BatchDone,
    BatchFailed,
    Event,
    ExecutorLost,
    ExecutorUp,
    Loaded,
    LoadFailed,
    ModelAdded,
)
from slotwise.facts.residency import Residency
from slotwise.facts.types import ModelSpec, Outcome


class Checks:
    """Watches every turn; an `engine.ports.Recorder`. `ahead_max_ns` bounds the work predicted to be outstanding."""

    def __init__(self, models: Mapping[str, ModelSpec] | None = None, *, ahead_max_ns: int | None = None) -> None:
        """`models` are those known before the first turn; others are learned as they are added."""
        self._models = dict(models or {})
        self._ahead_max_ns = ahead_max_ns
        self._open: set[int] = set()
        self._last_id = -1
        self._running: dict[int, int] = {}
        self._books: dict[str, Residency] = {}
        self._changed: dict[str, None] = {}
        """The executors whose books this turn has changed; to hold all of them against the rules would take long."""
        self._sent: dict[str, dict[int, RunBatch]] = {}
        self._used: Counter[tuple[str, str]] = Counter()
        self.turns = 0
        self.replies: Counter[Outcome] = Counter()

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Hold one turn against the rules."""
        self.turns += 1
        for event in events:
            self._take_event(event)
        for action in actions:
            self._take_action(action, now_ns)
        for executor in self._changed:
            if executor in self._books:
                self._books[executor].check()
        self._changed.clear()

    def finish(self) -> None:
        """At the end of a run that was let go idle: nothing is left open and nothing under way."""
        assert not self._open, f"{len(self._open)} requests were never answered, {sorted(self._open)[:5]} among them"
        assert not self._running, "requests still run though all were answered"

    def _take_event(self, event: Event) -> None:
        if type(event) is Arrived:
            assert event.request.id > self._last_id, f"request {event.request.id} arrived twice, or out of order"
            self._last_id = event.request.id
            self._open.add(event.request.id)
        elif type(event) is ModelAdded:
            self._models[event.spec.id] = event.spec
        elif type(event) is ExecutorUp:
            self._books[event.executor] = Residency(event.memory_bytes, event.page_bytes)
            self._changed[event.executor] = None
            self._sent[event.executor] = {}
        elif type(event) is ExecutorLost:
            self._books.pop(event.executor, None)
            for batch in self._sent.pop(event.executor, {}).values():
                self._forget(batch)
        elif type(event) is BatchDone or type(event) is BatchFailed:
            sent = self._sent.get(event.executor, {})
            if event.batch_id in sent:
                self._forget(sent.pop(event.batch_id))
        elif type(event) is Loaded and event.executor in self._books:
            self._books_of(event.executor).end_load(event.model, event.load_id)
        elif type(event) is LoadFailed and event.executor in self._books:
            self._books_of(event.executor).unload(event.model, event.load_id)

    def _take_action(self, action: Action, now_ns: int) -> None:
        if type(action) is Reply:
            assert action.request_id in self._open, f"request {action.request_id} was answered twice, or never asked"
            self._open.remove(action.request_id)
            self.replies[action.outcome] += 1
        elif type(action) is RunBatch:
            self._take_run(action, now_ns)
        elif type(action) is Load:
            self._books_of(action.executor).begin_load(
                action.model, self._models[action.model].profile.memory_bytes, action.load_id
            )
        elif type(action) is Unload:
            assert not self._used[action.executor, action.model], f"{action.model} was evicted while in use"
            assert self._books_of(action.executor).unload(action.model, action.load_id), "unloaded what was not there"
        elif type(action) is WakeAt:
            assert action.at_ns >= now_ns, "asked to be woken in the past"

    def _books_of(self, executor: str) -> Residency:
        """An executor's books, which the caller is about to change."""
        self._changed[executor] = None
        return self._books[executor]

    def _take_run(self, action: RunBatch, now_ns: int) -> None:
        books = self._books[action.executor]
        assert books.is_ready(action.model), f"{action.model} was sent to {action.executor} where it is not ready"
        assert action.requests, "an empty batch"
        assert action.rows == sum(request.rows for request in action.requests)
        assert len({request.form for request in action.requests}) == 1, "a batch of several forms"
        assert len(action.requests) == 1 or action.rows <= self._models[action.model].batch_max, "batch too large"
        assert action.earliest_ns <= action.latest_ns
        for request in action.requests:
            assert request.model == action.model, "a request was sent to another model"
            assert request.id in self._open, f"request {request.id} runs after its reply"
            assert request.id not in self._running, f"request {request.id} runs twice at once"
            self._running[request.id] = action.batch_id
        if self._ahead_max_ns is not None:
            ahead_ns = sum(batch.expected_ns for batch in self._sent[action.executor].values())
            assert ahead_ns <= self._ahead_max_ns, f"{ahead_ns} ns of work outstanding at {action.executor}"
        self._sent[action.executor][action.batch_id] = action
        self._used[action.executor, action.model] += 1

    def _forget(self, batch: RunBatch) -> None:
        self._used[batch.executor, batch.model] -= 1
        for request in batch.requests:
            self._running.pop(request.id, None)
