"""Plays a workload against a server in real time, open loop: requests leave when they are due, whatever comes back.

How it works: every connection is made before the start, and requests are encoded before the start too, so that
sending is one write and an ending is one callback. A request for which no connection is free waits for one, which
shows in its lag. Each ends in exactly one `Ending`; one without a reply by the bound is unanswered.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from http import HTTPStatus

from slotwise.client.connection import Connection, WireReply
from slotwise.client.errors import ConnectionLost
from slotwise.facts.units import S
from slotwise.facts.value import value
from slotwise.workload.values import Arrival

CONNECTIONS = 256
ANSWER_S_MAX = 15.0
SEND_BURST_MAX = 32
"""Requests sent in one go before replies are looked at again."""


class Ending(Enum):
    """How a request ended, as its client sees it."""

    IN_TIME = "in_time"
    LATE = "late"
    """Told that it is too late, or answered after its deadline."""
    REFUSED = "refused"
    FAILED = "failed"
    UNANSWERED = "unanswered"
    """No reply by the bound, or the connection broke before it."""


@value
class Sending:
    """One request and its ending. Instants are on this machine's monotonic clock; `ended_ns` is None without reply."""

    model: str
    due_ns: int
    sent_ns: int
    ended_ns: int | None
    status: int | None
    ending: Ending

    @property
    def lag_ns(self) -> int:
        """How much later than due it was sent; the client's own fault."""
        return self.sent_ns - self.due_ns


@value
class Played:
    """A workload that has been played."""

    started_ns: int
    ended_ns: int
    """When the last request had been sent and the time of the workload was up."""
    sendings: tuple[Sending, ...]
    waits: int
    """Requests that found no free connection."""


@value
class _Question:
    arrival: Arrival
    due_ns: int


class OpenLoop:
    """A sender with its connections. `open` it, `play` workloads one after the other, `close` it.

    `requests` holds an encoded request for each model that workloads may name. Time runs from when a request was
    due, so a client that is late is not excused.
    """

    def __init__(
        self,
        host: str,
        port: int,
        requests: Mapping[str, bytes],
        *,
        connections: int = CONNECTIONS,
        answer_s_max: float = ANSWER_S_MAX,
    ) -> None:
        self._address = (host, port)
        self._requests = requests
        self._connections = connections
        self._answer_s_max = answer_s_max
        self._free: list[Connection] = []
        self._busy: dict[Connection, None] = {}
        self._waiting: deque[_Question] = deque()
        self._sendings: list[Sending] = []
        self._waits = 0
        self._idle: asyncio.Event

    async def open(self) -> None:
        """Make the connections. Raises ConnectionLost."""
        self._idle = asyncio.Event()
        loop = asyncio.get_running_loop()
        for _ in range(self._connections - len(self._free)):
            try:
                _, made = await loop.create_connection(lambda: Connection(self._forget), *self._address)
            except OSError as error:
                self.close()
                raise ConnectionLost(f"{self._address[0]}:{self._address[1]} cannot be reached: {error}") from error
            self._free.append(made)

    async def play(self, arrivals: Iterable[Arrival], duration_ns: int) -> Played:
        """Send every arrival when it is due, and wait for the replies; ends `answer_s_max` after the last at latest."""
        self._sendings, self._waits = [], 0
        started_ns = time.monotonic_ns()
        sent = asyncio.Event()
        self._send_due(_questions(arrivals, started_ns), None, sent)
        await sent.wait()
        ended_ns = max(time.monotonic_ns(), started_ns + duration_ns)
        await asyncio.sleep((ended_ns - time.monotonic_ns()) / S)
        await self._drain()
        return Played(started_ns=started_ns, ended_ns=ended_ns, sendings=tuple(self._sendings), waits=self._waits)

    def close(self) -> None:
        """Close every connection."""
        for connection in [*self._free, *self._busy]:
            connection.close()
        self._free.clear()

    def _send_due(self, ahead: Iterator[_Question], first: _Question | None, sent: asyncio.Event) -> None:
        """Send what is due, and come back when the next one is."""
        question = first or next(ahead, None)
        now_ns, burst = time.monotonic_ns(), 0
        while question is not None and question.due_ns <= now_ns and burst < SEND_BURST_MAX:
            self._send(question)
            question, burst = next(ahead, None), burst + 1
        if question is None:
            sent.set()
            return
        delay_s = (question.due_ns - time.monotonic_ns()) / S
        asyncio.get_running_loop().call_later(max(0.0, delay_s), self._send_due, ahead, question, sent)

    def _send(self, question: _Question) -> None:
        connection = self._take()
        if connection is None:
            self._waits += 1
            self._waiting.append(question)
            return
        sent_ns = time.monotonic_ns()
        self._busy[connection] = None
        connection.send(
            self._requests[question.arrival.model], lambda reply: self._end(connection, question, sent_ns, reply)
        )

    def _take(self) -> Connection | None:
        while self._free:
            connection = self._free.pop()
            if connection.is_open:
                return connection
        return None

    def _end(self, connection: Connection, question: _Question, sent_ns: int, reply: WireReply | None) -> None:
        self._busy.pop(connection, None)
        ended_ns = None if reply is None else time.monotonic_ns()
        self._record(question, sent_ns, ended_ns, None if reply is None else reply.status)
        if connection.is_open:
            self._free.append(connection)
            if self._waiting:
                self._send(self._waiting.popleft())
        if not self._busy:
            self._idle.set()

    def _record(self, question: _Question, sent_ns: int, ended_ns: int | None, status: int | None) -> None:
        allowed_ns = question.arrival.slo_ns
        self._sendings.append(
            Sending(
                model=question.arrival.model,
                due_ns=question.due_ns,
                sent_ns=sent_ns,
                ended_ns=ended_ns,
                status=status,
                ending=ending_of(status, None if ended_ns is None else ended_ns - question.due_ns, allowed_ns),
            )
        )

    async def _drain(self) -> None:
        """Wait for what is under way; give up what has no reply by the bound, and make its connections anew."""
        self._idle.clear()
        if self._busy:
            try:
                await asyncio.wait_for(self._idle.wait(), self._answer_s_max)
            except TimeoutError:
                for connection in list(self._busy):
                    connection.close()
                await asyncio.sleep(0)  # the losses are told in the loop's next turn
        while self._waiting:
            question = self._waiting.popleft()
            self._record(question, time.monotonic_ns(), None, None)
        await self.open()

    def _forget(self, connection: Connection) -> None:
        if connection in self._free:
            self._free.remove(connection)


def ending_of(status: int | None, took_ns: int | None, allowed_ns: int) -> Ending:
    """What a status means to a client that waited `took_ns` of the time it had allowed."""
    if status is None or took_ns is None:
        return Ending.UNANSWERED
    match status:
        case HTTPStatus.OK:
            return Ending.IN_TIME if took_ns <= allowed_ns else Ending.LATE
        case HTTPStatus.GATEWAY_TIMEOUT:
            return Ending.LATE
        case HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.TOO_MANY_REQUESTS:
            return Ending.REFUSED
        case _:
            return Ending.FAILED


def _questions(arrivals: Iterable[Arrival], started_ns: int) -> Iterator[_Question]:
    for arrival in arrivals:
        yield _Question(arrival=arrival, due_ns=started_ns + arrival.at_ns)
