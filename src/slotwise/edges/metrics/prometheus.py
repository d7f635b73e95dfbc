"""Prometheus metrics of a server. Nothing is counted here: a scrape reads the sums that the engine keeps.

Times are seconds and sizes bytes, as Prometheus has it; durations are histograms, so that they can be added up over
servers. What none of the requests in question has met is absent rather than zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from slotwise.facts.statistics import BUCKETS_NS, ExecutorUse, Histogram, LogUse, ModelStatistics
from slotwise.facts.types import Outcome
from slotwise.facts.units import S
from slotwise.facts.value import value

_MODEL = ("model", "version")
_EDGES = (*(f"{edge_ns / S:g}" for edge_ns in BUCKETS_NS), "+Inf")


@value
class ExecutorNow:
    """An executor at the instant of a scrape."""

    executor: str
    is_up: bool
    restarts: int
    in_flight: int
    models: tuple[str, ...]
    """Those resident, or on their way."""
    memory_bytes: int | None
    """What the process takes; None where it is not known."""


@value
class NodeNow:
    """A node at the instant of a scrape. What is measured of its clock and its link is None while it is not up."""

    node: str
    is_up: bool
    executors_up: int
    in_flight: int
    losses: int
    returned_too_late: int
    """Batches that were not sent to it, because they would have come too late or too much was on its way."""
    round_trip_ns: int | None
    clock_error_ns: int | None
    """What the estimate of its clock is wrong by at most."""
    bytes_per_s: float | None
    """What the link carries, as estimated."""
    backlog_bytes: int | None
    """What was sent and is not known to have come."""


@value
class Snapshot:
    """All that a scrape tells."""

    policy: str
    version: str
    models: Sequence[ModelStatistics]
    executors: Sequence[ExecutorUse]
    executors_now: Sequence[ExecutorNow]
    turns: int
    lag: Histogram
    """From an event to the turn that takes it in."""
    uptime_ns: int
    """Since the server was made."""
    logs: Sequence[LogUse]
    front_memory_bytes: int | None
    requests_in_flight: int
    connections: int
    replies: Mapping[int, int]
    """Replies of the HTTP door to inference requests, by status."""
    refusals: Mapping[tuple[str, int, str], int]
    """What doors have turned away by themselves, by door, status and reason."""
    local_clients: int | None = None
    """Clients on the local channel; None where there is no such channel."""
    local_replies: Mapping[int, int] | None = None
    """Replies over it, by status."""
    grpc_replies: Mapping[int, int] | None = None
    """Replies to inferences over gRPC, by the status that HTTP has for them; None where gRPC is not served."""
    grpc_memory_bytes: int | None = None
    """What the gRPC door's process takes; None where there is none."""
    nodes: Sequence[NodeNow] = ()


def scrape(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """The metrics as text, in the format that the header Accept asks for, and the text's content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(snapshot))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Once(Collector):
    """A collector of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """Every family."""
        now = self._snapshot
        yield _single(GaugeMetricFamily, "slotwise_info", "What runs here", 1, version=now.version, policy=now.policy)
        yield from _requests(now.models)
        yield from _durations(now.models)
        yield from _batches(now.models)
        yield from _executors(now)
        if now.nodes:
            yield from _nodes(now.nodes)
        yield from _front(now)
        yield from _logs(now.logs)


def _requests(models: Sequence[ModelStatistics]) -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "slotwise_requests", "Requests that have ended, by outcome and reason", labels=(*_MODEL, "outcome", "reason")
    )
    goodput = CounterMetricFamily(
        "slotwise_requests_in_time", "Requests answered within their deadline; its rate is the goodput", labels=_MODEL
    )
    misses = CounterMetricFamily(
        "slotwise_misses",
        "Requests not answered within their deadline, refused ones too, by reason; cancelled ones are no misses",
        labels=(*_MODEL, "reason"),
    )
    attainment = GaugeMetricFamily(
        "slotwise_attainment_ratio", "Share of the last minute's requests answered within their deadline", labels=_MODEL
    )
    for model in models:
        name = _name(model.model)
        missed: dict[str, int] = {}
        for one in model.outcomes:
            ended.add_metric((*name, one.outcome, one.reason), one.count)
            if one.outcome not in (Outcome.IN_TIME.value, Outcome.CANCELLED.value):
                missed[one.reason] = missed.get(one.reason, 0) + one.count
        goodput.add_metric(name, model.success.count)
        for reason, count in missed.items():
            misses.add_metric((*name, reason), count)
        if model.attainment is not None:
            attainment.add_metric(name, model.attainment)
    yield from (ended, goodput, misses, attainment)


def _durations(models: Sequence[ModelStatistics]) -> Iterator[Metric]:
    kinds: tuple[tuple[str, str, Callable[[ModelStatistics], Histogram]], ...] = (
        ("request", "From arrival to reply, of requests answered in time", lambda model: model.success),
        ("miss", "From arrival to reply, of all others", lambda model: model.fail),
        ("queue", "From arrival until the batch was sent, of requests that ran", lambda model: model.queue),
        ("execution", "Run of the batch, of requests that ran", lambda model: model.execution),
        ("return", "From the end of the run to the reply", lambda model: model.returning),
    )
    for kind, text, pick in kinds:
        family = HistogramMetricFamily(f"slotwise_{kind}_duration_seconds", text, labels=_MODEL)
        for model in models:
            _add_histogram(family, _name(model.model), pick(model))
        yield family


def _batches(models: Sequence[ModelStatistics]) -> Iterator[Metric]:
    batches = CounterMetricFamily("slotwise_batches", "Batches run, by size", labels=(*_MODEL, "rows"))
    for model in models:
        for batch in model.batches:
            batches.add_metric((*_name(model.model), str(batch.rows)), batch.count)
    yield batches


def _executors(now: Snapshot) -> Iterator[Metric]:
    def counter(name: str, text: str, pick: Callable[[ExecutorUse], float]) -> Metric:
        family = CounterMetricFamily(f"slotwise_executor_{name}", text, labels=("executor",))
        for use in now.executors:
            family.add_metric((use.executor,), pick(use))
        return family

    def gauge(name: str, text: str, pick: Callable[[ExecutorNow], float | None]) -> Metric:
        family = GaugeMetricFamily(f"slotwise_executor_{name}", text, labels=("executor",))
        for one in now.executors_now:
            found = pick(one)
            if found is not None:
                family.add_metric((one.executor,), found)
        return family

    yield counter("busy_seconds", "Time in which batches ran; its rate is the utilisation", lambda use: use.busy_ns / S)
    yield counter(
        "cpu_seconds", "Processor time of batches; less than busy time means interference", lambda use: use.cpu_ns / S
    )
    yield counter("batches", "Batches that ran to their end", lambda use: use.batches)
    yield counter(
        "batch_failures", "Batches that came back undone: late, stopped, or in error", lambda use: use.failures
    )
    yield counter("loads", "Models made ready", lambda use: use.loads)
    yield gauge("up", "Whether the executor is up", lambda one: one.is_up)
    yield gauge("restarts", "Processes that this one has followed", lambda one: one.restarts)
    yield gauge("batches_in_flight", "Batches sent and not back", lambda one: one.in_flight)
    yield gauge("memory_bytes", "Memory of the process, shared pages in proportion", lambda one: one.memory_bytes)
    resident = GaugeMetricFamily(
        "slotwise_model_resident", "Models ready or on their way", labels=(*_MODEL, "executor")
    )
    for one in now.executors_now:
        for model in one.models:
            resident.add_metric((*_name(model), one.executor), 1)
    yield resident


def _nodes(nodes: Sequence[NodeNow]) -> Iterator[Metric]:
    def family(
        kind: type[GaugeMetricFamily | CounterMetricFamily],
        name: str,
        text: str,
        pick: Callable[[NodeNow], float | None],
    ) -> Metric:
        made = kind(f"slotwise_node_{name}", text, labels=("node",))
        for one in nodes:
            found = pick(one)
            if found is not None:
                made.add_metric((one.node,), found)
        return made

    def seconds(nanoseconds: int | None) -> float | None:
        return None if nanoseconds is None else nanoseconds / S

    gauge, counter = GaugeMetricFamily, CounterMetricFamily
    yield family(gauge, "up", "Whether the node is connected and its clock known", lambda one: one.is_up)
    yield family(gauge, "executors_up", "Its executors that are up", lambda one: one.executors_up)
    yield family(gauge, "batches_in_flight", "Batches sent to it and not back", lambda one: one.in_flight)
    yield family(counter, "losses", "Times that it was up and was lost", lambda one: one.losses)
    text = "Batches not sent, for they would have come too late or too much was on its way"
    yield family(counter, "batches_not_sent", text, lambda one: one.returned_too_late)
    text = "Shortest recent round trip"
    yield family(gauge, "round_trip_seconds", text, lambda one: seconds(one.round_trip_ns))
    text = "What the estimate of its clock is wrong by at most"
    yield family(gauge, "clock_error_seconds", text, lambda one: seconds(one.clock_error_ns))
    text = "What the link to it carries, as estimated"
    yield family(gauge, "link_bytes_per_second", text, lambda one: one.bytes_per_s)
    text = "Bytes sent to it and not known to have come"
    yield family(gauge, "link_backlog_bytes", text, lambda one: one.backlog_bytes)


def _front(now: Snapshot) -> Iterator[Metric]:
    lag = HistogramMetricFamily("slotwise_loop_lag_seconds", "From an event to the turn that takes it in")
    _add_histogram(lag, (), now.lag)
    yield lag
    yield _single(GaugeMetricFamily, "slotwise_uptime_seconds", "Since the start", now.uptime_ns / S)
    yield _single(CounterMetricFamily, "slotwise_loop_turns", "Turns of the engine", now.turns)
    yield _single(
        GaugeMetricFamily, "slotwise_requests_in_flight", "Requests taken in, not answered", now.requests_in_flight
    )
    yield _single(GaugeMetricFamily, "slotwise_connections", "Connections that are open", now.connections)
    if now.front_memory_bytes is not None:
        text = "Memory of the process that decides, shared pages in proportion"
        yield _single(GaugeMetricFamily, "slotwise_front_memory_bytes", text, now.front_memory_bytes)
    yield _replies("slotwise_http_replies", "Replies to inference requests over HTTP", now.replies)
    refusals = CounterMetricFamily(
        "slotwise_refusals", "Requests that a door has turned away by itself", labels=("door", "status", "reason")
    )
    for (door, status, reason), count in sorted(now.refusals.items()):
        refusals.add_metric((door, str(status), reason), count)
    yield refusals
    if now.local_clients is not None and now.local_replies is not None:
        yield _single(GaugeMetricFamily, "slotwise_local_clients", "Clients on the local channel", now.local_clients)
        yield _replies("slotwise_local_replies", "Replies over the local channel", now.local_replies)
    if now.grpc_replies is not None:
        yield _replies("slotwise_grpc_replies", "Replies to inferences over gRPC, by HTTP's status", now.grpc_replies)
    if now.grpc_memory_bytes is not None:
        text = "Memory of the gRPC door's process, shared pages in proportion"
        yield _single(GaugeMetricFamily, "slotwise_grpc_memory_bytes", text, now.grpc_memory_bytes)


def _replies(name: str, text: str, found: Mapping[int, int]) -> Metric:
    replies = CounterMetricFamily(name, text, labels=("status",))
    for status, count in sorted(found.items()):
        replies.add_metric((str(status),), count)
    return replies


def _logs(logs: Sequence[LogUse]) -> Iterator[Metric]:
    rows = CounterMetricFamily("slotwise_log_rows", "Rows written to the logs", labels=("log",))
    lost = CounterMetricFamily("slotwise_log_rows_lost", "Rows that no log has, by reason", labels=("log", "reason"))
    for log in logs:
        rows.add_metric((log.log,), log.rows)
        lost.add_metric((log.log, "behind"), log.rows_behind)
        lost.add_metric((log.log, "unwritable"), log.rows_unwritable)
    yield from (rows, lost)


def _single(
    kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, text: str, number: float, **labels: str
) -> Metric:
    family = kind(name, text, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), number)
    return family


def _add_histogram(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    total, buckets = 0, []
    for edge, count in zip(_EDGES, histogram.counts, strict=True):
        total += count
        buckets.append((edge, total))
    family.add_metric(labels, buckets, histogram.ns / S)


def _name(model: str) -> tuple[str, str]:
    name, _, version = model.rpartition("/")
    return name, version
