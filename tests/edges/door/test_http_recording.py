"""What the server records of requests: told, changed while it runs, and refused by name where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from slotwise.edges.logs.settings import Logs
from slotwise.edges.logs.writer import ThreadedLogs
from slotwise.edges.oip.recording import Recording
from slotwise.edges.traces.sampling import Sampling
from slotwise.facts.actions import Reply
from slotwise.facts.events import Arrived
from slotwise.facts.types import Outcome, Request
from tests.edges.echo import serving
from tests.edges.wire import Wire, post

pytestmark = pytest.mark.live
TOLD = {"trace_level": ["TIMESTAMPS"], "trace_rate": "4", "trace_count": "-1", "trace_mode": "opentelemetry"}
SILENT = {"log_info": False, "log_warning": False, "log_error": False, "log_verbose_level": 0}


@pytest.fixture
def sampling() -> Sampling:
    return Sampling(0.25)


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[ThreadedLogs]:
    found = ThreadedLogs(Logs(folder=str(tmp_path)))
    yield found
    found.close()


@pytest.fixture
def client(sampling: Sampling, logs: ThreadedLogs) -> Iterator[triton.InferenceServerClient]:
    with (
        serving(recording=Recording(tracing=sampling, logging=logs)) as system,
        triton.InferenceServerClient(f"127.0.0.1:{system.port}") as found,
    ):
        yield found


def taken(sampling: Sampling, model: str, count: int) -> int:
    """How many of so many requests are traced."""
    requests = [Request(id=number, model=model, arrival_ns=0, deadline_ns=1) for number in range(count)]
    return sum(map(sampling.takes, requests))


def test_the_trace_setting_governs_which_requests_are_traced(
    client: triton.InferenceServerClient, sampling: Sampling
) -> None:
    assert client.get_trace_settings() == TOLD
    assert 240 <= taken(sampling, "echo/1", 1_000) <= 260
    assert client.update_trace_settings(settings={"trace_rate": "10"}) == {**TOLD, "trace_rate": "10"}
    assert 95 <= taken(sampling, "echo/1", 1_000) <= 105
    client.update_trace_settings(settings={"trace_level": "OFF"})
    assert taken(sampling, "echo/1", 1_000) == 0


def test_a_model_may_set_its_own_and_leaves_the_rest_to_the_server(
    client: triton.InferenceServerClient, sampling: Sampling
) -> None:
    client.update_trace_settings("text", {"trace_rate": "1", "trace_count": "30"})
    client.update_trace_settings(settings={"trace_count": "5"})
    assert (taken(sampling, "text/1", 100), taken(sampling, "echo/1", 100)) == (30, 5)
    assert client.get_trace_settings("text")["trace_count"] == client.get_trace_settings()["trace_count"] == "0"
    client.update_trace_settings("text", {"trace_count": "2"})
    client.update_trace_settings("text", {"trace_level": ["TIMESTAMPS"]})
    assert taken(sampling, "text/1", 100) == 2
    client.update_trace_settings("text", {"trace_rate": None, "trace_count": None, "trace_level": None})
    assert client.update_trace_settings(settings={"trace_count": None}) == client.get_trace_settings("text") == TOLD


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"trace_level": ["TENSORS"]}, "trace_level: 'TENSORS' cannot be traced"),
        ({"trace_rate": "0"}, "trace_rate: '0'"),
        ({"trace_rate": "often"}, "trace_rate: 'often'"),
        ({"trace_count": "-2"}, "trace_count: '-2'"),
        ({"trace_file": "spans.json"}, "trace_file: "),
        ({"log_frequency": "10"}, "log_frequency: "),
        ({"trace_mode": "triton"}, "trace_mode: "),
        ({"trace_speed": "1"}, "no trace setting 'trace_speed'"),
        ({"trace_rate": "9", "trace_file": "spans.json"}, "trace_file: "),
    ],
)
def test_what_cannot_be_traced_is_refused_by_name_and_changes_nothing(
    client: triton.InferenceServerClient, settings: dict[str, object], fault: str
) -> None:
    with pytest.raises(InferenceServerException, match=fault) as refused:
        client.update_trace_settings(settings=settings)
    assert refused.value.status() == "400"
    assert client.get_trace_settings() == TOLD


def test_the_log_setting_governs_which_rows_are_kept(
    client: triton.InferenceServerClient, logs: ThreadedLogs, tmp_path: Path
) -> None:
    all_on = {"log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 1}
    place = {"log_file": str(tmp_path), "log_format": "csv"}
    assert client.get_log_settings() == {**all_on, **place}
    client.update_log_settings({"log_info": False, "log_error": False, **place})
    end_one_of_each(logs)
    client.update_log_settings(SILENT)
    end_one_of_each(logs)
    logs.close()
    [kept] = tmp_path.glob("requests-*.csv")
    assert [line.split(",")[2] for line in kept.read_text().splitlines()[1:]] == ["late", "refused", "dropped"]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"log_file": "/etc/passwd"}, "log_file: it cannot be changed"),
        ({"log_format": "ISO8601"}, "log_format: it cannot be changed"),
        ({"log_verbose_level": 2}, "log_verbose_level: 2"),
        ({"log_info": 1}, "log_info: 1"),
        ({"log_debug": True}, "no log setting 'log_debug'"),
    ],
)
def test_what_cannot_be_logged_is_refused_by_name(
    client: triton.InferenceServerClient, settings: dict[str, object], fault: str
) -> None:
    with pytest.raises(InferenceServerException, match=fault) as refused:
        client.update_log_settings(settings)
    assert refused.value.status() == "400"


def test_a_server_that_records_nothing_says_so() -> None:
    with serving() as system, Wire(system.address) as wire:
        assert wire.ask(get("/v2/trace/setting")).text["trace_level"] == ["OFF"]
        assert wire.ask(get("/v2/logging")).text == {**SILENT, "log_file": "", "log_format": ""}
        assert wire.ask(post("/v2/trace/setting", b'{"trace_level": ["OFF"]}')).status == 200
        assert wire.ask(post("/v2/logging", b'{"log_info": false}')).status == 200
        for path, body in (("/v2/trace/setting", b'{"trace_rate": "1"}'), ("/v2/logging", b'{"log_info": true}')):
            answer = wire.ask(post(path, body))
            assert (answer.status, "its operator names" in str(answer.text["error"])) == (400, True)
        assert not {"trace", "logging"} & set(wire.ask(get("/v2")).text["extensions"])  # type: ignore[call-overload]  # a document
        assert wire.ask(get("/v2/models/nobody/trace/setting")).status == 404


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode()


def end_one_of_each(logs: ThreadedLogs) -> None:
    for number, outcome in enumerate(Outcome):
        request = Request(id=number, model="m/1", arrival_ns=0, deadline_ns=10)
        logs.record(5, [Arrived(request=request)], [Reply(request_id=number, outcome=outcome)])
