"""The HTTP door, byte by byte: framing, pipelining, bodies in every wrapping, limits, clients that go away."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slotwise.edges.oip.http import Tls
from slotwise.edges.oip.limits import Limits
from tests.conftest import WaitUntil
from tests.edges.echo import ENDINGS, HOST, MS, System, serving
from tests.edges.wire import Wire, chunked, infer, infer_body, post

pytestmark = pytest.mark.live

VALUES = [1.0, 2.0, 3.0, 4.0]
LIMITS = Limits(body_bytes_max=1 << 20, stream_bytes_min=4096, head_bytes_max=4096)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with serving(LIMITS, arena_bytes=512 << 20) as found:
        yield found


@pytest.fixture(autouse=True)
def all_regions_come_back(request: pytest.FixtureRequest, wait_until: WaitUntil) -> Iterator[None]:
    """Whatever a client does, the shared memory it took is given back."""
    yield
    if "system" in request.fixturenames:
        found: System = request.getfixturevalue("system")
        wait_until(lambda: not found.arena.held)


@pytest.fixture
def wire(system: System) -> Iterator[Wire]:
    with Wire(system.address) as client:
        yield client


def binary_request(model: str, tensor: dict[str, object], data: bytes, *headers: str) -> bytes:
    given_input = {**tensor, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [given_input], "parameters": {"binary_data_output": True}}).encode()
    return infer(model, head + data, f"Inference-Header-Content-Length: {len(head)}", *headers)


def wide(data: bytes, *headers: str) -> bytes:
    return binary_request("wide", {"name": "w", "datatype": "UINT8", "shape": [len(data)]}, data, *headers)


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


# Framing


def test_a_request_is_understood_wherever_its_packets_are_cut(system: System) -> None:
    head, data = (
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}]}',
        b"abcd" * 4,
    )
    whole = infer("echo", head + data, f"Inference-Header-Content-Length: {len(head)}")
    expected = list(struct.unpack("<4f", data))
    with Wire(system.address) as client:
        for cut in range(1, len(whole)):
            assert client.ask(whole[:cut], whole[cut:]).values == expected, cut


def test_a_request_may_come_one_byte_at_a_time(wire: Wire) -> None:
    whole = infer()
    assert wire.ask(*(whole[at : at + 1] for at in range(len(whole)))).values == VALUES


def test_answers_to_pipelined_requests_come_in_their_order(system: System, wire: Wire) -> None:
    wire.send(infer("silent"), infer(), b"GET /v2/health/live HTTP/1.1\r\nHost: here\r\n\r\n", infer("late"), infer())
    with Wire(system.address) as other:
        assert other.ask(infer()).status == 200  # nobody else waits behind the silent one
    system.release()
    assert [wire.read().status for _ in range(5)] == [200, 200, 200, 504, 200]


def test_many_requests_in_one_packet_are_all_answered(wire: Wire) -> None:
    count = 2_000
    sender = send_beside(wire, b"".join(infer(body=b"x") for _ in range(count)))
    assert {wire.read().status for _ in range(count)} == {400}
    sender.join()
    assert wire.ask(infer()).status == 200


def send_beside(wire: Wire, data: bytes) -> threading.Thread:
    thread = threading.Thread(target=wire.send, args=(data,))
    thread.start()
    return thread


def test_a_management_request_behind_an_inference_waits_for_it(system: System, wire: Wire) -> None:
    wire.send(infer("silent"), b"GET /v2 HTTP/1.1\r\nHost: here\r\n\r\n")
    system.release()
    assert "outputs" in wire.read().text
    assert wire.read().text["name"] == "slotwise"


def test_a_connection_closes_after_its_answer_when_asked_to(wire: Wire) -> None:
    answer = wire.ask(infer("echo", None, "Connection: close"))
    assert answer.headers["connection"] == "close"
    assert wire.is_closed()


def test_http_1_0_gets_an_answer_and_the_end(wire: Wire) -> None:
    assert wire.ask(infer("echo", None, "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")).status == 200
    assert wire.is_closed()


def test_an_upgrade_is_not_taken(wire: Wire) -> None:
    upgrade = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"]
    live = "\r\n".join(["GET /v2/health/live HTTP/1.1", "Host: here", *upgrade, "", ""]).encode()
    wire.send(live * 3 + infer("echo", None, *upgrade) + infer())
    assert [wire.read().status for _ in range(4)] == [200, 200, 200, 400]
    assert wire.is_closed()


def test_a_query_an_absolute_url_and_escapes_lead_to_the_same_model(wire: Wire) -> None:
    for path in ("/v2/models/echo/infer?a=b", "http://here/v2/models/echo/infer", "/v2/models/%65cho/versions/1/infer"):
        assert wire.ask(post(path, infer_body(*VALUES))).values == VALUES


@pytest.mark.parametrize("junk", [b"NONSENSE\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_not_http_is_told_so_and_closed(wire: Wire, junk: bytes) -> None:
    answer = wire.ask(junk)
    assert answer.status == 400
    assert "not HTTP" in str(answer.text["error"])
    assert wire.is_closed()


def test_a_length_beside_chunks_is_refused(wire: Wire) -> None:
    assert wire.ask(infer("echo", None, "Transfer-Encoding: chunked")).status == 400
    assert wire.is_closed()


def test_nonsense_behind_a_request_is_told_after_its_answer(system: System, wire: Wire) -> None:
    wire.send(infer("silent"), b"NONSENSE\r\n\r\n")
    system.release()
    assert [wire.read().status, wire.read().status] == [200, 400]
    assert wire.is_closed()


def test_nonsense_inside_a_body_ends_that_request(wire: Wire) -> None:
    start = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert wire.ask(start + b"zz\r\n").status == 400
    assert wire.is_closed()


@settings(max_examples=40)
@given(st.binary(max_size=300))
def test_any_bytes_leave_the_door_open_to_others(system: System, junk: bytes) -> None:
    with Wire(system.address) as client:
        client.send(junk)
        client.socket.shutdown(socket.SHUT_WR)
    with Wire(system.address) as other:
        assert other.ask(infer()).status == 200


# Bodies in every wrapping


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_body_may_come_in_chunks(wire: Wire, size: int) -> None:
    start = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert wire.ask(start + chunked(infer_body(*VALUES), size)).values == VALUES
    assert wire.ask(infer()).values == VALUES


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)]
)
def test_a_body_may_come_compressed(wire: Wire, encoding: str, compress: object) -> None:
    body = compress(infer_body(*VALUES))  # type: ignore[operator]  # one of the three functions above
    whole = infer("echo", body, f"Content-Encoding: {encoding}")
    assert wire.ask(whole).values == VALUES
    assert wire.ask(whole[:-9], whole[-9:]).values == VALUES


def test_binary_data_may_come_compressed_in_chunks(wire: Wire) -> None:
    data = pattern(100_000)
    head, _, body = wide(data).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    lines += [b"Content-Encoding: gzip", b"Transfer-Encoding: chunked", b"", b""]
    answer = wire.ask(b"\r\n".join(lines) + chunked(gzip.compress(body), 999))
    assert answer.body.endswith(data)


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"no gzip", "gzip", 400),
        (gzip.compress(infer_body(*VALUES))[:-3], "gzip", 400),
        (gzip.compress(infer_body(*VALUES)) + b"more", "gzip", 400),
        (gzip.compress(b" " * (2 << 20)), "gzip", 413),
        (infer_body(*VALUES), "br", 415),
    ],
    ids=["not gzip", "cut short", "too long", "a bomb", "an unknown coding"],
)
def test_a_compressed_body_that_is_not_sound_is_refused(wire: Wire, body: bytes, encoding: str, status: int) -> None:
    assert wire.ask(infer("echo", body, f"Content-Encoding: {encoding}")).status == status


def test_an_answer_is_compressed_when_asked_for_and_worth_it(wire: Wire) -> None:
    long = wire.ask(wide(b"a" * 5000, "Accept-Encoding: deflate, gzip;q=0.5"))
    assert long.headers["content-encoding"] == "gzip"
    assert long.body.endswith(b"a" * 5000)
    assert "content-encoding" not in wire.ask(infer("echo", None, "Accept-Encoding: gzip")).headers
    assert "content-encoding" not in wire.ask(wide(b"a" * 5000, "Accept-Encoding: gzip;q=0")).headers


@pytest.mark.parametrize("size", [0, 1, 63, 64, 4000, 5000, 300_000, 900_000])
@pytest.mark.parametrize("step", [1 << 30, 1447])
def test_binary_data_of_any_size_comes_back_as_it_was(system: System, wire: Wire, size: int, step: int) -> None:
    data = pattern(size)
    whole = wide(data)
    answer = wire.ask(*(whole[at : at + step] for at in range(0, len(whole), step)))
    length = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.body[length:] == data
    assert system.controller.requests[-1].inputs[0].offset % 64 == 0


def test_a_long_body_goes_to_shared_memory_as_it_arrives(system: System, wire: Wire, wait_until: WaitUntil) -> None:
    whole = wide(pattern(500_000))
    wire.send(whole[:400_000])
    wait_until(lambda: system.arena.held)
    assert wire.ask(whole[400_000:]).status == 200


def test_a_long_body_with_a_wrong_head_is_refused_before_it_has_come(wire: Wire) -> None:
    whole = binary_request("wide", {"name": "w", "datatype": "UINT8", "shape": [3]}, pattern(500_000))
    assert wire.ask(whole[:20_000]).status == 400
    assert wire.ask(whole[20_000:], infer()).status == 200  # the rest is thrown away, the connection goes on


def test_the_raw_form_is_answered_in_binary(wire: Wire) -> None:
    for size in (10, 200_000):
        data = pattern(size)
        answer = wire.ask(infer("wide", data, "Inference-Header-Content-Length: 0"))
        assert answer.body.endswith(data)
    text = wire.ask(infer("text", b"hello", "Inference-Header-Content-Length: 0"))
    assert text.body.endswith(b"\x05\x00\x00\x00hello")


@pytest.mark.parametrize("length", ["-1", "+1", "1e3", "", "0x10", "99999999999999999999", "10000"])
def test_a_bad_header_length_is_refused(wire: Wire, length: str) -> None:
    assert wire.ask(infer("echo", None, f"Inference-Header-Content-Length: {length}")).status == 400
    assert wire.ask(infer()).status == 200


def test_leave_to_send_is_given(wire: Wire) -> None:
    head, _, body = infer("echo", None, "Expect: 100-continue").partition(b"\r\n\r\n")
    assert wire.ask(head + b"\r\n\r\n").status == 100
    assert wire.ask(body).values == VALUES


def test_leave_to_send_is_given_in_turn(system: System, wire: Wire) -> None:
    head, _, body = infer("echo", None, "Expect: 100-continue").partition(b"\r\n\r\n")
    wire.send(infer("silent") + head + b"\r\n\r\n")
    system.release()
    assert [wire.read().status, wire.read().status] == [200, 100]
    assert wire.ask(body).values == VALUES


def test_leave_to_send_is_not_given_for_what_is_refused(wire: Wire) -> None:
    head, _, _ = infer("nobody", None, "Expect: 100-continue").partition(b"\r\n\r\n")
    assert wire.ask(head + b"\r\n\r\n").status == 404
    assert wire.is_closed()


# Limits


def test_a_body_beyond_the_limit_is_refused_at_its_announcement(wire: Wire) -> None:
    answer = wire.ask(b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: here\r\nContent-Length: 1048577\r\n\r\n")
    assert answer.status == 413
    assert wire.is_closed()


def test_a_body_beyond_the_limit_is_refused_when_it_comes_unannounced(wire: Wire) -> None:
    start = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    wire.send(start, chunked(b"x" * (1 << 20) + b"y", 1 << 16))
    assert wire.read().status == 413


def test_a_head_beyond_the_limit_is_refused(wire: Wire, wait_until: WaitUntil) -> None:
    wire.send(b"POST /v2/models/echo/infer HTTP/1.1\r\n")
    for _ in range(20):
        try:
            wire.send(b"X-Long: " + b"x" * 1000 + b"\r\n")
        except OSError:
            break  # already refused and closed
    answer = wire.read()
    assert answer.status == 431
    assert wire.is_closed()


def test_shared_memory_that_is_full_is_told_with_when_to_come_again() -> None:
    with serving(LIMITS, arena_bytes=4096) as system, Wire(system.address) as wire:
        for size in (5000, 500_000):
            answer = wire.ask(wide(pattern(size)))
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.text["reason"] == "no_room"
        assert wire.ask(infer()).status == 200


def test_too_many_requests_under_way_are_refused_at_once() -> None:
    with serving(Limits(requests_max=1)) as system, Wire(system.address) as first, Wire(system.address) as second:
        first.send(infer("silent"))
        answer = second.ask(infer())
        while answer.status == 200:  # the first has not been read yet
            answer = second.ask(infer())
        assert (answer.status, answer.text["reason"]) == (503, "queue_full")
        system.release()
        assert first.read().status == 200
        assert second.ask(infer()).status == 200


def test_a_connection_too_many_is_told_so() -> None:
    with serving(Limits(connections_max=1)) as system, Wire(system.address) as first:
        assert first.ask(infer()).status == 200
        with Wire(system.address) as second:
            assert second.read().status == 503
            assert second.is_closed()


def test_bodies_that_are_collected_share_a_bounded_room() -> None:
    limits = Limits(collected_bytes_max=10_000)
    with serving(limits) as system, Wire(system.address) as wire:
        body = infer_body(*VALUES) + b" " * 200_000
        answer = wire.ask(infer("echo", body)[:1000], infer("echo", body)[1000:])
        assert answer.status == 503
        assert wire.ask(infer()[:90], infer()[90:]).status == 200


def test_one_who_is_slow_to_send_is_told_so() -> None:
    with serving(Limits(read_s=0.05)) as system, Wire(system.address) as wire:
        wire.send(infer()[:100])
        assert wire.read().status == 408
        assert wire.is_closed()


def test_an_idle_connection_is_closed_but_not_one_that_waits() -> None:
    with serving(Limits(keep_alive_s=0.5)) as system, Wire(system.address) as waiting:
        waiting.send(infer("silent"))
        with Wire(system.address) as idle:
            assert idle.ask(infer()).status == 200
            assert idle.is_closed()
        system.release()
        assert waiting.read().status == 200


def test_one_who_does_not_read_is_cut_off(wait_until: WaitUntil) -> None:
    limits = Limits(write_s=0.1, body_bytes_max=32 << 20)
    with serving(limits, arena_bytes=128 << 20) as system, Wire(system.address) as wire:
        wire.send(wide(pattern(24 << 20)))
        wait_until(lambda: system.controller.requests)
        wait_until(lambda: system.door.statistics().connections == 0)


# Clients that go away, and the door's own end


def test_a_client_that_goes_away_cancels_its_request(system: System, wait_until: WaitUntil) -> None:
    with Wire(system.address) as client:
        client.send(infer("silent"))
        wait_until(lambda: system.controller.silent)
        (request_id,) = system.controller.silent
    wait_until(lambda: request_id in system.controller.cancelled)
    wait_until(lambda: not system.door.statistics().requests_in_flight)


def test_a_client_that_goes_away_inside_its_body_leaves_nothing(system: System, wait_until: WaitUntil) -> None:
    with Wire(system.address) as client:
        client.send(wide(pattern(500_000))[:300_000])
        wait_until(lambda: system.arena.held)
    wait_until(lambda: not system.arena.held)


def test_stopping_answers_what_is_under_way_and_refuses_the_rest() -> None:
    with serving() as system, Wire(system.address) as waiting, Wire(system.address) as other:
        assert other.ask(infer()).status == 200
        waiting.send(infer("silent"))
        while not system.controller.silent:
            assert other.ask(infer()).status == 200
        wait = system.stop_soon(60.0)
        ready = urllib.request.Request(f"http://{HOST}:{system.port}/v2/health/ready")
        answer = other.ask(infer())
        while answer.status == 200:
            answer = other.ask(infer())
        assert (answer.status, answer.text["reason"]) == (503, "shutting_down")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(ready, timeout=60)
        system.release()
        assert waiting.read().status == 200
        wait()
        assert waiting.is_closed()
        with pytest.raises(OSError):
            Wire(system.address)


def test_what_outlasts_the_patience_of_a_stop_is_told_so() -> None:
    with serving() as system, Wire(system.address) as waiting:
        waiting.send(infer("silent"))
        with Wire(system.address) as other:
            while not system.controller.silent:
                assert other.ask(infer()).status == 200
        wait = system.stop_soon(0.01)
        answer = waiting.read()
        assert (answer.status, answer.text["reason"]) == (503, "shutting_down")
        wait()
        assert system.controller.cancelled


# Outcomes


STATUS_OF = {
    "late": 504,
    "refused": 503,
    "overloaded": 503,
    "expired": 504,
    "displaced": 503,
    "removed": 404,
    "faulty": 500,
    "lost": 503,
}


@pytest.mark.parametrize("model", ENDINGS)
def test_each_ending_has_its_status_and_says_why(wire: Wire, model: str) -> None:
    answer = wire.ask(infer(model))
    assert answer.status == STATUS_OF[model]
    assert answer.text["reason"] == ENDINGS[model][1].value
    if answer.status == 503:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.text["retry_after_ms"] == int(answer.headers["retry-after-ms"])
    assert wire.ask(infer()).status == 200


def test_a_refusal_says_when_it_would_have_been_and_when_to_come_again(wire: Wire) -> None:
    answer = wire.ask(infer("refused"))
    assert answer.text["predicted_ms"] == 250.0
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1200")
    assert "this model is always refused" in str(answer.text["error"])


def test_a_late_answer_is_withheld_unless_the_door_is_told_to_deliver() -> None:
    with serving(late_answers=True) as system, Wire(system.address) as wire:
        answer = wire.ask(infer("late"))
        assert (answer.status, answer.values) == (200, VALUES)
        assert answer.text["parameters"] == {"slotwise_outcome": "late"}


def test_timing_is_told_on_request(wire: Wire) -> None:
    answer = wire.ask(infer("echo", infer_body(*VALUES, parameters={"slotwise_timing": True})))
    told = answer.text["parameters"]
    assert isinstance(told, dict)
    assert told.pop("slotwise_queue_us") >= 0
    assert told == {
        "slotwise_outcome": "in_time",
        "slotwise_wait_us": 2,
        "slotwise_execution_us": 3,
        "slotwise_executor": "cpu:0",
        "slotwise_batch_rows": 1,
        "slotwise_attempts": 1,
        "slotwise_prediction_error_us": 1,
    }
    assert "parameters" not in wire.ask(infer()).text


def test_deadline_and_priority_are_the_requests_or_the_models(system: System, wire: Wire) -> None:
    wire.ask(infer("echo", infer_body(*VALUES, parameters={"timeout": 1500, "priority": 1})))
    asked = system.controller.requests[-1]
    assert (asked.deadline_ns - asked.arrival_ns, asked.priority) == (1_500_000, 1)
    wire.ask(infer())
    plain = system.controller.requests[-1]
    assert (plain.deadline_ns - plain.arrival_ns, plain.priority) == (100 * MS, 5)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nobody/infer", 404),
        ("/v2/models/echo/versions/9/infer", 404),
        ("/v2/models/coming/infer", 503),
        ("/v2/models/broken/infer", 503),
        ("/v2/models/echo/infer/", 404),
        ("/v3", 404),
    ],
)
def test_an_inference_of_what_cannot_be_asked_says_so(wire: Wire, path: str, status: int) -> None:
    answer = wire.ask(post(path, infer_body(*VALUES)))
    assert answer.status == status
    assert answer.text["error"]


def test_another_method_on_the_hot_route_is_told_the_right_one(wire: Wire) -> None:
    answer = wire.ask(b"GET /v2/models/echo/infer HTTP/1.1\r\nHost: here\r\n\r\n")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_a_model_that_is_replaced_is_checked_against_its_new_spec(wire: Wire, system: System) -> None:
    assert wire.ask(post("/v2/models/pair/infer", b"{}")).status == 404
    assert wire.ask(infer("echo")).text["model_version"] == "2"


def test_requests_over_tls_are_answered(tmp_path: Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl makes the certificate of this test")
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    arguments = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([program, *arguments, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    with serving(LIMITS, tls=Tls(certificate=str(certificate), key=str(key))) as system, Wire(system.address) as wire:
        wire.socket = context.wrap_socket(wire.socket)
        assert wire.ask(infer()).values == VALUES
        assert wire.ask(wide(pattern(500_000))).body.endswith(pattern(500_000))
        assert wire.ask(b"NONSENSE\r\n\r\n").status == 400
