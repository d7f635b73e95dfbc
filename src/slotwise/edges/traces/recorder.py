"""Requests as spans: one for the whole, and one each for queue, wait, execution and return.

The turns only pick the requests that are traced (`sampling`), and keep what is told of them; spans are made and
sent by a thread of its own. Whatever the collector does not take is counted, and nobody waits for it.

A request that says of which trace it is a part (`traceparent`, W3C Trace Context) continues that trace, and it is its
client, not the share, that says whether it is traced; where tracing is off, or the count is used up, it is not. What is
no such header is passed over, as the standard asks.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from slotwise.edges.traces.sampling import Sampling
from slotwise.edges.traces.settings import Traces
from slotwise.facts.actions import Action, Reply
from slotwise.facts.events import Arrived, Event
from slotwise.facts.statistics import LogUse
from slotwise.facts.types import FOREVER_NS, Outcome, Request
from slotwise.facts.units import MS
from slotwise.facts.value import value

LIBRARIES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
"""Version, trace, span, flags; a later version may add to it."""
TRACEPARENT_LENGTH = 55
"""Of the present version."""
SAMPLED = 0x01


@value
class Parent:
    """The span of a client's that a request belongs to."""

    trace_id: int
    span_id: int
    is_traced: bool


@value
class Ended:
    """A traced request and its reply."""

    request: Request
    reply: Reply
    replied_ns: int
    parent: Parent | None = None


@value
class Span:
    """A stretch of a request's time, on the engine's clock."""

    name: str
    start_ns: int
    end_ns: int


Send = Callable[[Sequence[Ended]], bool]
"""Makes spans of these and sends them; says whether they were taken."""


class TraceRecorder:
    """Picks requests and has them sent; a `ports.Recorder`. Alive from the making to `close`."""

    def __init__(self, settings: Traces, send: Send) -> None:
        self._settings = settings
        self._send = send
        self.sampling = Sampling(settings.ratio)
        self._open: dict[int, Request] = {}
        self._parents: dict[int, Parent] = {}
        self._waiting: deque[Ended] = deque()
        self._sent = self._behind = self._untaken = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="slotwise-traces", daemon=True)
        self._thread.start()

    def join(self, request_id: int, traceparent: str) -> None:
        """A request that is about to arrive is a part of this trace; nothing where that is none."""
        parent = parent_of(traceparent)
        if parent is not None:
            self._parents[request_id] = parent

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Take one turn in."""
        for event in events:
            if type(event) is Arrived and self._is_traced(event.request):
                self._open[event.request.id] = event.request
        if self._open:
            for action in actions:
                if type(action) is Reply and action.request_id in self._open:
                    self._end(self._open.pop(action.request_id), action, now_ns)

    def statistics(self) -> LogUse:
        """What was sent and lost so far, in requests."""
        return LogUse(log="traces", rows=self._sent, rows_behind=self._behind, rows_unwritable=self._untaken)

    def close(self) -> None:
        """Send the rest, as far as the collector takes it within `close_s_max`. Blocks so long; harmless twice."""
        self._closing.set()
        self._thread.join(self._settings.close_s_max)

    def _is_traced(self, request: Request) -> bool:
        parent = self._parents.get(request.id)
        is_traced = self.sampling.takes(request, parent.is_traced if parent is not None else None)
        if parent is not None and not is_traced:
            del self._parents[request.id]
        return is_traced

    def _end(self, request: Request, reply: Reply, now_ns: int) -> None:
        parent = self._parents.pop(request.id, None)
        if len(self._waiting) < self._settings.requests_max:
            self._waiting.append(Ended(request=request, reply=reply, replied_ns=now_ns, parent=parent))
        else:
            self._behind += 1

    def _work(self) -> None:
        while not self._closing.wait(self._settings.send_s):
            self._send_waiting()
        self._send_waiting()

    def _send_waiting(self) -> None:
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not batch:
            return
        if self._send(batch):
            self._sent += len(batch)
        else:
            self._untaken += len(batch)


def parent_of(traceparent: str) -> Parent | None:
    """What the header says; None for what is none."""
    match = TRACEPARENT.fullmatch(traceparent.strip())
    if match is None or (traceparent.strip().startswith("00") and len(traceparent.strip()) != TRACEPARENT_LENGTH):
        return None
    trace, span, flags = (int(part, 16) for part in match.groups())
    return Parent(trace_id=trace, span_id=span, is_traced=bool(flags & SAMPLED))


def stretches(ended: Ended) -> list[Span]:
    """How a request's time was spent; nothing for one that was not answered."""
    timing = ended.reply.timing
    if timing is None:
        return []
    instants = (ended.request.arrival_ns, timing.sent_ns, timing.started_ns, timing.ended_ns, ended.replied_ns)
    names = ("queue", "wait", "execution", "return")
    return [
        Span(name=name, start_ns=instants[index], end_ns=max(instants[index], instants[index + 1]))
        for index, name in enumerate(names)
    ]


def attributes(ended: Ended) -> dict[str, str | int | float]:
    """What is told of a request beside its times."""
    request, reply, timing = ended.request, ended.reply, ended.reply.timing
    told: dict[str, str | int | float] = {
        "slotwise.request": request.id,
        "slotwise.model": request.model,
        "slotwise.rows": request.rows,
        "slotwise.priority": request.priority,
        "slotwise.outcome": reply.outcome.value,
        "slotwise.reason": reply.reason.value,
    }
    if request.deadline_ns < FOREVER_NS:
        told["slotwise.allowed_ms"] = (request.deadline_ns - request.arrival_ns) / MS
    if reply.predicted_ns < FOREVER_NS:
        told["slotwise.predicted_ms"] = (reply.predicted_ns - request.arrival_ns) / MS
    if timing is not None:
        told["slotwise.executor"] = timing.executor
        told["slotwise.batch_rows"] = timing.rows
        told["slotwise.attempts"] = timing.attempts
        told["slotwise.prediction_error_ms"] = (timing.ended_ns - timing.predicted_ns) / MS
    return told


def has_library() -> bool:
    """Whether OpenTelemetry's SDK and its exporter are here."""
    try:
        return all(find_spec(name) is not None for name in LIBRARIES)
    except ModuleNotFoundError:  # a package above it is not there either
        return False


def otlp(settings: Traces, version: str, epoch_ns: int) -> Send:
    """Sends to the collector of the settings. `epoch_ns` is the Unix time at which the engine's clock stood at zero."""
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        SpanKind,
        Status,
        StatusCode,
        TraceFlags,
        set_span_in_context,
    )

    gathered = InMemorySpanExporter()
    resource = Resource.create({"service.name": "slotwise", "service.version": version})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(gathered))
    tracer = provider.get_tracer("slotwise", version)
    exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=settings.answer_s_max)

    def context_of(parent: Parent | None) -> Context | None:
        if parent is None:
            return None
        flags = TraceFlags(TraceFlags.SAMPLED)
        there = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
        return set_span_in_context(NonRecordingSpan(there))

    def make(ended: Ended) -> None:
        whole = tracer.start_span(
            f"infer {ended.request.model}",
            context=context_of(ended.parent),
            kind=SpanKind.SERVER,
            attributes=attributes(ended),
            start_time=epoch_ns + ended.request.arrival_ns,
        )
        context = set_span_in_context(whole)
        for part in stretches(ended):
            span = tracer.start_span(part.name, context=context, start_time=epoch_ns + part.start_ns)
            span.end(epoch_ns + part.end_ns)
        if ended.reply.outcome is not Outcome.IN_TIME:
            words = ended.reply.message or f"{ended.reply.outcome.value} ({ended.reply.reason.value})"
            whole.set_status(Status(StatusCode.ERROR, words))
        whole.end(epoch_ns + ended.replied_ns)

    def send(batch: Sequence[Ended]) -> bool:
        for ended in batch:
            make(ended)
        spans = gathered.get_finished_spans()
        gathered.clear()
        return exporter.export(spans) is SpanExportResult.SUCCESS

    return send
