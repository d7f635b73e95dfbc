"""Tokens: who shows none, a wrong one, or one that may not, is told so, and nothing of the server besides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from slotwise.edges.oip.access import AccessError, Grant, new_token, read_grants, written
from slotwise.edges.oip.limits import LIMITS
from tests.conftest import WaitUntil
from tests.edges.echo import System, serving
from tests.edges.wire import Answer, Wire, infer, infer_body, post

ALL, SOME, SLOW = "token-of-the-operator", "token-of-a-camera", "token-of-a-slow-one"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


GRANTS = (
    Grant(name="operator", sha256=digest(ALL), manages=True),
    Grant(name="camera", sha256=digest(SOME), models=("ech?", "sil*")),
    Grant(name="slow", sha256=digest(SLOW), per_s=0.001, burst=2),
)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with serving(LIMITS, arena_bytes=1 << 20, grants=GRANTS) as found:
        yield found


def bearing(token: str) -> str:
    return f"Authorization: Bearer {token}"


def get(wire: Wire, path: str, *headers: str) -> Answer:
    return wire.ask("\r\n".join([f"GET {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode())


@pytest.mark.parametrize(
    "header",
    [
        "X: y",
        "Authorization: ",
        "Authorization: Basic dXNlcjpwYXNz",
        "Authorization: Bearer",
        "Authorization: Bearer wrong",
        f"Authorization: Bearer {ALL} {ALL}",
        f"Authorization: {ALL}",
        f"Authorization: Bearer {digest(ALL)}",
    ],
)
def test_without_a_token_that_is_known_nothing_is_told(wire: Wire, header: str) -> None:
    for path in (
        "/v2",
        "/v2/models/echo",
        "/v2/models/none-such",
        "/v2/models/stats",
        "/metrics",
        "/v2/slotwise/status",
    ):
        answer = get(wire, path, header)
        assert answer.status == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
    for model in ("echo", "none-such"):
        assert wire.ask(infer(model, None, header)).status == 401
    assert wire.ask(post("/v2/repository/models/echo/unload", b"", header)).status == 401
    assert get(wire, "/v2/health/live", header).status == 200


def test_a_token_opens_its_models_and_no_others(wire: Wire) -> None:
    assert wire.ask(infer("echo", None, bearing(SOME))).status == 200
    assert get(wire, "/v2/models/echo", bearing(SOME)).status == 200
    for model in ("text", "none-such"):
        answer = wire.ask(infer(model, None, bearing(SOME)))
        assert (answer.status, answer.text["reason"]) == (403, "forbidden")
        assert get(wire, f"/v2/models/{model}", bearing(SOME)).status == 403
        assert get(wire, f"/v2/models/{model}/stats", bearing(SOME)).status == 403


def test_what_tells_of_every_model_is_for_those_who_may_use_them_all(wire: Wire) -> None:
    assert get(wire, "/v2/models/stats", bearing(SOME)).status == 403
    for token in (ALL, SLOW):
        assert get(wire, "/v2/models/stats", bearing(token)).status == 200


def test_only_a_token_that_manages_manages(wire: Wire) -> None:
    routes = (
        "/v2/repository/index",
        "/v2/repository/models/echo/load",
        "/v2/systemsharedmemory/unregister",
        "/v2/models/echo/trace/setting",
        "/v2/trace/setting",
        "/v2/logging",
    )
    for route in routes:
        assert wire.ask(post(route, b"", bearing(SOME))).status == 403
    assert wire.ask(post(routes[0], b"", bearing(ALL))).status == 200


def test_a_rate_is_kept_and_when_to_come_again_is_told(wire: Wire) -> None:
    statuses = [wire.ask(infer("echo", None, bearing(SLOW))).status for _ in range(2)]
    refused = wire.ask(infer("echo", None, bearing(SLOW)))
    assert (statuses, refused.status, refused.text["reason"]) == ([200, 200], 429, "rate_limited")
    assert int(refused.headers["retry-after"]) > 500
    assert wire.ask(infer("echo", None, bearing(ALL))).status == 200


def test_what_is_refused_leaves_the_connection_in_order(wire: Wire) -> None:
    wire.send(infer("echo", infer_body(1, 2, 3, 4)) + infer("echo", None, bearing(ALL)))
    assert [wire.read().status, wire.read().status] == [401, 200]


def test_grants_are_replaced_while_serving(wait_until: WaitUntil) -> None:
    with serving(LIMITS, arena_bytes=1 << 20, grants=GRANTS[:1]) as system, Wire(system.address) as wire:
        assert wire.ask(infer("echo", None, bearing(SOME))).status == 401
        system.loop.call_soon_threadsafe(system.door.access.replace, GRANTS[1:2])
        wait_until(lambda: wire.ask(infer("echo", None, bearing(SOME))).status == 200)
        assert wire.ask(infer("echo", None, bearing(ALL))).status == 401


def test_management_has_a_port_of_its_own_where_it_is_asked_for() -> None:
    with serving(LIMITS, arena_bytes=1 << 20, management_port=0) as system, Wire(system.address) as inference:
        assert system.door.management_port
        with Wire((system.address[0], system.door.management_port)) as management:
            for route in ("/v2/repository/index", "/v2/systemsharedmemory/unregister"):
                assert inference.ask(post(route, b"")).status == 404
                assert management.ask(post(route, b"")).status == 200
            assert inference.ask(infer()).status == 200
            assert management.ask(infer()).status == 404
            assert get(management, "/v2/health/ready").status == get(inference, "/v2/health/ready").status == 200


def test_a_token_that_is_made_goes_through_the_file(tmp_path: Path) -> None:
    token, sha256 = new_token()
    grant = Grant(name='a "name"', sha256=sha256, models=("a", "b*"), per_s=2.5, burst=3, manages=True)
    file = tmp_path / "tokens.toml"
    file.write_text(f"{written(grant)}\n\n{written(GRANTS[0])}\n")
    assert read_grants(file) == (grant, GRANTS[0])
    assert digest(token) == sha256
    assert token not in file.read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[token]", "tokens.toml"),
        ('[[token]]\nname = "a"', "sha256"),
        ('[[token]]\nname = "a"\nsha256 = "short"', "sha256"),
        (f'[[token]]\nname = "a"\nsha256 = "{digest("a")}"\nper_s = -1', "per_s"),
        (f'[[token]]\nname = "a"\nsha256 = "{digest("a")}"\nadmin = true', "admin"),
        (f"{written(GRANTS[0])}\n{written(GRANTS[0])}", "stands there twice"),
    ],
)
def test_a_file_that_is_wrong_is_told_why(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(text)
    with pytest.raises(AccessError, match=words):
        read_grants(file)
    with pytest.raises(AccessError, match="cannot be read"):
        read_grants(tmp_path / "none")
