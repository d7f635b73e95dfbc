"""The controller: events in, actions out. It owns the requests under way and the view of the fleet.

Here live the promises that hold under every scheduler: one reply to each request, retries while there is
time, batches that die with their executor tried elsewhere, executors that hang replaced, memory books
that balance. *Which* batch runs next is the scheduler's; *when* `handle` is called is the loop's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from slotwise.facts.actions import Action, Load, ReplaceExecutor, Reply, RunBatch, StopBatch, Unload, WakeAt
from slotwise.facts.events import (
    Arrived,
    BatchDone,
    BatchFailed,
    Cancelled,
    Event,
    ExecutorLost,
    ExecutorUp,
    Loaded,
    LoadFailed,
    ModelAdded,
    ModelRemoved,
    PipelineEnded,
    Unloaded,
    Woke,
)
from slotwise.facts.limits import check_limits
from slotwise.facts.types import FOREVER_NS, Failure, Outcome, Reason, Refusal, TensorRef, Timing
from slotwise.facts.units import MS
from slotwise.facts.value import value
from slotwise.policy.scheduling import Choice, Drop, LoadModel, Run, Scheduler, Stop, UnloadModel
from slotwise.policy.view import BatchInFlight, ExecutorView, LoadInFlight, ModelView, Ticket, TicketState, View, total

REASONS = {
    Failure.TOO_LATE: Reason.EXPIRED,
    Failure.NOT_LOADED: Reason.LOAD_FAILED,
    Failure.CHANGED: Reason.LOAD_FAILED,
    Failure.STOPPED: Reason.EXPIRED,
    Failure.RUN_ERROR: Reason.RUN_ERROR,
    Failure.NO_MEMORY: Reason.LOAD_FAILED,
    Failure.BAD_MODEL: Reason.LOAD_FAILED,
}
"""Why a request failed that was tried in vain, by how its last batch came back."""


@value
class Limits:
    """Bounds. An executor hangs when its batch is overdue by `hang_ns` and by `hang_factor` times its expected time."""

    requests_max: int = 100_000
    attempts_max: int = 3
    hang_ns: int = 2_000 * MS
    hang_factor: int = 20
    load_hang_ns: int = 60_000 * MS

    def __post_init__(self) -> None:
        """Raise ValueError, which names the limit, for a value that none can have."""
        check_limits(self)


class Controller:
    """Decides for one system. Deterministic: the same events at the same instants give the same actions."""

    def __init__(self, view: View, scheduler: Scheduler, limits: Limits | None = None) -> None:
        self._view = view
        self._scheduler = scheduler
        self._limits = limits or Limits()
        self._batch_ids = itertools.count(1)
        self._load_ids = itertools.count(1)
        self._actions: list[Action] = []
        self._alarm_ns = FOREVER_NS
        self._watch_ns = FOREVER_NS
        """No executor can count as hung before."""
        self._is_leaving = False
        """Whether a model may have to leave an executor."""
        self._handlers: dict[type[Event], Callable[..., None]] = {
            ModelAdded: self._model_added,
            ModelRemoved: self._model_removed,
            Arrived: self._arrived,
            Cancelled: self._cancelled,
            BatchDone: self._batch_done,
            BatchFailed: self._batch_failed,
            Loaded: self._loaded,
            LoadFailed: self._load_failed,
            Unloaded: self._nothing_more,
            ExecutorUp: self._executor_up,
            ExecutorLost: self._executor_lost,
            Woke: self._nothing_more,
            PipelineEnded: self._nothing_at_all,
        }
        self._carriers: dict[type[Choice], Callable[..., None]] = {
            Run: self._run,
            LoadModel: self._load,
            UnloadModel: self._unload,
            Stop: self._stop,
            Drop: self._drop,
        }

    @property
    def view(self) -> View:
        """What is known; for the checks of the simulator and for reports. Not to be written."""
        return self._view

    def handle(self, events: Sequence[Event], now_ns: int) -> list[Action]:
        """Take the events in, in order, and say what is to be done."""
        actions = self._actions = []
        if self._alarm_ns <= now_ns:
            self._alarm_ns = FOREVER_NS
        for event in events:
            self._handlers[type(event)](event, now_ns)
        if self._is_leaving:
            self._let_leave(now_ns)
        while (choice := self._scheduler.choose(now_ns)) is not None:
            self._carriers[type(choice)](choice, now_ns)
        if self._watch_ns <= now_ns:
            self._watch(now_ns)
        due_ns = min(self._scheduler.due_ns(now_ns), self._watch_ns)
        if due_ns < self._alarm_ns:
            self._alarm_ns = due_ns
            actions.append(WakeAt(at_ns=due_ns))
        return actions

    # Requests

    def _arrived(self, event: Arrived, now_ns: int) -> None:
        request = event.request
        ticket = Ticket(request)
        model = self._view.models.get(request.model)
        assert request.id not in self._view.tickets, f"request {request.id} arrived twice"
        if model is None:
            refusal: Refusal | None = Refusal(
                reason=Reason.UNKNOWN_MODEL, message=f"model {request.model} is not on offer"
            )
        elif model.broken:
            refusal = Refusal(reason=Reason.LOAD_FAILED, message=model.broken)
        elif len(self._view.tickets) >= self._limits.requests_max:
            refusal = Refusal(reason=Reason.QUEUE_FULL, message=f"{self._limits.requests_max} requests are under way")
        else:
            self._view.tickets[request.id] = ticket
            refusal = self._scheduler.arrived(ticket, now_ns)
            ticket.is_promised = refusal is None
        if refusal is not None:
            self._end_refused(ticket, refusal, Outcome.REFUSED)

    def _cancelled(self, event: Cancelled, now_ns: int) -> None:
        ticket = self._view.tickets.get(event.request_id)
        if ticket is None:
            return
        if ticket.state is TicketState.WAITING:
            self._scheduler.withdrawn(ticket, now_ns)
        batch = ticket.batch
        self._end(ticket, Outcome.CANCELLED)
        if batch is not None and all(other.state is TicketState.ENDED for other in batch.tickets):
            self._stop_where_it_runs(batch)

    def _try_again(self, ticket: Ticket, reason: Reason, message: str, now_ns: int) -> None:
        """A batch came back without an answer for this request: wait again if there is time, else end."""
        if ticket.state is TicketState.ENDED:
            return
        if ticket.request.model not in self._view.models:
            self._end(ticket, Outcome.FAILED, Reason.MODEL_REMOVED, f"model {ticket.request.model} was taken off offer")
            return
        if ticket.attempts >= self._limits.attempts_max:
            self._end(ticket, Outcome.FAILED, reason, f"{message} (tried {ticket.attempts} times)")
            return
        ticket.batch = None
        ticket.move(TicketState.WAITING)
        refusal = self._scheduler.arrived(ticket, now_ns)
        if refusal is not None:
            lost = Refusal(
                reason=Reason.EXPIRED, message=f"{message}; {refusal.message}", predicted_ns=refusal.predicted_ns
            )
            self._end_refused(ticket, lost, Outcome.DROPPED)

    def _end_refused(self, ticket: Ticket, refusal: Refusal, outcome: Outcome) -> None:
        ticket.move(TicketState.ENDED)
        self._view.tickets.pop(ticket.request.id, None)
        self._actions.append(
            Reply(
                request_id=ticket.request.id,
                outcome=outcome,
                reason=refusal.reason,
                message=refusal.message,
                predicted_ns=refusal.predicted_ns,
                retry_after_ns=refusal.retry_after_ns,
            )
        )

    def _end(self, ticket: Ticket, outcome: Outcome, reason: Reason = Reason.NONE, message: str = "") -> None:
        ticket.move(TicketState.ENDED)
        del self._view.tickets[ticket.request.id]
        self._actions.append(Reply(request_id=ticket.request.id, outcome=outcome, reason=reason, message=message))

    # Batches

    def _batch_done(self, event: BatchDone, now_ns: int) -> None:
        executor, batch = self._take_back(event.executor, event.batch_id, event.ended_ns)
        if executor is None or batch is None:
            return
        took_ns = max(1, event.ended_ns - event.started_ns)
        self._view.estimates.note_run(executor.name, batch.spec, batch.rows, batch.work, took_ns)
        self._view.estimates.note_error(executor.name, now_ns - batch.predicted_end_ns)
        if batch.is_first and self._view.estimates.far_ns(executor.name):
            self._view.estimates.note_way(executor.name, batch.spec.id, now_ns - batch.sent_ns - took_ns)
        outputs = event.outputs or ((),) * len(batch.tickets)
        for ticket, refs in zip(batch.tickets, outputs, strict=True):
            if ticket.state is TicketState.RUNNING:
                self._answer(ticket, refs, batch, event, now_ns)
        self._scheduler.noted(event, now_ns)

    def _answer(
        self, ticket: Ticket, outputs: tuple[TensorRef, ...], batch: BatchInFlight, event: BatchDone, now_ns: int
    ) -> None:
        request = ticket.request
        is_late = now_ns > request.deadline_ns
        ticket.move(TicketState.ENDED)
        del self._view.tickets[request.id]
        self._actions.append(
            Reply(
                request_id=request.id,
                outcome=Outcome.LATE if is_late else Outcome.IN_TIME,
                reason=Reason.OVERRAN if is_late else Reason.NONE,
                outputs=outputs,
                timing=Timing(
                    arrival_ns=request.arrival_ns,
                    sent_ns=batch.sent_ns,
                    started_ns=event.started_ns,
                    ended_ns=event.ended_ns,
                    executor=event.executor,
                    rows=batch.rows,
                    attempts=ticket.attempts,
                    predicted_ns=batch.predicted_end_ns,
                ),
            )
        )

    def _batch_failed(self, event: BatchFailed, now_ns: int) -> None:
        executor, batch = self._take_back(event.executor, event.batch_id, event.ended_ns or now_ns)
        if executor is None or batch is None:
            return
        if event.failure is Failure.TOO_LATE and event.ended_ns > now_ns and self._view.estimates.far_ns(executor.name):
            self._view.estimates.note_way(executor.name, batch.spec.id, event.ended_ns - batch.sent_ns)
        self._scheduler.noted(event, now_ns)
        is_ours = event.failure is Failure.RUN_ERROR and len(batch.tickets) == 1
        for ticket in batch.tickets:
            if ticket.state is TicketState.ENDED:
                continue
            ticket.alone = ticket.alone or event.failure is Failure.RUN_ERROR
            if event.failure is Failure.STOPPED:
                ticket.attempts -= 1
            if is_ours:
                self._end(ticket, Outcome.FAILED, Reason.RUN_ERROR, event.message)
            else:
                self._try_again(ticket, REASONS[event.failure], f"its batch came back: {event.failure.value}", now_ns)

    def _take_back(self, name: str, batch_id: int, ended_ns: int) -> tuple[ExecutorView | None, BatchInFlight | None]:
        executor = self._view.executors.get(name)
        return executor, executor.remove(batch_id, ended_ns) if executor is not None else None

    def _stop_where_it_runs(self, batch: BatchInFlight) -> None:
        for executor in self._view.executors.values():
            if batch in executor.batches and not batch.stopping:
                batch.stopping = True
                self._actions.append(StopBatch(executor=executor.name, batch_id=batch.batch_id))

    # Models

    def _model_added(self, event: ModelAdded, now_ns: int) -> None:
        spec = event.spec
        known = self._view.models.get(spec.id)
        if known is not None and known.spec.digest != spec.digest:
            self._view.estimates.forget_model(spec.id)
            self._mark_leaving(spec.id)
        self._view.models[spec.id] = ModelView(spec)
        self._scheduler.noted(event, now_ns)

    def _model_removed(self, event: ModelRemoved, now_ns: int) -> None:
        if self._view.models.pop(event.model, None) is None:
            return
        self._view.estimates.forget_model(event.model)
        self._end_waiting(
            event.model, Outcome.FAILED, Reason.MODEL_REMOVED, f"model {event.model} was taken off offer", now_ns
        )
        self._mark_leaving(event.model)
        self._scheduler.noted(event, now_ns)

    def _end_waiting(self, model: str, outcome: Outcome, reason: Reason, message: str, now_ns: int) -> None:
        for ticket in [
            t for t in self._view.tickets.values() if t.request.model == model and t.state is TicketState.WAITING
        ]:
            self._scheduler.withdrawn(ticket, now_ns)
            self._end(ticket, outcome, reason, message)

    def _mark_leaving(self, model: str) -> None:
        for executor in self._view.executors.values():
            if executor.residency.is_here(model):
                executor.leaving[model] = None
                self._is_leaving = True

    def _let_leave(self, now_ns: int) -> None:
        """Unload what is no longer on offer (or was replaced) as soon as no batch needs it."""
        for executor in self._view.executors.values():
            for model in list(executor.leaving):
                if executor.residency.is_ready(model) and not executor.uses(model):
                    self._unload(UnloadModel(executor=executor.name, model=model), now_ns)
        self._is_leaving = any(executor.leaving for executor in self._view.executors.values())

    def _loaded(self, event: Loaded, now_ns: int) -> None:
        executor = self._view.executors.get(event.executor)
        if executor is None or executor.remove_load(event.load_id, event.ended_ns) is None:
            return
        executor.residency.end_load(event.model, event.load_id)
        model = self._view.models.get(event.model)
        if model is not None:
            self._view.estimates.note_load(model.spec, max(1, event.ended_ns - event.started_ns))
        self._scheduler.noted(event, now_ns)

    def _load_failed(self, event: LoadFailed, now_ns: int) -> None:
        executor = self._view.executors.get(event.executor)
        if executor is None or executor.remove_load(event.load_id, now_ns) is None:
            return
        if executor.residency.unload(event.model, event.load_id):
            self._view.note_copy_gone(event.model)
        executor.leaving.pop(event.model, None)
        model = self._view.models.get(event.model)
        if model is not None and event.failure in (Failure.BAD_MODEL, Failure.NO_MEMORY):
            model.broken = f"model {event.model} could not be loaded: {event.message}"
            self._end_waiting(event.model, Outcome.FAILED, Reason.LOAD_FAILED, model.broken, now_ns)
        self._scheduler.noted(event, now_ns)

    # Executors

    def _executor_up(self, event: ExecutorUp, now_ns: int) -> None:
        assert event.executor not in self._view.executors, f"executor {event.executor} came up twice"
        self._view.executors[event.executor] = ExecutorView(event.executor, event.memory_bytes, event.page_bytes)
        if event.way_ns:
            self._view.estimates.note_far(event.executor, event.way_ns)
        self._scheduler.noted(event, now_ns)

    def _executor_lost(self, event: ExecutorLost, now_ns: int) -> None:
        executor = self._view.executors.pop(event.executor, None)
        if executor is None:
            return
        self._view.estimates.forget_executor(event.executor)
        for model in executor.residency.models():
            self._view.note_copy_gone(model)
        self._scheduler.noted(event, now_ns)
        for batch in executor.batches:
            for ticket in batch.tickets:
                ticket.alone = ticket.alone or batch is executor.batches[0]
                self._try_again(ticket, Reason.EXECUTOR_LOST, f"executor {event.executor} was lost", now_ns)

    def _watch(self, now_ns: int) -> None:
        """Replace executors that hang, and say when to look again."""
        self._watch_ns = FOREVER_NS
        for executor in self._view.executors.values():
            if executor.is_replacing:
                continue
            hung_ns = self._hung_ns(executor)
            if hung_ns <= now_ns:
                executor.is_replacing = True
                self._actions.append(ReplaceExecutor(executor=executor.name, message="it did not answer in time"))
            else:
                self._watch_ns = min(self._watch_ns, hung_ns)
                if len(executor.batches) > 1:
                    self._watch_by(now_ns + self._limits.hang_ns)  # the next may be overdue sooner than the first

    def _watch_by(self, at_ns: int) -> None:
        """An executor was sent something that may hang from then on."""
        self._watch_ns = min(self._watch_ns, at_ns)

    def _hung_ns(self, executor: ExecutorView) -> int:
        """The instant at which an executor counts as hung."""
        limits = self._limits
        hung_ns = FOREVER_NS
        if executor.batches:
            expected_ns = executor.batches[0].expected_ns
            hung_ns = executor.begin_ns() + expected_ns + max(limits.hang_ns, limits.hang_factor * expected_ns)
        for load in executor.loads.values():
            hung_ns = min(hung_ns, load.predicted_end_ns + limits.load_hang_ns)
        return hung_ns

    def _nothing_more(self, event: Event, now_ns: int) -> None:
        self._scheduler.noted(event, now_ns)

    def _nothing_at_all(self, event: Event, now_ns: int) -> None:
        """Its steps have been decided about one by one."""

    # Choices, carried into the view and out as actions

    def _run(self, choice: Run, now_ns: int) -> None:
        executor = self._view.executors[choice.executor]
        spec = self._view.models[choice.model].spec
        assert executor.can_run(choice.model), f"{choice.model} cannot run at {choice.executor}"
        requests = tuple([ticket.request for ticket in choice.tickets])
        rows, work = total(requests)
        expected_ns = self._view.estimates.run_ns(executor.name, spec, rows, work)
        batch = BatchInFlight(
            batch_id=next(self._batch_ids),
            spec=spec,
            tickets=choice.tickets,
            rows=rows,
            work=work,
            expected_ns=expected_ns,
            sent_ns=now_ns,
            latest_ns=choice.latest_ns,
            predicted_end_ns=executor.free_ns(now_ns)
            + expected_ns
            + self._view.estimates.way_ns(executor.name, spec.id),
        )
        for ticket in choice.tickets:
            ticket.move(TicketState.RUNNING)
            ticket.attempts += 1
            ticket.batch = batch
        executor.add(batch)
        self._watch_by(now_ns + self._limits.hang_ns)
        self._actions.append(
            RunBatch(
                executor=executor.name,
                batch_id=batch.batch_id,
                model=spec.id,
                requests=requests,
                rows=rows,
                earliest_ns=now_ns,
                latest_ns=choice.latest_ns,
                expected_ns=expected_ns,
            )
        )

    def _load(self, choice: LoadModel, now_ns: int) -> None:
        executor = self._view.executors[choice.executor]
        spec = self._view.models[choice.model].spec
        load_id = next(self._load_ids)
        expected_ns = self._view.estimates.load_ns(spec)
        executor.residency.begin_load(spec.id, spec.profile.memory_bytes, load_id)
        self._view.note_copy(spec.id)
        end_ns = now_ns + self._view.load_wait_ns(executor, now_ns) + expected_ns
        executor.loads[load_id] = LoadInFlight(load_id, spec.id, now_ns, expected_ns, end_ns)
        self._watch_by(end_ns + self._limits.load_hang_ns)
        self._actions.append(Load(executor=executor.name, model=spec.id, load_id=load_id, expected_ns=expected_ns))

    def _unload(self, choice: UnloadModel, now_ns: int) -> None:
        executor = self._view.executors[choice.executor]
        load_id = executor.residency.load_id(choice.model)
        assert load_id is not None, f"{choice.model} is not at {choice.executor}"
        assert not executor.uses(choice.model), f"{choice.model} is in use at {choice.executor}"
        executor.residency.unload(choice.model, load_id)
        self._view.note_copy_gone(choice.model)
        executor.leaving.pop(choice.model, None)
        self._actions.append(Unload(executor=executor.name, model=choice.model, load_id=load_id))

    def _stop(self, choice: Stop, now_ns: int) -> None:
        assert not choice.batch.stopping, "stopped twice"
        choice.batch.stopping = True
        self._view.executors[choice.executor].expect_end(choice.batch, now_ns + choice.batch.spec.profile.stop_ns)
        self._watch_by(now_ns + self._limits.hang_ns)
        self._actions.append(StopBatch(executor=choice.executor, batch_id=choice.batch.batch_id))

    def _drop(self, choice: Drop, now_ns: int) -> None:
        refusal = Refusal(reason=choice.reason, message=choice.message, predicted_ns=choice.predicted_ns)
        self._end_refused(choice.ticket, refusal, Outcome.DROPPED)
