"""The sender of load against servers that answer, refuse, break, keep quiet and lag.

Streams stay open loop whatever comes back; clients wait for their answers and ask again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from slotwise.client import encode_infer
from slotwise.load.ending import Ending, ending_of
from slotwise.load.http import HttpWay
from slotwise.load.sender import Sender
from slotwise.workload.arrivals import arrivals
from slotwise.workload.player import Player, player_of
from slotwise.workload.values import Arrival, Phase, Stream, Workload
from tests.edges.echo import HOST, MS, System, serving
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
