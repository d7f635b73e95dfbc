"""The HTTP client against a real door; the open-loop sender against servers that answer, refuse, break, keep quiet."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from slotwise.client import (
    BadRequest,
    ConnectionLost,
    Ending,
    HttpClient,
    ModelNotFound,
    NoAnswer,
    OpenLoop,
    Refused,
    ServerFault,
    TooLate,
    encode_infer,
)
from slotwise.client.openloop import ending_of
from slotwise.workload.arrivals import arrivals
from slotwise.workload.values import Arrival, Phase, Stream, Workload
from tests.edges.echo import HOST, MS, System, serving

pytestmark = pytest.mark.live

X = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}
S = 1000 * MS


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


# The open loop.


def test_every_arrival_of_a_workload_is_sent_once_and_ends_as_its_status_says(system: System) -> None:
    models = {"echo": Ending.IN_TIME, "refused": Ending.REFUSED, "expired": Ending.LATE, "faulty": Ending.FAILED}
    workload = Workload(
        streams=tuple(Stream(model=model, rate_per_s=100, slo_ns=60 * S) for model in models),
        phases=(Phase(duration_s=0.5),),
        seed=1,
    )

    async def play() -> None:
        requests = {model: encode_infer("here", model, X) for model in models}
        sender = OpenLoop(HOST, system.port, requests, connections=16)
        await sender.open()
        played = await sender.play(arrivals(workload), S // 2)
        sender.close()
        assert Counter(one.model for one in played.sendings) == Counter(one.model for one in arrivals(workload))
        assert {(one.model, one.ending) for one in played.sendings} == set(models.items())
        assert all(one.sent_ns >= one.due_ns for one in played.sendings)
        assert played.ended_ns - played.started_ns >= S // 2

    asyncio.run(play())


def test_a_request_without_a_free_connection_waits_for_one_and_is_counted() -> None:
    async def play() -> None:
        async with scripted(lambda _path: whole(200, b"{}")) as port:
            sender = OpenLoop(HOST, port, {"m": encode_infer("here", "m", X)}, connections=1)
            await sender.open()
            played = await sender.play([arrival(0)] * 5, MS)
            sender.close()
            assert played.waits == 4
            assert [one.ending for one in played.sendings] == [Ending.IN_TIME] * 5

    asyncio.run(play())


def test_a_request_that_is_never_answered_is_unanswered_and_the_next_play_is_whole() -> None:
    async def play() -> None:
        async with scripted(lambda path: None if b"/quiet/" in path else whole(200, b"{}")) as port:
            requests = {model: encode_infer("here", model, X) for model in ("quiet", "m")}
            sender = OpenLoop(HOST, port, requests, connections=2, answer_s_max=0.2)
            await sender.open()
            quiet = await sender.play([arrival(0, "quiet"), arrival(0, "quiet"), arrival(0, "m")], MS)
            assert Counter(one.ending for one in quiet.sendings) == {Ending.UNANSWERED: 3}
            well = await sender.play([arrival(0), arrival(0)], MS)
            sender.close()
            assert [one.ending for one in well.sendings] == [Ending.IN_TIME] * 2

    asyncio.run(play())


def test_a_broken_connection_leaves_its_request_unanswered() -> None:
    async def play() -> None:
        async with scripted(lambda _path: b"") as port:
            sender = OpenLoop(HOST, port, {"m": encode_infer("here", "m", X)}, connections=2)
            await sender.open()
            played = await sender.play([arrival(0)], MS)
            sender.close()
            assert [(one.ending, one.status, one.ended_ns) for one in played.sendings] == [
                (Ending.UNANSWERED, None, None)
            ]

    asyncio.run(play())


@pytest.mark.parametrize(
    ("status", "took_ns", "ending"),
    [
        (200, 100, Ending.IN_TIME),
        (200, 101, Ending.LATE),
        (504, 1, Ending.LATE),
        (503, 101, Ending.REFUSED),
        (404, 1, Ending.FAILED),
        (500, 1, Ending.FAILED),
        (None, None, Ending.UNANSWERED),
    ],
)
def test_an_answer_after_its_deadline_is_late_whatever_the_server_says(
    status: int | None, took_ns: int | None, ending: Ending
) -> None:
    assert ending_of(status, took_ns, allowed_ns=100) is ending


def arrival(at_ns: int, model: str = "m") -> Arrival:
    return Arrival(at_ns=at_ns, model=model, slo_ns=60 * S, rows=1, priority=5)


def whole(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@asynccontextmanager
async def scripted(reply_to: Callable[[bytes], bytes | None]) -> AsyncIterator[int]:
    """A server that says what it is told to a path: None is silence, and what is no whole reply ends the connection."""
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0] or 0)
                await reader.readexactly(length)
                reply = reply_to(head.partition(b"\r\n")[0])
                if reply is not None:
                    writer.write(reply)
                    if not reply.endswith(b"}"):
                        break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(handle(reader, writer))
        handlers.add(task)
        task.add_done_callback(handlers.discard)

    server = await asyncio.start_server(start, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
