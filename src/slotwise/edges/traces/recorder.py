"""Requests as spans: one for the whole, and one each for queue, wait, execution and return.

The turns only pick the requests that are traced (`sampling`), and keep what is told of them; spans are made and
sent by a thread of its own. Whatever the collector does not take is counted, and nobody waits for it.
"""

from __future__ import annotations

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


@value
class Ended:
    """A traced request and its reply."""

    request: Request
    reply: Reply
    replied_ns: int


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
        self._waiting: deque[Ended] = deque()
        self._sent = self._behind = self._untaken = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="slotwise-traces", daemon=True)
        self._thread.start()

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Take one turn in."""
        for event in events:
            if type(event) is Arrived and self.sampling.takes(event.request):
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

    def _end(self, request: Request, reply: Reply, now_ns: int) -> None:
        if len(self._waiting) < self._settings.requests_max:
            self._waiting.append(Ended(request=request, reply=reply, replied_ns=now_ns))
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
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

    gathered = InMemorySpanExporter()
    resource = Resource.create({"service.name": "slotwise", "service.version": version})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(gathered))
    tracer = provider.get_tracer("slotwise", version)
    exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=settings.answer_s_max)

    def make(ended: Ended) -> None:
        whole = tracer.start_span(
            f"infer {ended.request.model}",
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
