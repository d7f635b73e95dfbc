"""A collector of traces gets what became of requests, and one that is not there costs spans and nothing else."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc.aio as grpc
import tritonclient.http.aio as http

from slotwise.app import LiveSystem
from slotwise.client import ClientError, HttpClient
from slotwise.config import ConfigError
from slotwise.edges.traces.recorder import TraceRecorder, has_library, parent_of
from slotwise.edges.traces.settings import Traces
from slotwise.facts.actions import Reply
from slotwise.facts.events import Arrived
from slotwise.facts.statistics import LogUse
from slotwise.facts.types import Outcome, Request
from tests.live.systems import put_emulated, serving
from tests.live.systems import tensor as http_tensor

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

INPUT = {"x": np.ones((1, 4), np.float32)}
needs_library = pytest.mark.skipif(not has_library(), reason="OpenTelemetry is not installed")


@contextmanager
def collecting() -> Iterator[tuple[str, list[bytes]]]:
    """A collector's URL, and the bodies that it was sent."""
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the library's
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", bodies
        finally:
            server.shutdown()
            thread.join()


def spans_of(bodies: list[bytes]) -> list[Span]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    return [
        span
        for body in bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


async def ask_twice(root: Path, traces: dict[str, object]) -> LiveSystem:
    async with serving(root, traces=traces) as system, HttpClient("127.0.0.1", system.http_port) as client:
        await client.infer("quick", INPUT, timeout_us=10_000_000)
        with pytest.raises(ClientError):
            await client.infer("quick", INPUT, timeout_us=10)
    return system


@needs_library
@pytest.mark.live
def test_a_collector_gets_a_span_for_each_request_with_its_parts(tmp_path: Path) -> None:
    put_emulated(tmp_path / "models", "quick", run_ms=2)
    with collecting() as (url, bodies):
        system = asyncio.run(ask_twice(tmp_path / "models", {"endpoint": url, "ratio": 1.0}))
    spans = spans_of(bodies)
    assert sorted(span.name for span in spans) == [
        "execution",
        "infer quick/1",
        "infer quick/1",
        "queue",
        "return",
        "wait",
    ]
    [whole] = [span for span in spans if span.name == "infer quick/1" and span.status.code == 0]
    [refused] = [span for span in spans if span.status.code == 2]
    [run] = [span for span in spans if span.name == "execution"]
    told = {pair.key: pair.value.string_value for pair in whole.attributes}
    assert (told["slotwise.outcome"], told["slotwise.model"]) == ("in_time", "quick/1")
    assert "deadline" in refused.status.message
    assert (run.trace_id, run.parent_span_id) == (whole.trace_id, whole.span_id)
    assert whole.start_time_unix_nano <= run.start_time_unix_nano <= run.end_time_unix_nano <= whole.end_time_unix_nano
    assert run.end_time_unix_nano - run.start_time_unix_nano >= 2_000_000
    assert system.log_uses() == (LogUse(log="traces", rows=2, rows_behind=0, rows_unwritable=0),)


CALLERS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@needs_library
@pytest.mark.live
def test_a_request_joins_the_trace_of_its_client_over_http_and_over_grpc(tmp_path: Path) -> None:
    put_emulated(tmp_path / "models", "quick", run_ms=2)

    async def ask(url: str) -> None:
        async with serving(
            tmp_path / "models", traces={"endpoint": url, "ratio": 0.0}, grpc=True, grpc_port=0
        ) as system:
            assert system.grpc is not None
            for said in (CALLERS, CALLERS.replace("-01", "-00"), "none of it"):
                async with http.InferenceServerClient(f"127.0.0.1:{system.http_port}") as client:
                    await client.infer("quick", [http_tensor("x", INPUT["x"])], headers={"traceparent": said})
                async with grpc.InferenceServerClient(system.grpc.address()) as client:
                    asked = grpc.InferInput("x", [1, 4], "FP32")
                    asked.set_data_from_numpy(INPUT["x"])
                    await client.infer("quick", [asked], headers={"traceparent": said})

    with collecting() as (url, bodies):
        asyncio.run(ask(url))
    wholes = [span for span in spans_of(bodies) if span.name == "infer quick/1"]
    assert len(wholes) == 2, "those whose client traces them, and no others"
    for whole in wholes:
        assert whole.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
        assert whole.parent_span_id.hex() == "b7ad6b7169203331"
    assert {span.trace_id for span in spans_of(bodies)} == {wholes[0].trace_id}


@pytest.mark.parametrize(
    ("said", "is_known"),
    [
        (CALLERS, True),
        (CALLERS.replace("00-", "cc-", 1) + "-what-comes-later", True),
        (CALLERS + "-00", False),
        (CALLERS.replace("00-", "ff-", 1), False),
        (CALLERS.upper(), False),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", False),
        (f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01", False),
        ("", False),
    ],
)
def test_what_is_no_traceparent_is_passed_over(said: str, is_known: bool) -> None:
    assert (parent_of(said) is not None) is is_known


@needs_library
@pytest.mark.live
def test_a_collector_that_is_gone_costs_spans_and_nothing_else(tmp_path: Path) -> None:
    put_emulated(tmp_path / "models", "quick", run_ms=2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    traces = {"endpoint": f"http://127.0.0.1:{port}", "ratio": 1.0, "answer_s_max": 0.2}
    system = asyncio.run(ask_twice(tmp_path / "models", traces))
    assert system.log_uses() == (LogUse(log="traces", rows=0, rows_behind=0, rows_unwritable=2),)


@pytest.mark.skipif(has_library(), reason="OpenTelemetry is installed")
def test_traces_without_the_library_end_the_start_with_what_to_install(tmp_path: Path) -> None:
    async def live() -> None:
        async with serving(tmp_path / "models", traces={"endpoint": "http://127.0.0.1:4318"}):
            """It does not come so far."""

    (tmp_path / "models").mkdir()
    with pytest.raises(ConfigError, match="slotwise\\[otel\\]"):
        asyncio.run(live())


def test_the_share_that_is_asked_for_is_traced_and_more_than_may_wait_is_lost() -> None:
    sent: list[int] = []
    recorder = TraceRecorder(
        Traces(endpoint="http://nobody", ratio=0.25, requests_max=100, send_s=3600.0),
        lambda batch: not sent.extend(ended.request.id for ended in batch),
    )
    for number in range(1_000):
        request = Request(id=number, model="m/1", arrival_ns=0, deadline_ns=10)
        recorder.record(5, [Arrived(request=request)], [Reply(request_id=number, outcome=Outcome.REFUSED)])
    recorder.close()
    use = recorder.statistics()
    assert (use.rows, len(sent)) == (100, 100)
    assert 240 <= use.rows + use.rows_behind <= 260
