"""The HTTP door at its limits: what is too large, slow or much, clients that go away, and the door's own end."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from slotwise.edges.oip.limits import Limits
from tests.conftest import WaitUntil
from tests.edges.echo import HOST, System, serving
from tests.edges.wire import LIMITS, VALUES, Wire, chunked, infer, infer_body, pattern, post, wide

pytestmark = pytest.mark.live


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


def test_many_short_headers_count_for_more_than_their_text(wire: Wire) -> None:
    wire.send(b"POST /v2/models/echo/infer HTTP/1.1\r\n" + b"a:\r\n" * 200)
    assert wire.read().status == 431
    assert wire.is_closed()


def test_what_is_remembered_of_a_model_is_one_for_all_of_its_urls_and_long_ones_are_not(
    system: System, wire: Wire
) -> None:
    for query in ("", "?a=1", "?a=2", "?" + "x" * 3000):
        assert wire.ask(post(f"/v2/models/echo/versions/1/infer{query}", infer_body(*VALUES))).status == 200
    routes = {url: route for url, route in system.door._routes.items() if b"versions/1" in url}
    assert len(routes) == 3
    assert len({id(route.contract) for route in routes.values()}) == 1


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
