"""Reads a journal for the stories of some requests: what stood in their way, which batches, how it ended. Pure.

A story is facts only, in nanoseconds on the journal's clock; `words` makes sentences of it. One pass follows any
number of requests; what was waiting, running and loaded is kept for all, and copied where a followed one arrives.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import msgspec

from slotwise.engine.timeline import Decode, read_moments
from slotwise.facts.actions import Load, Unload
from slotwise.facts.events import ExecutorLost, ExecutorUp, Loaded, LoadFailed
from slotwise.facts.types import FOREVER_NS, PRIORITY_DEFAULT, Failure, Outcome, Reason


class Part(msgspec.Struct):
    """Which step of which request to a pipeline a request is."""

    request_id: int
    model: str
    step: int


class Asking(msgspec.Struct):
    """A request as it arrived."""

    id: int
    model: str
    arrival_ns: int
    deadline_ns: int
    rows: int = 1
    priority: int = PRIORITY_DEFAULT
    step_of: Part | None = None


class Run(msgspec.Struct):
    """A batch as it was sent, its requests as ids."""

    executor: str
    batch_id: int
    model: str
    requests: tuple[int, ...]
    rows: int
    earliest_ns: int
    latest_ns: int
    expected_ns: int


class Ending(msgspec.Struct):
    """A reply, without its tensors."""

    request_id: int
    outcome: Outcome
    reason: Reason = Reason.NONE
    message: str = ""
    predicted_ns: int = FOREVER_NS


class _Arrived(msgspec.Struct):
    request: Asking


class _PipelineEnded(msgspec.Struct):
    request: Asking
    outcome: Outcome
    reason: Reason = Reason.NONE
    message: str = ""
    predicted_ns: int = FOREVER_NS

    def ending(self) -> Ending:
        return Ending(self.request.id, self.outcome, self.reason, self.message, self.predicted_ns)


class _Done(msgspec.Struct):
    executor: str
    batch_id: int
    started_ns: int
    ended_ns: int


class _Failed(msgspec.Struct):
    executor: str
    batch_id: int
    failure: Failure
    message: str = ""
    started_ns: int = 0
    ended_ns: int = 0


_DECODERS: dict[str, Decode] = {
    "Arrived": msgspec.json.Decoder(_Arrived).decode,
    "BatchDone": msgspec.json.Decoder(_Done).decode,
    "BatchFailed": msgspec.json.Decoder(_Failed).decode,
    "Loaded": msgspec.json.Decoder(Loaded).decode,
    "LoadFailed": msgspec.json.Decoder(LoadFailed).decode,
    "ExecutorUp": msgspec.json.Decoder(ExecutorUp).decode,
    "ExecutorLost": msgspec.json.Decoder(ExecutorLost).decode,
    "RunBatch": msgspec.json.Decoder(Run).decode,
    "Load": msgspec.json.Decoder(Load).decode,
    "Unload": msgspec.json.Decoder(Unload).decode,
    "Reply": msgspec.json.Decoder(Ending).decode,
    "PipelineEnded": msgspec.json.Decoder(_PipelineEnded).decode,
}
_ENDINGS: dict[str, Decode] = {name: _DECODERS[name] for name in ("Arrived", "Reply", "PipelineEnded")}


@dataclass(slots=True)
class Attempt:
    """A batch that the request was in. `trouble` says why it came to nothing; no `ended_ns`: it never came back."""

    run: Run
    sent_ns: int
    expected_start_ns: int
    """When its executor was expected to be through with what was sent to it before."""
    ahead: int
    """How many batches that were."""
    started_ns: int | None = None
    ended_ns: int | None = None
    trouble: str = ""
    message: str = ""


@dataclass(slots=True)
class Loading:
    """A load of the request's model that was under way between its arrival and its end."""

    load: Load
    sent_ns: int
    ended_ns: int | None = None
    trouble: str = ""


@dataclass(slots=True)
class Then:
    """An executor as it stood when the request arrived."""

    executor: str
    batches: int
    """Sent and not back."""
    busy_ns: int
    """How long it was expected to be busy with them."""
    holds: bool
    """Whether the request's model was ready there."""


@dataclass(slots=True)
class Leg:
    """A step of a request to a pipeline: a request of its own, and its end."""

    asking: Asking
    ending: Ending | None = None
    replied_ns: int | None = None


@dataclass(slots=True)
class Story:
    """One request. One to a pipeline has no batches but `legs`, in the order in which they began."""

    asking: Asking
    waiting: int
    """Requests for the same model that waited when it arrived."""
    waiting_all: int
    executors: list[Then]
    attempts: list[Attempt] = field(default_factory=list)
    loadings: list[Loading] = field(default_factory=list)
    legs: list[Leg] = field(default_factory=list)
    ending: Ending | None = None
    replied_ns: int | None = None

    def missed_ns(self) -> int | None:
        """By how much it missed; see `missed_ns`."""
        if self.ending is None or self.replied_ns is None:
            return None
        return missed_ns(self.asking, self.ending, self.replied_ns)


def missed_ns(asking: Asking, ending: Ending, replied_ns: int) -> int | None:
    """How long after its deadline a request was answered, or would have been; None where that is not known."""
    if ending.outcome in (Outcome.IN_TIME, Outcome.CANCELLED) or asking.deadline_ns >= FOREVER_NS:
        return None
    if ending.predicted_ns < FOREVER_NS:
        return max(0, ending.predicted_ns - asking.deadline_ns)
    return replied_ns - asking.deadline_ns if replied_ns > asking.deadline_ns else None


def read_worst(lines: Iterable[bytes], count: int) -> list[int]:
    """The ids of the requests that missed their deadlines by most, the worst first. Raises JournalError."""
    asked: dict[int, Asking] = {}
    worst: list[tuple[int, int]] = []
    for now_ns, moment in read_moments(lines, _ENDINGS):
        asking, ending = None, None
        if isinstance(moment, _Arrived):
            asked[moment.request.id] = moment.request
        elif isinstance(moment, Ending):
            asking, ending = asked.pop(moment.request_id, None), moment
        elif isinstance(moment, _PipelineEnded):
            asking, ending = moment.request, moment.ending()
        missed = missed_ns(asking, ending, now_ns) if asking is not None and ending is not None else None
        if missed is not None and asking is not None:
            heapq.heappush(worst, (missed, -asking.id))
            if len(worst) > count:
                heapq.heappop(worst)
    return [-number for _, number in sorted(worst, reverse=True)]


def read_stories(lines: Iterable[bytes], ids: Collection[int]) -> list[Story]:
    """The stories of these requests, in their order; those that the journal does not know are left out."""
    reader = _Reader(frozenset(ids))
    for now_ns, moment in read_moments(lines, _DECODERS):
        reader.take(now_ns, moment)
    return [reader.stories[number] for number in ids if number in reader.stories]


@dataclass(slots=True)
class _Executor:
    flight: list[Attempt] = field(default_factory=list)
    begin_ns: int = 0
    """When the first of them began, as far as is known."""

    def free_ns(self, now_ns: int) -> int:
        """When all of it is expected to be through."""
        if not self.flight:
            return now_ns
        begin_ns = max(self.begin_ns, self.flight[0].sent_ns)
        return max(now_ns, begin_ns + sum(attempt.run.expected_ns for attempt in self.flight))


class _Reader:
    """Keeps what is under way, and of the followed requests everything."""

    def __init__(self, ids: frozenset[int]) -> None:
        self.stories: dict[int, Story] = {}
        self._ids = ids
        self._open: dict[int, Asking] = {}
        self._legs: dict[int, Leg] = {}
        """Steps of followed requests, by their own ids."""
        self._running: set[int] = set()
        self._waiting: Counter[str] = Counter()
        self._executors: dict[str, _Executor] = {}
        self._holders: dict[str, set[str]] = {}
        self._loads: dict[int, Loading] = {}
        self._takers: dict[type, Callable[..., None]] = {
            _Arrived: self._arrived,
            _Done: self._done,
            _Failed: self._failed,
            Loaded: self._loaded,
            LoadFailed: self._load_failed,
            ExecutorUp: self._executor_up,
            ExecutorLost: self._executor_lost,
            Run: self._run,
            Load: self._load,
            Unload: self._unload,
            Ending: self._ended,
            _PipelineEnded: self._pipeline_ended,
        }

    def take(self, now_ns: int, moment: object) -> None:
        """One event or action, in the journal's order."""
        take = self._takers.get(type(moment))
        if take is not None:
            take(moment, now_ns)

    def _arrived(self, event: _Arrived, now_ns: int) -> None:
        asking = event.request
        if asking.id in self._ids:
            self.stories[asking.id] = self._story(asking, now_ns)
        part = asking.step_of
        if part is not None and part.request_id in self._ids:
            if part.request_id not in self.stories:  # its own arrival is told with its end
                whole = Asking(part.request_id, part.model, asking.arrival_ns, FOREVER_NS, asking.rows, asking.priority)
                self.stories[whole.id] = self._story(whole, now_ns)
            self._legs[asking.id] = Leg(asking)
            self.stories[part.request_id].legs.append(self._legs[asking.id])
        self._open[asking.id] = asking
        self._waiting[asking.model] += 1

    def _story(self, asking: Asking, now_ns: int) -> Story:
        holders = self._holders.get(asking.model, set())
        return Story(
            asking=asking,
            waiting=self._waiting[asking.model],
            waiting_all=self._waiting.total(),
            executors=[
                Then(
                    executor=name, batches=len(one.flight), busy_ns=one.free_ns(now_ns) - now_ns, holds=name in holders
                )
                for name, one in sorted(self._executors.items())
            ],
            loadings=[loading for loading in self._loads.values() if loading.load.model == asking.model],
        )

    def _run(self, run: Run, now_ns: int) -> None:
        executor = self._executors.setdefault(run.executor, _Executor())
        attempt = Attempt(
            run=run, sent_ns=now_ns, expected_start_ns=executor.free_ns(now_ns), ahead=len(executor.flight)
        )
        if not executor.flight:
            executor.begin_ns = now_ns
        executor.flight.append(attempt)
        for number in run.requests:
            asking = self._open.get(number)
            if asking is not None and number not in self._running:
                self._running.add(number)
                self._waiting[asking.model] -= 1
            if number in self.stories:
                self.stories[number].attempts.append(attempt)

    def _done(self, event: _Done, now_ns: int) -> None:
        attempt = self._take_back(event.executor, event.batch_id, event.ended_ns)
        if attempt is not None:
            attempt.started_ns, attempt.ended_ns = event.started_ns, event.ended_ns

    def _failed(self, event: _Failed, now_ns: int) -> None:
        attempt = self._take_back(event.executor, event.batch_id, event.ended_ns or now_ns)
        if attempt is not None:
            has_run = event.ended_ns > event.started_ns > 0  # one that came too late has an end, and never ran
            attempt.started_ns = event.started_ns if has_run else None
            self._fail(attempt, event.ended_ns or now_ns, event.failure.value, event.message)

    def _take_back(self, name: str, batch_id: int, ended_ns: int) -> Attempt | None:
        executor = self._executors.get(name)
        for attempt in executor.flight if executor is not None else ():
            if executor is not None and attempt.run.batch_id == batch_id:
                executor.flight.remove(attempt)
                executor.begin_ns = ended_ns
                return attempt
        return None

    def _fail(self, attempt: Attempt, ended_ns: int, trouble: str, message: str) -> None:
        attempt.ended_ns, attempt.trouble, attempt.message = ended_ns, trouble, message
        for number in attempt.run.requests:
            if number in self._running:
                self._running.discard(number)
                self._waiting[attempt.run.model] += 1

    def _executor_up(self, event: ExecutorUp, now_ns: int) -> None:
        self._executors[event.executor] = _Executor()

    def _executor_lost(self, event: ExecutorLost, now_ns: int) -> None:
        executor = self._executors.pop(event.executor, None)
        for attempt in executor.flight if executor is not None else ():
            self._fail(attempt, now_ns, "executor_lost", event.message)
        for holders in self._holders.values():
            holders.discard(event.executor)
        for key in [key for key, loading in self._loads.items() if loading.load.executor == event.executor]:
            self._end_load(key, now_ns, "executor_lost")

    def _load(self, load: Load, now_ns: int) -> None:
        loading = self._loads[load.load_id] = Loading(load=load, sent_ns=now_ns)
        for story in self.stories.values():
            if story.asking.model == load.model and story.ending is None:
                story.loadings.append(loading)

    def _loaded(self, event: Loaded, now_ns: int) -> None:
        self._holders.setdefault(event.model, set()).add(event.executor)
        self._end_load(event.load_id, now_ns, "")

    def _load_failed(self, event: LoadFailed, now_ns: int) -> None:
        self._end_load(event.load_id, now_ns, event.failure.value)

    def _end_load(self, load_id: int, now_ns: int, trouble: str) -> None:
        loading = self._loads.pop(load_id, None)
        if loading is not None:
            loading.ended_ns, loading.trouble = now_ns, trouble

    def _unload(self, unload: Unload, now_ns: int) -> None:
        self._holders.setdefault(unload.model, set()).discard(unload.executor)

    def _ended(self, ending: Ending, now_ns: int) -> None:
        asking = self._open.pop(ending.request_id, None)
        if asking is None:
            return
        if asking.id in self._running:
            self._running.discard(asking.id)
        else:
            self._waiting[asking.model] -= 1
        for told in (self.stories.get(asking.id), self._legs.pop(asking.id, None)):
            if told is not None:
                told.ending, told.replied_ns = ending, now_ns

    def _pipeline_ended(self, event: _PipelineEnded, now_ns: int) -> None:
        if event.request.id in self._ids:
            story = self.stories.setdefault(event.request.id, self._story(event.request, now_ns))
            story.asking, story.ending, story.replied_ns = event.request, event.ending(), now_ns
