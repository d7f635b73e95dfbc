"""The HTTP door, byte by byte: framing, pipelining, bodies in every wrapping."""

from __future__ import annotations

import gzip
import struct
import threading
import zlib

import pytest

from tests.conftest import WaitUntil
from tests.edges.echo import System
from tests.edges.wire import VALUES, Wire, binary_request, chunked, infer, infer_body, pattern, post, wide

pytestmark = pytest.mark.live


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


@pytest.mark.parametrize("behind", [infer(), b"GET /v2 HTTP/1.1\r\nHost: here\r\n\r\n", b"NONSENSE\r\n\r\n"])
def test_what_stands_behind_a_refusal_that_ends_the_connection_is_not_read(wire: Wire, behind: bytes) -> None:
    bomb = gzip.compress(b" " * (2 << 20))
    wire.send(infer("echo", bomb, "Content-Encoding: gzip") + behind)
    assert wire.read().status == 413
    assert wire.is_closed()


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
    for accepted, coding in {"br, gzip;q=0.5": "gzip", "gzip; q=0, deflate, gzip": "deflate"}.items():
        long = wire.ask(wide(b"a" * 5000, f"Accept-Encoding: {accepted}"))
        assert long.headers["content-encoding"] == coding
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
