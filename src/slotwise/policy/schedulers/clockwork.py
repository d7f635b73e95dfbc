"""Clockwork (OSDI 2020): earliest latest start first, exactly full batches, models paged in and out by demand.

Requests wait in batch queues (`clockwork_lines`). An executor that has less than `schedule_ahead_ns` of predicted work
left is given the batch with the earliest latest start of the models that are ready on it, enlarged to the next
size while that can be filled and answers its head in time. A request that is in no batch when its effective
deadline comes is dropped, and none is refused before. What is loaded where is decided in `clockwork_loads`.

Settings say how far this is the paper and how far the code that its authors published, whose defects can each be
switched on. Four things of either have no place here. Tensors never pass the controller and actions leave in the turn
in which they are chosen, so there are no transfers to limit or to give up. The clock rate of a
device is not seen, so estimates are not scaled by it. A model in use is never evicted, and a batch is sent only
once its model is ready, not when its load is about to be: the controller holds every scheduler to both.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import replace

from slotwise.facts.events import (
    BatchDone,
    BatchFailed,
    Event,
    ExecutorLost,
    ExecutorUp,
    Loaded,
    LoadFailed,
    ModelAdded,
    ModelRemoved,
    Unloaded,
)
from slotwise.facts.types import FOREVER_NS, ModelSpec, Reason, Refusal, Request
from slotwise.facts.units import MS
from slotwise.facts.value import value
from slotwise.policy.estimates import EstimateSettings
from slotwise.policy.schedulers.clockwork_lines import Lane, Line, Strategy, Tracker, Waiting, line_name
from slotwise.policy.schedulers.clockwork_loads import Loads, LoadSettings, Model
from slotwise.policy.scheduling import Choice, Drop, Run
from slotwise.policy.view import ExecutorView, Ticket, View

SPARE_TIMEOUTS = 1024
LINES_KEPT = 16
"""How many lines of a model are kept though nobody waits in them."""

MENDED_ESTIMATES = EstimateSettings(window=10, priors=0, quantile=0.99, drift_run=0, is_scaled=False)
PUBLISHED_ESTIMATES = replace(MENDED_ESTIMATES, is_pooled=True)
"""The published code keeps one window for all devices, where the paper has one for each."""


@value
class ClockworkSettings:
    """Clockwork's parameters, as in the scripts of its evaluation; the last four are True where its code errs."""

    schedule_ahead_ns: int = 5 * MS
    """At most this much predicted work, and one action, is outstanding at an executor."""
    window_ns: int = 5 * MS
    """How long after its predicted start a batch may still start."""
    buffer_ns: int = 5 * MS
    """How long before the deadline an answer is aimed at."""
    future_ns: int = 1 * MS
    """What an action takes to reach its executor."""
    lag_ns: int = 10 * MS
    """How far an executor may overrun in silence before it is taken to have begun later."""
    capacity_ns: int = 100 * MS
    """The SLO by which demand is scaled."""
    load_horizon_ns_max: int = 25 * MS
    """In how long a load is wanted for a request at most; the shorter, the more it counts while one can help it."""
    run_ns_max: int = 250 * MS
    """Batch sizes above 1 that are profiled to take longer are not used."""
    batch_max: int = 8
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    is_slo_raised: bool = False
    """Whether a request may be answered as late as `schedule_ahead_ns + buffer_ns` though its deadline is earlier."""
    is_replication_endless: bool = False
    """Whether a model that requests wait for is loaded though its holders can serve them all."""
    is_demand_endless: bool = False
    """Whether a request counts towards loads even when none could help it any more."""
    is_failure_final: bool = False
    """Whether the requests of a batch that came back undone are given up while there is time."""

    def __post_init__(self) -> None:
        if self.schedule_ahead_ns <= self.future_ns:
            raise ValueError(
                f"schedule_ahead_ns is {self.schedule_ahead_ns}; it must be above future_ns, {self.future_ns}, "
                "or nothing is ever sent"
            )


def published() -> ClockworkSettings:
    """Clockwork with the defects of its published code."""
    return ClockworkSettings(
        is_slo_raised=True, is_replication_endless=True, is_demand_endless=True, is_failure_final=True
    )


def mended() -> ClockworkSettings:
    """Clockwork as its paper describes it, with failed batches tried again."""
    return ClockworkSettings()


class Clockwork:
    """One action at a time for every executor, each with a window to start in."""

    def __init__(self, view: View, settings: ClockworkSettings) -> None:
        self._view = view
        self._settings = settings
        self._models: dict[str, Model] = {}
        self._lanes: dict[str, Lane] = {}
        self._waiting: dict[int, Waiting] = {}
        self._timeouts: list[tuple[int, int, Waiting]] = []
        self._serial = itertools.count()
        self._awake: dict[str, None] = {}
        self._alarms: list[tuple[int, str]] = []
        self._sent: tuple[Lane, list[Waiting]] | None = None
        self._loads = Loads(
            view,
            self._models,
            LoadSettings(
                capacity_ns=settings.capacity_ns,
                ahead_ns=settings.schedule_ahead_ns,
                is_replication_endless=settings.is_replication_endless,
                is_demand_endless=settings.is_demand_endless,
            ),
        )

    # Questions from the controller

    def arrived(self, ticket: Ticket, now_ns: int) -> Refusal | None:
        """Let it wait in its line's queues; nothing new is refused."""
        request = ticket.request
        due_ns = request.arrival_ns + self._allowance_ns(request)
        if ticket.attempts and (self._settings.is_failure_final or due_ns <= now_ns):
            return Refusal(reason=Reason.EXPIRED, message="it is not tried again", predicted_ns=now_ns)
        model = self._models[request.model]
        waiting = Waiting(ticket, self._line(model, ticket), next(self._serial), due_ns)
        self._waiting[request.id] = waiting
        self._push_timeout(waiting)
        self._note_demand(model, waiting)
        waiting.line.put(waiting)
        for name in model.holders:
            self._activate(self._lanes[name], waiting.line)
        return None

    def withdrawn(self, ticket: Ticket, now_ns: int) -> None:
        """Take a request out of its queues."""
        waiting = self._waiting.pop(ticket.request.id)
        waiting.line.remove(waiting)
        self._tidy(waiting.line)
        self._loads.end(waiting)

    def noted(self, event: Event, now_ns: int) -> None:
        """Follow batches, loads, executors and models."""
        match event:
            case BatchDone():
                self._lanes[event.executor].tracker.done(event.batch_id, event.ended_ns)
                self._end_batch(event.executor, event.batch_id)
            case BatchFailed():
                self._lanes[event.executor].tracker.failed(event.batch_id, now_ns)
                self._end_batch(event.executor, event.batch_id)
            case Loaded() | LoadFailed() | Unloaded():
                self._note_memory(event, now_ns)
            case ExecutorUp():
                settings = self._settings
                self._lanes[event.executor] = Lane(event.executor, Tracker(settings.future_ns, settings.lag_ns))
                self._loads.up(event.executor, Tracker(settings.future_ns, settings.lag_ns))
            case ExecutorLost():
                self._lose(event.executor)
            case ModelAdded():
                self._add(event.spec)
            case ModelRemoved():
                self._remove(event.model)

    def choose(self, now_ns: int) -> Choice | None:
        """Drop what is overdue, feed executors that run dry, then load."""
        self._note_sent(now_ns)
        drop = self._drop(now_ns)
        if drop is not None:
            return drop
        while self._alarms and self._alarms[0][0] <= now_ns:
            self._awake[heapq.heappop(self._alarms)[1]] = None
        while self._awake:
            name = next(iter(self._awake))
            del self._awake[name]
            run = self._feed(self._lanes[name], now_ns) if name in self._lanes else None
            if run is not None:
                self._awake[name] = None  # the others come first now: an executor is given one action at a time
                return run
        return self._loads.choose(now_ns)

    def due_ns(self, now_ns: int) -> int:
        """When a request times out, or an executor has run or loaded nearly all that it was told to."""
        timeouts = self._timeouts
        while timeouts and not self._is_waiting(timeouts[0][2]):
            heapq.heappop(timeouts)
        due_ns = min(timeouts[0][0] if timeouts else FOREVER_NS, self._loads.due_ns(now_ns))
        return min(due_ns, self._alarms[0][0]) if self._alarms else due_ns

    # Requests

    def _allowance_ns(self, request: Request) -> int:
        """How long after its arrival a request is to be answered, a little less than its deadline says."""
        settings = self._settings
        slo_ns = request.deadline_ns - request.arrival_ns
        least_ns = settings.schedule_ahead_ns + settings.buffer_ns
        buffered_ns = slo_ns - settings.buffer_ns if slo_ns >= settings.buffer_ns else slo_ns
        return max(buffered_ns, least_ns if settings.is_slo_raised else min(slo_ns, least_ns))

    def _note_demand(self, model: Model, waiting: Waiting) -> None:
        """Tell loads of the request: its work beside what an executor can do in the time that it allows."""
        settings, request, spec = self._settings, waiting.ticket.request, model.spec
        holder = next(iter(model.holders), "")
        run_ns = self._view.estimates.run_ns(holder, spec, request.rows, request.work) * settings.capacity_ns
        waiting.run_work_ns = max(1, run_ns // max(1, waiting.due_ns - request.arrival_ns))
        least_ns = settings.schedule_ahead_ns + settings.buffer_ns
        slo_ns = request.deadline_ns - request.arrival_ns
        spare_ns = slo_ns - self._view.estimates.load_ns(spec) - spec.profile.expected_ns(1) - least_ns
        horizon_ns = max(spare_ns if spare_ns >= 0 else slo_ns, least_ns)
        waiting.load_work_ns = max(1, run_ns // min(horizon_ns, settings.load_horizon_ns_max))
        self._loads.wait(waiting, request.arrival_ns + horizon_ns)

    def _line(self, model: Model, ticket: Ticket) -> Line:
        name = line_name(ticket)
        line = model.lines.get(name)
        if line is None:
            is_single = ticket.alone or ticket.request.rows > 1
            sizes = (1,) if is_single else self._sizes(model.spec)
            line = model.lines[name] = Line(name, ticket.request, sizes)
        return line

    def _sizes(self, spec: ModelSpec) -> tuple[int, ...]:
        settings = self._settings
        rows_max = min(settings.batch_max, spec.batch_max)
        usable = (rows for rows in settings.batch_sizes if 1 < rows <= rows_max)
        return (1, *(rows for rows in usable if spec.profile.expected_ns(rows) <= settings.run_ns_max))

    def _tidy(self, line: Line) -> None:
        """Forget an empty line where a model has many, as one whose requests take many shapes."""
        model = self._models.get(line.model)
        if not len(line) and model is not None and len(model.lines) > LINES_KEPT:
            model.lines.pop(line.name, None)

    def _is_waiting(self, waiting: Waiting) -> bool:
        return self._waiting.get(waiting.ticket.request.id) is waiting

    def _push_timeout(self, waiting: Waiting) -> None:
        if len(self._timeouts) > 2 * len(self._waiting) + SPARE_TIMEOUTS:
            self._timeouts = [timeout for timeout in self._timeouts if self._is_waiting(timeout[2])]
            heapq.heapify(self._timeouts)
        heapq.heappush(self._timeouts, (waiting.due_ns, waiting.serial, waiting))

    def _drop(self, now_ns: int) -> Drop | None:
        while self._timeouts and self._timeouts[0][0] <= now_ns:
            waiting = heapq.heappop(self._timeouts)[2]
            if self._is_waiting(waiting):
                self.withdrawn(waiting.ticket, now_ns)
                return Drop(ticket=waiting.ticket, reason=Reason.EXPIRED, message="no executor came to it in time")
        return None

    # Batches

    def _activate(self, lane: Lane, line: Line) -> None:
        """Let an executor consider a line, at the largest size that can be filled."""
        level = line.level()
        current = lane.strategies.get(line)
        if level and (current is None or current[4] < level):
            self._push_strategy(lane, line, level)
        self._awake[lane.name] = None

    def _push_strategy(self, lane: Lane, line: Line, level: int) -> None:
        latest_ns = line.latest_ns(level, lane.name, self._models[line.model].spec, self._view.estimates)
        strategy = (latest_ns, line.sizes[level - 1], line.model, next(self._serial), level, line)
        lane.strategies[line] = strategy
        heapq.heappush(lane.heap, strategy)

    def _feed(self, lane: Lane, now_ns: int) -> Run | None:
        """The batch with the earliest latest start, if the executor has room for one."""
        start_ns = lane.tracker.free_ns(now_ns)
        executor = self._view.executors[lane.name]
        while lane.heap:
            if start_ns >= now_ns + self._settings.schedule_ahead_ns:
                self._set_alarm(lane)
                return None
            strategy = heapq.heappop(lane.heap)
            line = strategy[5]
            current = lane.strategies.get(line)
            if current is None or current[3] != strategy[3]:
                continue  # another has replaced it
            del lane.strategies[line]
            taken = self._take(lane, executor, strategy, start_ns)
            if taken:
                return self._run(lane, line, taken, start_ns, now_ns)
        return None

    def _take(self, lane: Lane, executor: ExecutorView, strategy: Strategy, start_ns: int) -> list[Waiting]:
        """Fill a batch; one whose turn it is not any more, because another executor has served its line, waits on."""
        line = strategy[5]
        level = line.level()
        if not level or not executor.can_run(line.model):
            return []
        spec, estimates = self._models[line.model].spec, self._view.estimates
        taken: list[Waiting] = []
        if line.latest_ns(level, lane.name, spec, estimates) <= strategy[0]:
            taken = line.take(level, start_ns, lane.name, spec, estimates)
        level = line.level()
        if level:
            self._push_strategy(lane, line, level)
        return taken

    def _run(self, lane: Lane, line: Line, taken: list[Waiting], start_ns: int, now_ns: int) -> Run:
        for waiting in taken:
            del self._waiting[waiting.ticket.request.id]
            self._loads.wait_no_more(waiting)
        self._tidy(line)
        self._loads.use(lane.name, line.model)
        holders = self._models[line.model].holders
        holders[lane.name] = holders.pop(lane.name)  # executors take turns, as if each looked for work by itself
        self._sent = (lane, taken)
        settings = self._settings
        return Run(
            executor=lane.name,
            model=line.model,
            tickets=tuple(waiting.ticket for waiting in taken),
            latest_ns=max(now_ns + settings.future_ns, start_ns) + settings.window_ns,
        )

    def _note_sent(self, now_ns: int) -> None:
        """Our last batch is under way: it has a number now."""
        if self._sent is None:
            return
        lane, taken = self._sent
        self._sent = None
        batch = taken[0].ticket.batch
        assert batch is not None, "a batch was chosen and not carried out"
        lane.tracker.sent(batch.batch_id, batch.expected_ns, now_ns)
        lane.running[batch.batch_id] = taken

    def _end_batch(self, executor: str, batch_id: int) -> None:
        taken = self._lanes[executor].running.pop(batch_id)
        for waiting in taken:
            self._loads.end(waiting)
        self._loads.use(executor, taken[0].line.model)
        self._awake[executor] = None

    def _set_alarm(self, lane: Lane) -> None:
        """Look again when the executor has nearly run dry, unless a result must come first."""
        at_ns = lane.tracker.room_ns(self._settings.schedule_ahead_ns)
        if at_ns not in (FOREVER_NS, lane.alarm_ns):
            lane.alarm_ns = at_ns
            heapq.heappush(self._alarms, (at_ns, lane.name))

    # Executors and models

    def _note_memory(self, event: Loaded | LoadFailed | Unloaded, now_ns: int) -> None:
        name, model = event.executor, event.model
        if type(event) is Loaded:
            self._loads.loaded(name, model, event.load_id, event.ended_ns)
            for line in self._models[model].lines.values() if model in self._models else ():
                self._activate(self._lanes[name], line)
        elif type(event) is LoadFailed:
            self._loads.failed(name, model, event.load_id, now_ns)
        elif name in self._view.executors and not self._view.executors[name].residency.is_here(model):
            self._loads.gone(name, model)

    def _lose(self, executor: str) -> None:
        lane = self._lanes.pop(executor)
        for taken in lane.running.values():
            for waiting in taken:
                self._loads.end(waiting)
        self._loads.lost(executor)

    def _remove(self, name: str) -> None:
        """A model is off offer. What still runs of it counts no more, should the name come back."""
        for lane in self._lanes.values():
            for taken in lane.running.values():
                for waiting in taken:
                    waiting.run_work_ns = 0 if waiting.line.model == name else waiting.run_work_ns
        self._loads.forget(name)
        del self._models[name]

    def _add(self, spec: ModelSpec) -> None:
        """A model is on offer, or what is known of it has changed: its requests line up anew."""
        model = self._models.get(spec.id)
        if model is None:
            self._models[spec.id] = Model(spec)
            return
        model.spec = spec
        old = [waiting for waiting in self._waiting.values() if waiting.line.model == spec.id]
        for waiting in old:
            waiting.line.remove(waiting)
        model.lines.clear()
        for waiting in old:
            waiting.line = self._line(model, waiting.ticket)
            waiting.line.put(waiting)
        for name in model.holders:
            for line in model.lines.values():
                self._activate(self._lanes[name], line)
