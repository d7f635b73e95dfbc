"""Turns into rows: a `ports.Recorder` that puts the two ends of each request and of each action together.

It keeps what is under way and nothing else, and hands every row to a function at once; files are `writer`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from slotwise.edges.logs.rows import EVICT, INFER, LOAD, LOST, OK, ActionRow, RequestRow
from slotwise.facts.actions import Action, Load, Reply, RunBatch, Unload
from slotwise.facts.events import (
    Arrived,
    BatchDone,
    BatchFailed,
    Event,
    ExecutorLost,
    Loaded,
    LoadFailed,
    ModelAdded,
    ModelRemoved,
    Unloaded,
)
from slotwise.facts.types import FOREVER_NS, ModelSpec, Outcome, Request
from slotwise.facts.value import value


class _Open:
    """A request under way."""

    __slots__ = ("copies", "is_cold", "is_sent", "request")

    def __init__(self, request: Request, copies: int, is_cold: bool) -> None:
        self.request = request
        self.copies = copies
        self.is_cold = is_cold
        """For a request to a pipeline, whether one of its steps was."""
        self.is_sent = False


class _Sent:
    """An action under way."""

    __slots__ = ("action", "at_ns", "expected_end_ns")

    def __init__(self, action: RunBatch | Load | Unload, at_ns: int, expected_end_ns: int | None = None) -> None:
        self.action = action
        self.at_ns = at_ns
        self.expected_end_ns = expected_end_ns
        """Of a load; that of a batch comes with its answers."""


@value
class _Back:
    """An action whose end has come, and what was told of it."""

    sent: _Sent
    status: str
    message: str = ""
    started_ns: int = 0
    ended_ns: int = 0
    cpu_ns: int | None = None


class LogRecorder:
    """Makes the rows of both logs. An action that has not come back at the end has no row."""

    def __init__(self, put_request: Callable[[RequestRow], None], put_action: Callable[[ActionRow], None]) -> None:
        self._put_request = put_request
        self._put_action = put_action
        self._specs: dict[str, ModelSpec] = {}
        self._open: dict[int, _Open] = {}
        self._waiting: dict[str, int] = {}
        """Requests that wait, by model."""
        self._holders: dict[str, set[str]] = {}
        """Executors that hold a model ready, by model."""
        self._batches: dict[int, _Sent] = {}
        self._loads: dict[int, _Sent] = {}
        self._unloads: dict[int, _Sent] = {}
        self._back: list[_Back] = []
        """Of this turn."""
        self._replies: dict[int, Reply] = {}
        """Answers of this turn."""
        self._takers: dict[type, Callable[..., None]] = {
            ModelAdded: self._model_added,
            ModelRemoved: self._model_removed,
            Arrived: self._arrived,
            BatchDone: self._batch_done,
            BatchFailed: self._batch_failed,
            Loaded: self._loaded,
            LoadFailed: self._load_failed,
            Unloaded: self._unloaded,
            ExecutorLost: self._executor_lost,
            RunBatch: self._run_batch,
            Load: self._load,
            Unload: self._unload,
            Reply: self._reply,
        }

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Take one turn in."""
        takers = self._takers
        for moment in (*events, *actions):
            take = takers.get(type(moment))
            if take is not None:
                take(moment, now_ns)
        for back in self._back:
            self._put_action(self._action_row(back, now_ns))
        self._back.clear()
        self._replies.clear()

    # Events

    def _model_added(self, event: ModelAdded, now_ns: int) -> None:
        self._specs[event.spec.id] = event.spec

    def _model_removed(self, event: ModelRemoved, now_ns: int) -> None:
        self._specs.pop(event.model, None)

    def _arrived(self, event: Arrived, now_ns: int) -> None:
        request, spec = event.request, self._specs.get(event.request.model)
        copies = self._copies(request.model)
        is_pipeline = spec is not None and bool(spec.steps)
        self._open[request.id] = _Open(request, copies, is_cold=copies == 0 and not is_pipeline)
        whole = self._open.get(request.step_of.request_id) if request.step_of is not None else None
        if whole is not None:
            whole.is_cold |= copies == 0
        self._wait(request.model, 1)

    def _batch_done(self, event: BatchDone, now_ns: int) -> None:
        sent = self._batches.pop(event.batch_id, None)
        if sent is not None:
            self._back.append(
                _Back(sent=sent, status=OK, started_ns=event.started_ns, ended_ns=event.ended_ns, cpu_ns=event.cpu_ns)
            )

    def _batch_failed(self, event: BatchFailed, now_ns: int) -> None:
        sent = self._batches.pop(event.batch_id, None)
        if sent is not None:
            self._wait_again(sent.action)
            self._back.append(
                _Back(
                    sent=sent,
                    status=event.failure.value,
                    message=event.message,
                    started_ns=event.started_ns,
                    ended_ns=event.ended_ns,
                )
            )

    def _loaded(self, event: Loaded, now_ns: int) -> None:
        sent = self._loads.pop(event.load_id, None)
        if sent is not None:
            self._holders.setdefault(event.model, set()).add(event.executor)
            self._back.append(_Back(sent=sent, status=OK, started_ns=event.started_ns, ended_ns=event.ended_ns))

    def _load_failed(self, event: LoadFailed, now_ns: int) -> None:
        sent = self._loads.pop(event.load_id, None)
        if sent is not None:
            self._back.append(_Back(sent=sent, status=event.failure.value, message=event.message))

    def _unloaded(self, event: Unloaded, now_ns: int) -> None:
        sent = self._unloads.pop(event.load_id, None)
        if sent is not None:
            self._back.append(_Back(sent=sent, status=OK))

    def _executor_lost(self, event: ExecutorLost, now_ns: int) -> None:
        for holders in self._holders.values():
            holders.discard(event.executor)
        for under_way in (self._batches, self._loads, self._unloads):
            for key in [key for key, sent in under_way.items() if sent.action.executor == event.executor]:
                sent = under_way.pop(key)
                self._wait_again(sent.action)
                self._back.append(_Back(sent=sent, status=LOST, message=event.message))

    # Actions

    def _run_batch(self, action: RunBatch, now_ns: int) -> None:
        self._batches[action.batch_id] = _Sent(action, now_ns)
        for request in action.requests:
            opened = self._open.get(request.id)
            if opened is not None and not opened.is_sent:
                opened.is_sent = True
                self._wait(request.model, -1)

    def _load(self, action: Load, now_ns: int) -> None:
        ahead = [sent for sent in self._loads.values() if sent.action.executor == action.executor]
        begin_ns = max([now_ns, *[sent.expected_end_ns or 0 for sent in ahead]])  # one at a time
        self._loads[action.load_id] = _Sent(action, now_ns, begin_ns + action.expected_ns)

    def _unload(self, action: Unload, now_ns: int) -> None:
        self._unloads[action.load_id] = _Sent(action, now_ns)
        self._holders.setdefault(action.model, set()).discard(action.executor)

    def _reply(self, reply: Reply, now_ns: int) -> None:
        opened = self._open.pop(reply.request_id, None)
        if opened is None:
            return
        if not opened.is_sent:
            self._wait(opened.request.model, -1)
        if reply.timing is not None:
            self._replies[reply.request_id] = reply
        self._put_request(self._request_row(opened, reply, now_ns))

    # Rows

    def _request_row(self, opened: _Open, reply: Reply, now_ns: int) -> RequestRow:
        request = opened.request
        allowed_ns = request.deadline_ns - request.arrival_ns
        has_deadline = request.deadline_ns < FOREVER_NS
        spec = self._specs.get(request.model) if has_deadline else None
        return RequestRow(
            now_ns,
            request.id,
            reply.outcome.value,
            reply.reason.value,
            request.model,
            None if spec is None else round(allowed_ns / spec.profile.expected_ns(request.rows), 3),
            now_ns - request.arrival_ns,
            allowed_ns if has_deadline else None,
            int(reply.outcome is Outcome.IN_TIME),
            opened.copies,
            self._copies(request.model),
            int(opened.is_cold),
        )

    def _action_row(self, back: _Back, now_ns: int) -> ActionRow:
        action, sent_ns = back.sent.action, back.sent.at_ns
        has_run = back.ended_ns > back.started_ns > 0  # one that came too late has an end, and never ran
        requests = action.requests if isinstance(action, RunBatch) else ()
        replies = [self._replies[request.id] for request in requests if request.id in self._replies]
        in_time = sum(reply.outcome is Outcome.IN_TIME for reply in replies)
        ran_ns = back.ended_ns - back.started_ns if has_run else 0
        expected_end_ns = back.sent.expected_end_ns
        if replies and replies[0].timing is not None:
            expected_end_ns = replies[0].timing.predicted_ns
        return ActionRow(
            sent_ns,
            action.batch_id if isinstance(action, RunBatch) else action.load_id,
            _TYPES[type(action)],
            back.status,
            action.executor,
            action.model,
            action.rows if isinstance(action, RunBatch) else 0,
            None if isinstance(action, Unload) else action.expected_ns,
            ran_ns if has_run else None,
            None if expected_end_ns is None else expected_end_ns - sent_ns,
            back.ended_ns - sent_ns if has_run else None,
            now_ns - sent_ns,
            ran_ns * in_time // len(requests) if requests else 0,
            self._waiting.get(action.model, 0),
            self._copies(action.model),
            back.started_ns - sent_ns if has_run else None,
            back.cpu_ns,
            None if isinstance(action, Unload) or not action.earliest_ns else action.earliest_ns - sent_ns,
            None if isinstance(action, Unload) or action.latest_ns >= FOREVER_NS else action.latest_ns - sent_ns,
            len(requests),
            in_time,
            " ".join([str(request.id) for request in requests]),
            back.message,
        )

    def _copies(self, model: str) -> int:
        return len(self._holders.get(model, ()))

    def _wait(self, model: str, change: int) -> None:
        waiting = self._waiting.pop(model, 0) + change
        if waiting:
            self._waiting[model] = waiting

    def _wait_again(self, action: RunBatch | Load | Unload) -> None:
        """A batch came to nothing: those of its requests that are still open wait once more."""
        for request in action.requests if isinstance(action, RunBatch) else ():
            opened = self._open.get(request.id)
            if opened is not None and opened.is_sent:
                opened.is_sent = False
                self._wait(request.model, 1)


_TYPES: dict[type, int] = {Load: LOAD, RunBatch: INFER, Unload: EVICT}
