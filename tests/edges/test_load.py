"""The sender of load against servers that answer, refuse, break, keep quiet and lag.

Streams stay open loop whatever comes back; clients wait for their answers and ask again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from slotwise.client import BadRequest, encode_infer
from slotwise.edges.oip.access import Grant
from slotwise.edges.oip.tls import Tls
from slotwise.facts.types import FOREVER_NS
from slotwise.load.ending import Ending, Sending, ending_of
from slotwise.load.http import HttpWay
from slotwise.load.inputs import Questions
from slotwise.load.lines import Reply
from slotwise.load.sender import Sender
from slotwise.load.ways import Server, pages_of, sender_of
from slotwise.workload.arrivals import arrivals
from slotwise.workload.player import Player, player_of
from slotwise.workload.values import Arrival, Clients, Phase, Stream, Workload
from tests.certificates import self_signed
from tests.edges.echo import HOST, MS, System, serving
from tests.edges.grpc.rig import opened
from tests.edges.scripted import scripted, whole

pytestmark = pytest.mark.live

X = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}
S = 1000 * MS


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with serving() as started:
        yield started


def sender_to(port: int, **changes: float) -> Sender[bytes]:
    way = HttpWay(HOST, port, lambda arrival: encode_infer("here", arrival.model, X))
    return Sender(way, **changes)  # type: ignore[arg-type]  # each is of its own type


def test_every_arrival_of_a_workload_is_sent_once_and_ends_as_its_status_says(system: System) -> None:
    models = {"echo": Ending.IN_TIME, "refused": Ending.REFUSED, "expired": Ending.LATE, "faulty": Ending.FAILED}
    workload = Workload(
        streams=tuple(Stream(model=model, rate_per_s=100, slo_ns=60 * S) for model in models),
        phases=(Phase(duration_s=0.5),),
        seed=1,
    )

    async def play() -> None:
        sender = sender_to(system.port, lines=16)
        await sender.open()
        played = await sender.record(player_of(workload), S // 2)
        await sender.close()
        assert Counter(one.model for one in played.sendings) == Counter(one.model for one in arrivals(workload))
        assert {(one.model, one.ending) for one in played.sendings} == set(models.items())
        assert all(one.sent_ns >= one.due_ns for one in played.sendings)
        assert played.ended_ns - played.started_ns >= S // 2

    asyncio.run(play())


def test_a_request_without_a_free_connection_waits_for_one_and_is_counted() -> None:
    async def play() -> None:
        async with scripted(lambda _path: whole(200, b"{}")) as port:
            sender = sender_to(port, lines=1)
            await sender.open()
            played = await sender.record(Player([arrival(0)] * 5), MS)
            await sender.close()
            assert played.waits == 4
            assert [one.ending for one in played.sendings] == [Ending.IN_TIME] * 5

    asyncio.run(play())


def test_a_request_that_is_never_answered_is_unanswered_and_the_next_play_is_whole() -> None:
    async def play() -> None:
        async with scripted(lambda path: None if b"/quiet/" in path else whole(200, b"{}")) as port:
            sender = sender_to(port, lines=2, drain_s_max=0.2)
            await sender.open()
            quiet = await sender.record(Player([arrival(0, "quiet"), arrival(0, "quiet"), arrival(0, "m")]), MS)
            assert Counter(one.ending for one in quiet.sendings) == {Ending.UNANSWERED: 3}
            assert [one.was_sent for one in quiet.sendings] == [True, True, False]
            await sender.open()
            well = await sender.record(Player([arrival(0), arrival(0)]), MS)
            await sender.close()
            assert [one.ending for one in well.sendings] == [Ending.IN_TIME] * 2

    asyncio.run(play())


def test_a_broken_connection_leaves_its_request_unanswered() -> None:
    async def play() -> None:
        async with scripted(lambda _path: b"") as port:
            sender = sender_to(port, lines=2)
            await sender.open()
            played = await sender.record(Player([arrival(0)]), MS)
            await sender.close()
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


# Open loop, closed loop.


def test_streams_are_sent_on_time_to_a_server_that_never_answers() -> None:
    seen: list[bytes] = []

    async def play() -> None:
        async with scripted(seen.append) as port:
            sender = sender_to(port, lines=64, drain_s_max=0.1)
            await sender.open()
            played = await sender.record(Player([arrival(number * MS) for number in range(50)]), 50 * MS)
            await sender.close()
            assert [one.ending for one in played.sendings] == [Ending.UNANSWERED] * 50
            assert played.waits == 0

    asyncio.run(play())
    assert len(seen) == 50


def test_clients_wait_for_their_answers_and_ask_again_until_they_have_asked_enough(system: System) -> None:
    clients = Clients(models=("echo",), concurrency=3, slo_ns=60 * S, requests_max=30)
    sendings: list[Sending] = []

    async def play() -> None:
        sender = sender_to(system.port, lines=8)
        await sender.open()
        await sender.play(player_of(closed(clients)), lambda one, _: sendings.append(one), ends_when_spent=True)
        await sender.close()

    asyncio.run(play())
    assert [one.ending for one in sendings] == [Ending.IN_TIME] * 30
    begun = sorted(one.sent_ns for one in sendings)
    ended = sorted(one.ended_ns or 0 for one in sendings)
    assert all(later >= earlier for later, earlier in zip(begun[3:], ended, strict=False)), "three at once, no more"


@pytest.mark.parametrize("heeds", [True, False])
def test_clients_that_heed_a_refusal_come_again_when_it_says(heeds: bool) -> None:
    clients = Clients(models=("m",), concurrency=1, slo_ns=60 * S, requests_max=2, heeds_retry_after=heeds)
    sendings: list[Sending] = []

    async def play() -> None:
        refusal = whole(503, b'{"error":"full","retry_after_ms":100}')
        async with scripted(lambda _path: refusal) as port:
            sender = sender_to(port, lines=1)
            await sender.open()
            await sender.play(player_of(closed(clients)), lambda one, _: sendings.append(one), ends_when_spent=True)
            await sender.close()

    asyncio.run(play())
    first, second = sendings
    assert [first.ending, second.ending] == [Ending.REFUSED] * 2
    assert (second.due_ns - (first.ended_ns or 0) >= 100 * MS) is heeds


def test_a_load_that_is_stopped_asks_nothing_more_and_waits_for_its_answers(system: System) -> None:
    endless = Workload(
        streams=(Stream(model="echo", rate_per_s=500, slo_ns=60 * S),), phases=(Phase(duration_s=math.inf),), seed=1
    )
    sendings: list[Sending] = []

    async def play() -> None:
        sender = sender_to(system.port, lines=16)
        await sender.open()

        def note(one: Sending, _reply: Reply | None) -> None:
            sendings.append(one)
            if len(sendings) == 20:
                sender.stop()

        await sender.play(player_of(endless), note)
        await sender.close()

    asyncio.run(play())
    assert len(sendings) >= 20
    assert {one.ending for one in sendings} == {Ending.IN_TIME}


# Lines that are lost.


def test_a_lost_connection_is_made_anew_while_the_load_goes_on() -> None:
    replies = [b"", whole(200, b"{}")]

    async def play() -> None:
        async with scripted(lambda _path: replies.pop(0)) as port:
            sender = sender_to(port, lines=1)
            await sender.open()
            played = await sender.record(Player([arrival(0), arrival(MS)]), 2 * MS)
            await sender.close()
            assert [one.ending for one in played.sendings] == [Ending.UNANSWERED, Ending.IN_TIME]

    asyncio.run(play())


def test_a_request_without_a_reply_is_given_up_and_gives_its_connection_to_the_next() -> None:
    async def play() -> None:
        async with scripted(lambda path: None if b"/quiet/" in path else whole(200, b"{}")) as port:
            sender = sender_to(port, lines=1, drain_s_max=60.0, give_up_ns=100 * MS)
            await sender.open()
            played = await sender.record(Player([arrival(0, "quiet"), arrival(300 * MS)]), 400 * MS)
            await sender.close()
            assert [one.ending for one in played.sendings] == [Ending.UNANSWERED, Ending.IN_TIME]

    asyncio.run(play())


def test_a_server_that_is_gone_leaves_requests_unanswered_and_a_reason() -> None:
    async def play() -> None:
        async with scripted(lambda _path: b"") as port:
            sender = sender_to(port, lines=2)
            await sender.open()
        played = await sender.record(Player([arrival(number * 10 * MS) for number in range(10)]), 100 * MS)
        await sender.close()
        assert [one.ending for one in played.sendings] == [Ending.UNANSWERED] * 10
        assert "cannot be reached" in str(sender.trouble)

    asyncio.run(play())


def test_a_server_that_closes_every_connection_at_once_leaves_requests_unanswered() -> None:
    async def play() -> None:
        listening = await asyncio.start_server(lambda _reader, writer: writer.close(), HOST, 0)
        sender = sender_to(listening.sockets[0].getsockname()[1], lines=3, drain_s_max=0.2)
        await sender.open()
        played = await sender.record(Player([arrival(number * 10 * MS) for number in range(10)]), 150 * MS)
        await sender.close()
        listening.close()
        assert [one.ending for one in played.sendings] == [Ending.UNANSWERED] * 10

    asyncio.run(play())


# What goes over the wire.


def test_what_is_sent_carries_rows_a_deadline_with_its_margin_and_a_priority(system: System) -> None:
    seen = len(system.controller.requests)

    async def play() -> None:
        server = Server(url=f"http://{HOST}:{system.port}")
        pages = pages_of(server)
        models = [await pages.model("echo"), await pages.model("mixed")]
        await pages.close()
        questions = Questions(models, {}, seed=1, margin_ns=MS)
        sender = await sender_of(server, questions, lines=4, answer_s_max=10.0)
        await sender.open()
        asked = [
            Arrival(at_ns=0, model="echo", slo_ns=123 * MS, rows=3, priority=2),
            Arrival(at_ns=0, model="mixed", slo_ns=MS, rows=1, priority=5),
            Arrival(at_ns=0, model="echo", slo_ns=FOREVER_NS, rows=1, priority=5),
        ]
        await sender.play(Player(asked), lambda _one, _reply: None, 10 * MS)
        await sender.close()

    asyncio.run(play())
    echoed = [one for one in system.controller.requests[seen:] if one.rows == 3]
    assert [(one.model.partition("/")[0], one.priority) for one in echoed] == [("echo", 2)]
    assert [one.deadline_ns - one.arrival_ns for one in echoed] == [122 * MS]
    short = [one for one in system.controller.requests[seen:] if one.model.startswith("mixed")]
    assert [one.deadline_ns - one.arrival_ns for one in short] == [MS // 2], "at least half of the time is told"


def test_a_server_without_the_binary_form_is_asked_in_json() -> None:
    bodies: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0] or 0)
        bodies.append(await reader.readexactly(length))
        writer.write(whole(200, b'{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}]}'))
        writer.close()

    async def play() -> None:
        listening = await asyncio.start_server(answer, HOST, 0)
        server = Server(url=f"http://{HOST}:{listening.sockets[0].getsockname()[1]}")
        questions = Questions([await pages_of(server).model("m")], {}, seed=1, margin_ns=0)
        sender = await sender_of(server, questions, lines=1, answer_s_max=10.0)
        await sender.open()
        await sender.play(Player([arrival(0)]), lambda _one, _reply: None, MS)
        await sender.close()
        listening.close()

    asyncio.run(play())
    asked = json.loads(bodies[-1])
    assert asked["parameters"] == {"timeout": 60_000_000}
    assert (asked["inputs"][0]["shape"], len(asked["inputs"][0]["data"])) == ([1, 2], 2)


def test_a_token_and_tls_go_along_over_http_and_over_grpc_alike(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    grant = Grant(name="loader", sha256=hashlib.sha256(b"token-of-a-loader").hexdigest())

    async def play(server: Server) -> list[Ending]:
        pages = pages_of(server)
        try:
            model = await pages.model("echo")
        finally:
            await pages.close()
        questions = Questions([model], {}, seed=1, margin_ns=MS)
        sender = await sender_of(server, questions, lines=2, answer_s_max=10.0)
        await sender.open()
        played = await sender.record(Player([arrival(0, "echo")]), MS)
        await sender.close()
        return [one.ending for one in played.sendings]

    tls = Tls(certificate=str(certificate), key=str(key))
    with serving(tls=tls, grants=(grant,)) as system, opened(tls=tls, grants=(grant,)) as door:
        for url in (f"https://{HOST}:{system.port}", f"grpcs://{door.address}"):
            server = Server(url=url, token="token-of-a-loader", ca_file=str(certificate))
            assert asyncio.run(play(server)) == [Ending.IN_TIME]
            with pytest.raises(BadRequest, match="token is needed"):
                asyncio.run(play(Server(url=url, ca_file=str(certificate))))


def closed(clients: Clients) -> Workload:
    return Workload(streams=(), phases=(Phase(duration_s=30.0),), seed=1, clients=(clients,))
