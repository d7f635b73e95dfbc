"""The HTTP client against a real door, and against servers that break off and that do not speak the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest

from slotwise.client import (
    BadRequest,
    ConnectionLost,
    HttpClient,
    ModelNotFound,
    NoAnswer,
    Refused,
    ServerFault,
    TooLate,
)
from tests.edges.echo import HOST, MS, System, serving
from tests.edges.scripted import scripted, whole

pytestmark = pytest.mark.live

X = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with serving() as started:
        yield started


def ask(system: System, use: Callable[[HttpClient], Awaitable[object]], **changes: float) -> object:
    async def within() -> object:
        async with HttpClient(HOST, system.port, 4, **changes) as client:
            return await use(client)

    return asyncio.run(within())


def test_arrays_come_back_as_they_went(system: System) -> None:
    async def both(client: HttpClient) -> None:
        answer = await client.infer("echo/1", X, has_timing=True)
        assert (answer.model, answer.version) == ("echo", "1")
        np.testing.assert_array_equal(answer.outputs["x"], X["x"])
        assert answer.timing is not None
        assert (answer.timing.outcome, answer.timing.execution_us, answer.timing.batch_rows) == ("in_time", 3, 2)
        given = {
            "i": np.array([-(2**62), 7]),
            "t": np.array(["a", "\u00e4\u00df", ""], dtype=object),
            "b": np.array([[True, False]]),
            "d": np.array([1.5, float("nan")]),
        }
        mixed = (await client.infer("mixed", given)).outputs
        assert mixed["t"].tolist() == [b"a", "\u00e4\u00df".encode(), b""]
        for name in ("i", "b", "d"):
            np.testing.assert_array_equal(mixed[name], given[name])
            assert mixed[name].dtype == given[name].dtype

    ask(system, both)


@pytest.mark.parametrize(
    ("model", "error", "status"),
    [
        ("refused", Refused, 503),
        ("overloaded", Refused, 503),
        ("expired", TooLate, 504),
        ("late", TooLate, 504),
        ("faulty", ServerFault, 500),
        ("nobody", ModelNotFound, 404),
    ],
)
def test_each_ending_raises_its_own_error(system: System, model: str, error: type[Exception], status: int) -> None:
    with pytest.raises(error) as raised:
        ask(system, lambda client: client.infer(model, X))
    assert raised.value.status == status  # type: ignore[attr-defined]  # every one of them has it


def test_a_refusal_says_why_and_when_to_come_again(system: System) -> None:
    with pytest.raises(Refused, match="always overloaded") as raised:
        ask(system, lambda client: client.infer("overloaded", X))
    assert (raised.value.reason, raised.value.retry_after_ms) == ("overloaded", 1200)


def test_a_request_that_does_not_fit_is_told_so(system: System) -> None:
    with pytest.raises(BadRequest, match="no input 'y'"):
        ask(system, lambda client: client.infer("echo", {"y": X["x"]}))
    with pytest.raises(BadRequest, match="complex"):
        ask(system, lambda client: client.infer("echo", {"x": np.zeros(3, np.complex64)}))


def test_deadline_and_priority_go_along(system: System) -> None:
    ask(system, lambda client: client.infer("echo", X, 123_000, 2))
    request = system.controller.requests[-1]
    assert (request.deadline_ns - request.arrival_ns, request.priority) == (123 * MS, 2)


def test_questions_beyond_the_connections_wait_and_all_are_answered(system: System) -> None:
    async def many(client: HttpClient) -> object:
        inputs = [{"x": np.full((1, 4), number, np.float32)} for number in range(40)]
        answers = await asyncio.gather(*(client.infer("echo", given) for given in inputs))
        return [answer.outputs["x"][0, 0] for answer in answers]

    assert ask(system, many) == list(range(40))


def test_a_page_is_read_and_a_missing_one_is_an_error(system: System) -> None:
    assert b'"name":"slotwise"' in ask(system, lambda client: client.get("/v2"))  # type: ignore[operator]  # bytes
    with pytest.raises(ModelNotFound):
        ask(system, lambda client: client.get("/v2/models/nobody"))


def test_no_reply_by_the_bound_is_an_error_and_the_client_goes_on(system: System) -> None:
    async def silent_then_echo(client: HttpClient) -> None:
        with pytest.raises(NoAnswer):
            await client.infer("silent", X)
        await client.infer("echo", X)

    ask(system, silent_then_echo, answer_s_max=0.2)


def test_nobody_there_is_a_lost_connection() -> None:
    async def nobody() -> None:
        server = await asyncio.start_server(lambda _reader, _writer: None, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        async with HttpClient(HOST, port) as client:
            with pytest.raises(ConnectionLost, match="cannot be reached"):
                await client.get("/v2")

    asyncio.run(nobody())


@pytest.mark.parametrize(
    "reply", [b"", b"not HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]
)
def test_a_server_that_breaks_off_is_a_lost_connection(reply: bytes) -> None:
    async def broken() -> None:
        async with scripted(lambda _path: reply) as port, HttpClient(HOST, port) as client:
            with pytest.raises(ConnectionLost):
                await client.infer("m", X)

    asyncio.run(broken())


def test_an_answer_that_is_not_the_protocol_is_the_servers_fault() -> None:
    async def garbled() -> None:
        async with scripted(lambda _path: whole(200, b'{"outputs": 3}')) as port, HttpClient(HOST, port) as client:
            with pytest.raises(ServerFault, match="protocol"):
                await client.infer("m", X)

    asyncio.run(garbled())
