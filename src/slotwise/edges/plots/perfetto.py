"""A timeline as a trace in Chrome's JSON format, which ui.perfetto.dev and chrome://tracing open. Pure.

One track for each executor holds its batches; one track for each model holds what happened to requests that were
not answered in time. Times are microseconds from the timeline's start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from slotwise.facts.timeline import Asked, Bar, Loss, Mark, Scene, Timeline
from slotwise.facts.types import Outcome
from slotwise.facts.units import US

EXECUTORS, REQUESTS, RUN = 1, 2, 3
"""Numbers of the trace's three groups of tracks."""
GROUPS = {EXECUTORS: "executors", REQUESTS: "requests not answered in time", RUN: "run"}


class _Arguments(msgspec.Struct, omit_defaults=True):
    name: str | None = None
    rows: int | None = None
    requests: tuple[int, ...] | None = None
    met: int | None = None
    missed: int | None = None
    expected_ms: float | None = None
    waited_ms: float | None = None
    trouble: str | None = None
    reason: str | None = None
    message: str | None = None


class _TraceEvent(msgspec.Struct, omit_defaults=True):
    name: str
    ph: str
    pid: int
    tid: int
    ts: float | None = None
    dur: float | None = None
    cat: str | None = None
    s: str | None = None
    """Of an instant: whether it marks its track, its group or everything."""
    args: _Arguments = msgspec.field(default_factory=_Arguments)


class _Trace(msgspec.Struct):
    trace_events: list[_TraceEvent] = msgspec.field(name="traceEvents")
    unit: str = msgspec.field(name="displayTimeUnit", default="ms")


def trace(timeline: Timeline, scenes: Sequence[Scene] = (), marks: Sequence[Mark] = ()) -> bytes:
    """The whole trace as JSON."""
    lanes = {executor: number for number, executor in enumerate(timeline.executors, start=1)}
    marked = [_mark_event(mark, lanes, timeline.start_ns) for mark in marks]
    return msgspec.json.encode(_Trace([*_names(timeline), *_events(timeline, scenes, lanes), *marked]))


def _names(timeline: Timeline) -> Iterator[_TraceEvent]:
    for group, name in GROUPS.items():
        yield _TraceEvent("process_name", "M", group, 0, args=_Arguments(name=name))
    for group, tracks in ((EXECUTORS, timeline.executors), (REQUESTS, tuple(timeline.slo_ns)), (RUN, ("phases",))):
        for number, name in enumerate(tracks, start=1):
            yield _TraceEvent("thread_name", "M", group, number, args=_Arguments(name=name))


def _events(timeline: Timeline, scenes: Sequence[Scene], lanes: dict[str, int]) -> Iterator[_TraceEvent]:
    tracks = {model: number for number, model in enumerate(timeline.slo_ns, start=1)}
    endings = {asked.id: asked.outcome for asked in timeline.asked}
    start_ns = timeline.start_ns
    for scene in scenes:
        ts, dur = _us(scene.start_ns - start_ns), _us(scene.end_ns - scene.start_ns)
        yield _TraceEvent(f"{scene.name}: {scene.caption}", "X", RUN, 1, ts, dur, "phase")
    for bar in timeline.bars:
        yield _bar_event(bar, lanes[bar.executor], start_ns, endings)
    for asked in timeline.asked:
        if asked.outcome not in (Outcome.IN_TIME, None) and asked.model in tracks:
            yield _miss_event(asked, tracks[asked.model], start_ns)
    for loss in timeline.losses:
        if loss.executor in lanes:
            yield from _loss_events(loss, lanes[loss.executor], timeline)


def _bar_event(bar: Bar, lane: int, start_ns: int, endings: dict[int, Outcome | None]) -> _TraceEvent:
    met = sum(endings.get(request_id) is Outcome.IN_TIME for request_id in bar.request_ids)
    arguments = _Arguments(
        rows=bar.rows,
        requests=bar.request_ids,
        met=met,
        missed=len(bar.request_ids) - met,
        expected_ms=round(bar.expected_ns / (1000 * US), 3),
        waited_ms=round((bar.started_ns - bar.sent_ns) / (1000 * US), 3),
        trouble=bar.trouble or None,
    )
    ts, dur = _us(bar.started_ns - start_ns), _us(bar.ended_ns - bar.started_ns)
    return _TraceEvent(bar.model, "X", EXECUTORS, lane, ts, dur, "batch", args=arguments)


def _miss_event(asked: Asked, track: int, start_ns: int) -> _TraceEvent:
    outcome = asked.outcome.value if asked.outcome else "open"
    ts = _us((asked.replied_ns or asked.arrival_ns) - start_ns)
    return _TraceEvent(
        outcome, "i", REQUESTS, track, ts, cat="request", s="t", args=_Arguments(reason=asked.reason.value)
    )


def _loss_events(loss: Loss, lane: int, timeline: Timeline) -> Iterator[_TraceEvent]:
    at_ns, back_ns = loss.lost_ns - timeline.start_ns, (loss.back_ns or timeline.end_ns) - timeline.start_ns
    told = _Arguments(message=loss.message)
    yield _TraceEvent(f"{loss.executor} lost", "i", EXECUTORS, lane, _us(at_ns), cat="fault", s="g", args=told)
    yield _TraceEvent("away", "X", EXECUTORS, lane, _us(at_ns), _us(back_ns - at_ns), "fault", args=told)


def _mark_event(mark: Mark, lanes: dict[str, int], start_ns: int) -> _TraceEvent:
    return _TraceEvent(mark.text, "i", EXECUTORS, lanes[mark.executor], _us(mark.at_ns - start_ns), cat="fault", s="g")


def _us(nanoseconds: int) -> float:
    return nanoseconds / US
