"""Executors in virtual time. They keep the same rules as the real ones, and the controller cannot tell.

An executor runs one batch at a time and loads one model at a time, the two side by side. What an action
takes is its true profile times the executor's `slowness` times noise; what it holds is kept in the same books
as a real executor's. Actions and events each take `link_ns` to cross.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from slotwise.engine.clock import Alarm, VirtualClock
from slotwise.engine.ports import FleetAction, Post
from slotwise.facts.actions import Load, ReplaceExecutor, RunBatch, StopBatch, Unload
from slotwise.facts.events import BatchDone, BatchFailed, Event, ExecutorLost, ExecutorUp, Loaded, LoadFailed, Unloaded
from slotwise.facts.residency import OutOfMemory, Residency
from slotwise.facts.types import Failure, ModelSpec
from slotwise.facts.units import MS
from slotwise.facts.value import value


@value
class Noise:
    """How runs differ from the profile: a relative spread, and now and then an overrun by a factor."""

    spread: float = 0.0
    overrun_share: float = 0.0
    overrun_factor: float = 10.0


@value
class SimSlice:
    """One executor to simulate. `slowness` multiplies every time of the true profile."""

    executor: str
    memory_bytes: int = 1 << 62
    page_bytes: int = 1
    slowness: float = 1.0


@value
class FleetSettings:
    """What is common to all executors."""

    slices: tuple[SimSlice, ...]
    link_ns: int = 50_000
    noise: Noise = Noise()
    restart_ns: int = 200 * MS
    """From the loss of an executor to its successor."""


class SimExecutor:
    """One incarnation of an executor. Events it owes after its death are never posted."""

    def __init__(
        self,
        *,
        slice_: SimSlice,
        clock: VirtualClock,
        tell: Callable[[SimExecutor, Event], None],
        truth: Mapping[str, ModelSpec],
        stretch: Callable[[], float],
    ) -> None:
        self.slice = slice_
        self.is_hung = False
        self._clock = clock
        self._tell_fleet = tell
        self._truth = truth
        self._stretch = stretch
        self._residency = Residency(slice_.memory_bytes, slice_.page_bytes)
        self._batches: deque[RunBatch] = deque()
        self._running: RunBatch | None = None
        self._run_end: Alarm | None = None
        self._started_ns = 0
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
        work = max([request.work for request in action.requests])
        nominal_ns = self._truth[action.model].profile.expected_ns(action.rows) * work
        took_ns = max(1, int(nominal_ns * self.slice.slowness * self._stretch()))
        self._running, self._started_ns = action, now_ns
        self._load_id_at_start = self._residency.load_id(action.model)
        self._run_end = self._clock.call_at(now_ns + took_ns, self._finish)

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
            self._run_end.cancel()
            stop_ns = self._truth[self._running.model].profile.stop_ns
            self._run_end = self._clock.call_at(self._clock.now_ns() + stop_ns, partial(self._stopped, self._running))

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
        took_ns = int(spec.profile.load_ns * self.slice.slowness)
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
        self, *, settings: FleetSettings, clock: VirtualClock, truth: Mapping[str, ModelSpec], rng: random.Random
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._truth = truth
        self._rng = rng
        self._post: Post | None = None
        self._slices = {slice_.executor: slice_ for slice_ in settings.slices}
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
        if executor is not None:
            self._clock.call_at(self._clock.now_ns() + self._settings.link_ns, partial(self._deliver, executor, action))

    def flush(self) -> None:
        """Nothing is held back here."""

    def kill(self, name: str, message: str = "killed") -> None:
        """End an executor now, with all it was doing, and start its successor later."""
        executor = self._executors.pop(name, None)
        if executor is None:
            return
        executor.hang()
        self._say(ExecutorLost(executor=name, message=message))
        self._clock.call_at(self._clock.now_ns() + self._settings.restart_ns, partial(self._bring_up, name))

    def hang(self, name: str) -> None:
        """Let an executor fall silent; it has to be noticed and replaced."""
        if name in self._executors:
            self._executors[name].hang()

    def _bring_up(self, name: str) -> None:
        slice_ = self._slices[name]
        self._executors[name] = SimExecutor(
            slice_=slice_, clock=self._clock, tell=self._tell_from, truth=self._truth, stretch=self._stretch
        )
        self._say(ExecutorUp(executor=name, memory_bytes=slice_.memory_bytes, page_bytes=slice_.page_bytes))

    def _deliver(self, executor: SimExecutor, action: FleetAction) -> None:
        if self._executors.get(executor.slice.executor) is executor:
            executor.take(action)

    def _tell_from(self, executor: SimExecutor, event: Event) -> None:
        self._clock.call_at(self._clock.now_ns() + self._settings.link_ns, partial(self._say_if_alive, executor, event))

    def _say_if_alive(self, executor: SimExecutor, event: Event) -> None:
        if self._executors.get(executor.slice.executor) is executor:
            self._say(event)

    def _say(self, event: Event) -> None:
        assert self._post is not None, "the fleet was not started"
        self._post(event)

    def _stretch(self) -> float:
        noise = self._settings.noise
        stretch = self._rng.lognormvariate(0.0, noise.spread) if noise.spread else 1.0
        if noise.overrun_share and self._rng.random() < noise.overrun_share:
            stretch *= noise.overrun_factor
        return stretch
