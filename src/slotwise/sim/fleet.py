"""Executors that only pretend to run. They keep the same rules as the real ones, and the controller cannot tell.

An executor runs one batch at a time and loads one model at a time, the two side by side. What an action
takes is its true profile times the executor's `slowness` times noise; what it holds is kept in the same books
as a real executor's. Actions and events cross the link of their executor's node (`sim/links`). All times are waited
out, on whichever clock there is.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import field
from functools import partial

from slotwise.engine.ports import Cancellable, Clock, FleetAction, Post
from slotwise.facts.actions import Load, ReplaceExecutor, RunBatch, StopBatch, Unload
from slotwise.facts.events import BatchDone, BatchFailed, Event, ExecutorLost, ExecutorUp, Loaded, LoadFailed, Unloaded
from slotwise.facts.residency import OutOfMemory, Residency
from slotwise.facts.types import Failure, ModelSpec
from slotwise.facts.units import MS
from slotwise.facts.value import value
from slotwise.sim.links import Direction, LinkSettings


@value
class Noise:
    """How runs and loads differ from the profile: a relative spread; runs overrun by a factor now and then."""

    spread: float = 0.0
    load_spread: float = 0.0
    overrun_share: float = 0.0
    overrun_factor: float = 10.0


@value
class SimSlice:
    """One executor to simulate. `slowness` multiplies every time of the true profile."""

    executor: str
    memory_bytes: int = 1 << 62
    page_bytes: int = 1
    slowness: float = 1.0
    node: str = ""
    """Executors of one node share its link; each has its own where no node is named."""
    link_ns: int | None = None
    """None takes the fleet's; that of a node's first executor is the node's."""


@value
class FleetSettings:
    """What is common to all executors."""

    slices: tuple[SimSlice, ...]
    link_ns: int = 50_000
    link_spread: float = 0.0
    link_bytes_per_s: float = 0.0
    row_bytes: Mapping[str, int] = field(default_factory=dict)
    """What the inputs of a row take on a link, by model id; nothing for a model that is not named."""
    is_far: bool = False
    """Whether the link leads to other machines; executors there say how long the way is, as real ones do."""
    noise: Noise = Noise()
    restart_ns: int = 200 * MS
    """From the loss of an executor to its successor."""


class SimExecutor:
    """One incarnation of an executor. Events it owes after its death are never posted."""

    def __init__(
        self,
        *,
        slice_: SimSlice,
        clock: Clock,
        tell: Callable[[SimExecutor, Event], None],
        truth: Mapping[str, ModelSpec],
        stretch: Callable[[], float],
        stretch_load: Callable[[], float],
    ) -> None:
        self.slice = slice_
        self.slowness = slice_.slowness
        """Of what begins from now on."""
        self.is_hung = False
        self._clock = clock
        self._tell_fleet = tell
        self._truth = truth
        self._stretch = stretch
        self._stretch_load = stretch_load
        self._residency = Residency(slice_.memory_bytes, slice_.page_bytes)
        self._batches: deque[RunBatch] = deque()
        self._running: RunBatch | None = None
        self._run_end: Cancellable | None = None
        self._started_ns = 0
        self._run_end_ns = 0
        self._load_id_at_start: int | None = None
        self._loads: deque[Load | Unload] = deque()
        self._loading: Load | None = None

    def _tell(self, event: Event) -> None:
        self._tell_fleet(self, event)

    def take(self, action: FleetAction) -> None:
        """An action has crossed the link."""
        if self.is_hung:
            return
        if type(action) is RunBatch:
            self._batches.append(action)
            if self._running is None:
                self._run_next()
        elif type(action) is StopBatch:
            self._stop(action.batch_id)
        elif type(action) is Load or type(action) is Unload:
            self._loads.append(action)
            if self._loading is None:
                self._load_next()

    def hang(self) -> None:
        """Answer nothing any more."""
        self.is_hung = True
        if self._run_end is not None:
            self._run_end.cancel()

    def _run_next(self) -> None:
        while self._batches and self._running is None:
            action = self._batches[0]
            now_ns = self._clock.now_ns()
            if now_ns < action.earliest_ns:
                self._clock.call_at(action.earliest_ns, self._run_next)
                return
            self._batches.popleft()
            if now_ns > action.latest_ns:
                self._fail(action, Failure.TOO_LATE)
            elif not self._residency.is_ready(action.model):
                self._fail(action, Failure.NOT_LOADED)
            else:
                self._start(action, now_ns)

    def _start(self, action: RunBatch, now_ns: int) -> None:
        requests = action.requests
        work = requests[0].work if len(requests) == 1 else max([request.work for request in requests])
        nominal_ns = self._truth[action.model].profile.expected_ns(action.rows) * work
        took_ns = max(1, int(nominal_ns * self.slowness * self._stretch()))
        self._running, self._started_ns = action, now_ns
        self._load_id_at_start = self._residency.load_id(action.model)
        self._run_end_ns = now_ns + took_ns
        self._run_end = self._clock.call_at(self._run_end_ns, self._finish)

    def _finish(self) -> None:
        action = self._running
        assert action is not None
        self._running = self._run_end = None
        if self._residency.load_id(action.model) != self._load_id_at_start:
            self._fail(action, Failure.CHANGED, self._started_ns)
        else:
            now_ns = self._clock.now_ns()
            self._tell(
                BatchDone(
                    executor=self.slice.executor,
                    batch_id=action.batch_id,
                    started_ns=self._started_ns,
                    ended_ns=now_ns,
                    cpu_ns=now_ns - self._started_ns,
                )
            )
        self._run_next()

    def _fail(self, action: RunBatch, failure: Failure, started_ns: int = 0) -> None:
        self._tell(
            BatchFailed(
                executor=self.slice.executor,
                batch_id=action.batch_id,
                failure=failure,
                started_ns=started_ns,
                ended_ns=self._clock.now_ns(),
            )
        )

    def _stop(self, batch_id: int) -> None:
        waiting = [action for action in self._batches if action.batch_id == batch_id]
        for action in waiting:
            self._batches.remove(action)
            self._fail(action, Failure.STOPPED)
        if self._running is not None and self._running.batch_id == batch_id and self._run_end is not None:
            stopped_ns = self._clock.now_ns() + self._truth[self._running.model].profile.stop_ns
            if stopped_ns < self._run_end_ns:  # else it ends before it heeds the stop
                self._run_end.cancel()
                self._run_end = self._clock.call_at(stopped_ns, partial(self._stopped, self._running))

    def _stopped(self, action: RunBatch) -> None:
        self._running = self._run_end = None
        self._fail(action, Failure.STOPPED, self._started_ns)
        self._run_next()

    def _load_next(self) -> None:
        while self._loads and self._loading is None and not self.is_hung:
            action = self._loads.popleft()
            if type(action) is Unload:
                self._residency.unload(action.model, action.load_id)
                self._tell(Unloaded(executor=self.slice.executor, model=action.model, load_id=action.load_id))
            elif type(action) is Load:
                self._begin_load(action)

    def _begin_load(self, action: Load) -> None:
        now_ns = self._clock.now_ns()
        spec = self._truth[action.model]
        if now_ns > action.latest_ns:
            self._refuse_load(action, Failure.TOO_LATE, "the load's window has passed")
            return
        try:
            self._residency.begin_load(action.model, spec.profile.memory_bytes, action.load_id)
        except OutOfMemory as error:
            self._refuse_load(action, Failure.NO_MEMORY, str(error))
            return
        self._loading = action
        took_ns = int(spec.profile.load_ns * self.slowness * self._stretch_load())
        self._clock.call_at(now_ns + took_ns, partial(self._end_load, action, now_ns))

    def _refuse_load(self, action: Load, failure: Failure, message: str) -> None:
        self._tell(
            LoadFailed(
                executor=self.slice.executor,
                model=action.model,
                load_id=action.load_id,
                failure=failure,
                message=message,
            )
        )

    def _end_load(self, action: Load, started_ns: int) -> None:
        if self.is_hung:
            return
        self._loading = None
        self._residency.end_load(action.model, action.load_id)
        self._tell(
            Loaded(
                executor=self.slice.executor,
                model=action.model,
                load_id=action.load_id,
                started_ns=started_ns,
                ended_ns=self._clock.now_ns(),
            )
        )
        self._load_next()


class SimFleet:
    """A fleet in virtual time; an `engine.ports.Fleet`. `truth` holds the true profiles, by model id."""

    def __init__(
        self, *, settings: FleetSettings, clock: Clock, truth: Mapping[str, ModelSpec], rng: random.Random
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._truth = truth
        self._rng = rng
        self._post: Post | None = None
        self._slices = {slice_.executor: slice_ for slice_ in settings.slices}
        self._links: dict[str, tuple[Direction, Direction]] = {}
        """There and back, by node; below, by executor."""
        self._out: dict[str, Direction] = {}
        self._back: dict[str, Direction] = {}
        for slice_ in settings.slices:
            self._connect(slice_)
        self._slowed: dict[str, float] = {}
        """Executors that are slower than they should be, and how many times."""
        self._executors: dict[str, SimExecutor] = {}

    def start(self, post: Post) -> None:
        """Bring every executor up; events go to `post` from now on."""
        self._post = post
        for name in self._slices:
            self._bring_up(name)

    def send(self, action: FleetAction) -> None:
        """Let the action cross the link; it is lost if its executor is."""
        if type(action) is ReplaceExecutor:
            self.kill(action.executor, action.message)
            return
        executor = self._executors.get(action.executor)
        if executor is None:
            return
        now_ns, out, nbytes = self._clock.now_ns(), self._out[action.executor], 0
        if type(action) is RunBatch and self._settings.link_bytes_per_s:
            nbytes = self._settings.row_bytes.get(action.model, 0) * action.rows
            there_ns = out.would_arrive_ns(now_ns, nbytes)
            if there_ns > action.latest_ns:
                self._clock.call_at(now_ns, partial(self._return_unsent, executor, action, there_ns))
                return
        self._clock.call_at(out.send(now_ns, nbytes), partial(self._deliver, executor, action))

    def flush(self) -> None:
        """Nothing is held back here."""

    def kill(self, name: str, message: str = "killed", away_ns: int | None = None) -> None:
        """End an executor now, with all it was doing, and start its successor after `away_ns`, or as is usual."""
        executor = self._executors.pop(name, None)
        if executor is None:
            return
        executor.hang()
        self._say(ExecutorLost(executor=name, message=message))
        back_ns = self._clock.now_ns() + (self._settings.restart_ns if away_ns is None else away_ns)
        self._clock.call_at(back_ns, partial(self._bring_up, name))

    def hang(self, name: str) -> None:
        """Let an executor fall silent; it has to be noticed and replaced."""
        if name in self._executors:
            self._executors[name].hang()

    def slow(self, name: str, factor: float) -> None:
        """Let whatever an executor begins from now on take `factor` times as long as is usual there; 1 mends it."""
        self._slowed[name] = factor
        if name in self._executors:
            self._executors[name].slowness = self._slices[name].slowness * factor

    def _connect(self, slice_: SimSlice) -> None:
        link = slice_.node or slice_.executor
        if link not in self._links:
            settings = LinkSettings(
                delay_ns=self._settings.link_ns if slice_.link_ns is None else slice_.link_ns,
                spread=self._settings.link_spread,
                bytes_per_s=self._settings.link_bytes_per_s,
            )
            self._links[link] = Direction(settings, self._rng), Direction(settings, self._rng)
        self._out[slice_.executor], self._back[slice_.executor] = self._links[link]

    def _bring_up(self, name: str) -> None:
        slice_ = self._slices[name]
        self._executors[name] = SimExecutor(
            slice_=slice_,
            clock=self._clock,
            tell=self._tell_from,
            truth=self._truth,
            stretch=self._stretch,
            stretch_load=self._stretch_load,
        )
        self._executors[name].slowness = slice_.slowness * self._slowed.get(name, 1.0)
        way_ns = 2 * self._out[name].delay_ns if self._settings.is_far else 0
        up = ExecutorUp(executor=name, memory_bytes=slice_.memory_bytes, page_bytes=slice_.page_bytes, way_ns=way_ns)
        self._say(up)

    def _deliver(self, executor: SimExecutor, action: FleetAction) -> None:
        if self._executors.get(executor.slice.executor) is executor:
            executor.take(action)

    def _tell_from(self, executor: SimExecutor, event: Event) -> None:
        at_ns = self._back[executor.slice.executor].send(self._clock.now_ns())
        self._clock.call_at(at_ns, partial(self._say_if_alive, executor, event))

    def _say_if_alive(self, executor: SimExecutor, event: Event) -> None:
        if self._executors.get(executor.slice.executor) is executor:
            self._say(event)

    def _return_unsent(self, executor: SimExecutor, action: RunBatch, there_ns: int) -> None:
        """A batch whose inputs cannot be there in time stays here, so that none behind it waits for it."""
        failed = BatchFailed(
            executor=action.executor,
            batch_id=action.batch_id,
            failure=Failure.TOO_LATE,
            message="its inputs cannot be there in time",
            started_ns=there_ns,
            ended_ns=there_ns,
        )
        self._say_if_alive(executor, failed)

    def _say(self, event: Event) -> None:
        assert self._post is not None, "the fleet was not started"
        self._post(event)

    def _stretch(self) -> float:
        noise = self._settings.noise
        stretch = self._rng.lognormvariate(0.0, noise.spread) if noise.spread else 1.0
        if noise.overrun_share and self._rng.random() < noise.overrun_share:
            stretch *= noise.overrun_factor
        return stretch

    def _stretch_load(self) -> float:
        spread = self._settings.noise.load_spread
        return self._rng.lognormvariate(0.0, spread) if spread else 1.0
