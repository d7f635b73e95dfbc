"""Plays a workload against a server in real time: requests leave when they are due, whatever comes back.

How it works: a `Player` says who asks next and when; the sender asks when it is due and tells the player of each
answer, so that closed-loop clients go on. Lines to the server are made before the start, and requests are encoded once,
so that sending is one write and an ending is one callback. A request for which no line is free waits for one, which is
noted with it; nothing that the server does holds up the next. Lines that are lost are made anew meanwhile. Each request
ends in exactly one `Sending`; one without a reply by a bound is unanswered.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Generic, Protocol

from slotwise.client.errors import ClientError, Refused
from slotwise.facts.types import FOREVER_NS
from slotwise.facts.units import MS, S
from slotwise.facts.value import value
from slotwise.load.ending import Sending, ending_of
from slotwise.load.lines import Line, R, Reply, Way
from slotwise.workload.player import Asking

LINES = 256
"""Requests that can be under way at once."""
DRAIN_S_MAX = 15.0
"""How long replies are waited for after the last request."""
SEND_BURST_MAX = 32
"""Requests sent in one go before replies are looked at again."""
SWEEP_S = 0.25
"""How often those without a reply are looked through."""
MEND_S_MIN = 0.05
"""Before a server that was not there is tried again; doubled each time,"""
MEND_S_MAX = 1.0
"""up to this."""
Note = Callable[[Sending, Reply | None], None]


@value
class Run:
    """A workload that has been played."""

    started_ns: int
    ended_ns: int
    """When the last request had been sent and the time of the workload was up."""
    waits: int
    """Requests that found no free line."""


@value
class Played(Run):
    """The same with every request."""

    sendings: tuple[Sending, ...]


@value
class _Waiting:
    asking: Asking
    due_ns: int
    since_ns: int


class Asks(Protocol):
    """Who says who asks next, and when: a `Player`, or what stands before one."""

    def due_ns(self) -> int | None:
        """When the next request is to be sent; None while there is none."""

    def take(self) -> Asking:
        """The request that is due next."""

    def answered(self, asking: Asking, at_ns: int, retry_after_ns: int = 0) -> None:
        """A request has ended."""


class Sender(Generic[R]):
    """A sender with its lines. `open` it, `play` workloads one after the other, `close` it.

    Time runs from when a request was due, so a client that is late is not excused.
    """

    def __init__(
        self, way: Way[R], *, lines: int = LINES, drain_s_max: float = DRAIN_S_MAX, give_up_ns: int = FOREVER_NS
    ) -> None:
        """`give_up_ns` is how long any one request may be without a reply, also while others are still sent."""
        self._way = way
        self.lines = lines
        """How many requests can be under way at once."""
        self._drain_s_max = drain_s_max
        self._give_up_ns = give_up_ns
        self._free: list[Line[R]] = []
        self._busy: dict[Line[R], int] = {}
        """Lines with a request under way, by when it was sent, the oldest first."""
        self._waiting: deque[_Waiting] = deque()
        self._mending: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ns = FOREVER_NS
        self._player: Asks
        self._note: Note
        self._started_ns = 0
        self._end_ns = FOREVER_NS
        self._ends_when_spent = False
        self._waits = 0
        self._over = asyncio.Event()
        self._idle = asyncio.Event()
        self.trouble: ClientError | None = None
        """Why lines that were lost could not be made anew at the last try; None while all is well."""

    @property
    def under_way(self) -> int:
        """Requests without a reply."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """Requests that wait for a free line."""
        return len(self._waiting)

    async def open(self) -> None:
        """Make the lines that are missing. Raises the ClientError that fits."""
        if self._mending is not None:
            self._mending.cancel()
        self._free = [line for line in self._free if line.is_open]
        self._free += await self._way.open(self.lines - len(self._free))

    async def play(
        self, player: Asks, note: Note, duration_ns: int = FOREVER_NS, *, ends_when_spent: bool = False
    ) -> Run:
        """Ask all that is due within the duration, and wait for the replies; `note` is called with each ending.

        Ends with the duration, or with `ends_when_spent` as soon as no client will ask any more; then replies are
        waited for.
        """
        self._player, self._note, self._waits = player, note, 0
        self._end_ns, self._ends_when_spent = duration_ns, ends_when_spent
        self._over.clear()
        self._started_ns = time.monotonic_ns()
        sweeping = asyncio.create_task(self._sweep_now_and_then())
        try:
            self._pump()
            await self._over.wait()
            ended_ns = time.monotonic_ns()
            await self._drain()
        finally:
            sweeping.cancel()
            self._disarm()
        return Run(started_ns=self._started_ns, ended_ns=ended_ns, waits=self._waits)

    async def record(self, player: Asks, duration_ns: int) -> Played:
        """The same, with all requests kept."""
        sendings: list[Sending] = []
        run = await self.play(player, lambda sending, _: sendings.append(sending), duration_ns)
        return Played(started_ns=run.started_ns, ended_ns=run.ended_ns, waits=run.waits, sendings=tuple(sendings))

    def stop(self) -> None:
        """Ask nothing more; `play` waits for the replies and returns."""
        self._end_ns = min(self._end_ns, time.monotonic_ns() - self._started_ns)
        self._over.set()

    async def close(self) -> None:
        """Close every line."""
        if self._mending is not None:
            self._mending.cancel()
        for line in [*self._free, *self._busy]:
            line.close()
        self._free.clear()
        await self._way.close()

    # Asking

    def _pump(self) -> None:
        """Ask what is due, and come back when the next is."""
        self._disarm()
        player, end_ns, started_ns = self._player, self._end_ns, self._started_ns
        now_ns, burst = time.monotonic_ns() - started_ns, 0
        due_ns = player.due_ns()
        while due_ns is not None and due_ns <= now_ns and due_ns < end_ns:
            if burst == SEND_BURST_MAX:
                self._arm(now_ns)
                return
            self._send(player.take(), started_ns + due_ns)
            due_ns, burst = player.due_ns(), burst + 1
        if due_ns is not None and due_ns < end_ns:
            self._arm(due_ns)
        elif now_ns >= end_ns or self._is_spent(due_ns):
            self._over.set()
        elif end_ns < FOREVER_NS:
            self._arm(end_ns)

    def _is_spent(self, due_ns: int | None) -> bool:
        """Whether nobody can ask any more."""
        return self._ends_when_spent and due_ns is None and not self._busy and not self._waiting

    def _arm(self, at_ns: int) -> None:
        delay_s = (self._started_ns + at_ns - time.monotonic_ns()) / S
        self._alarm_ns = at_ns
        self._alarm = asyncio.get_running_loop().call_later(max(0.0, delay_s), self._pump)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm, self._alarm_ns = None, FOREVER_NS

    def _send(self, asking: Asking, due_ns: int) -> None:
        line = self._take()
        if line is None:
            self._waits += 1
            self._waiting.append(_Waiting(asking=asking, due_ns=due_ns, since_ns=time.monotonic_ns()))
        else:
            self._send_over(line, asking, due_ns, 0)

    def _send_over(self, line: Line[R], asking: Asking, due_ns: int, waited_ns: int) -> None:
        request = self._way.request(asking.arrival)
        self._busy[line] = sent_ns = time.monotonic_ns()

        def end(reply: Reply | None) -> None:
            self._busy.pop(line, None)
            now_ns = time.monotonic_ns()
            self._note(_sending(asking, due_ns, sent_ns, waited_ns, now_ns, reply), reply)
            self._end(line, asking, now_ns, reply)

        line.send(request, end)

    def _take(self) -> Line[R] | None:
        while self._free:
            line = self._free.pop()
            if line.is_open:
                return line
            self._mend()
        return None

    # Endings

    def _end(self, line: Line[R], asking: Asking, now_ns: int, reply: Reply | None) -> None:
        if line.is_open:
            self._put(line)
        else:
            self._mend()
        if asking.clients is not None:
            self._tell(asking, now_ns, reply)
        if not self._busy:
            self._idle.set()

    def _put(self, line: Line[R]) -> None:
        """A line that is free: for the one that has waited longest, if there is any."""
        if self._waiting:
            first = self._waiting.popleft()
            self._send_over(line, first.asking, first.due_ns, time.monotonic_ns() - first.since_ns)
        else:
            self._free.append(line)

    def _tell(self, asking: Asking, now_ns: int, reply: Reply | None) -> None:
        """Tell the player of an ending that a client waits for, and ask again if it is time."""
        retry_after_ns = 0 if reply is None or reply.status == HTTPStatus.OK else _retry_after_ns(reply)
        self._player.answered(asking, now_ns - self._started_ns, retry_after_ns)
        due_ns = self._player.due_ns()
        is_earlier = due_ns is not None and due_ns < self._alarm_ns
        if (is_earlier or self._is_spent(due_ns)) and not self._over.is_set():
            self._pump()

    def _give_up(self, waiting: _Waiting) -> None:
        """One that was never sent."""
        asking, now_ns = waiting.asking, time.monotonic_ns()
        waited_ns = now_ns - waiting.since_ns
        self._note(_sending(asking, waiting.due_ns, now_ns, waited_ns, now_ns, None, was_sent=False), None)
        if asking.clients is not None:
            self._tell(asking, now_ns, None)

    async def _sweep_now_and_then(self) -> None:
        """Give up what has been without a reply for too long."""
        while self._give_up_ns < FOREVER_NS:
            await asyncio.sleep(SWEEP_S)
            oldest_ns = time.monotonic_ns() - self._give_up_ns
            for line in [line for line, sent_ns in self._busy.items() if sent_ns < oldest_ns]:
                line.close()
            while self._waiting and self._waiting[0].due_ns < oldest_ns:
                self._give_up(self._waiting.popleft())

    async def _drain(self) -> None:
        """Wait for what is under way; give up what has no reply by the bound, and make its lines anew."""
        self._idle.clear()
        if self._busy:
            try:
                await asyncio.wait_for(self._idle.wait(), self._drain_s_max)
            except TimeoutError:
                for line in list(self._busy):
                    line.close()
                while self._busy:
                    self._idle.clear()
                    await self._idle.wait()  # the losses are told in the loop's next turns
        while self._waiting:
            self._give_up(self._waiting.popleft())

    # Lines

    def _mend(self) -> None:
        if self._mending is None or self._mending.done():
            self._mending = asyncio.create_task(self._make_lines())

    async def _make_lines(self) -> None:
        """Make the lines that are missing, as long as it takes."""
        pause_s = 0.0
        while missing := self.lines - sum(line.is_open for line in (*self._free, *self._busy)):
            await asyncio.sleep(pause_s)
            pause_s = min(max(2 * pause_s, MEND_S_MIN), MEND_S_MAX)
            try:
                made = await self._way.open(missing)
            except ClientError as error:
                self.trouble = error
                continue
            self.trouble = None
            for line in made:
                if line.is_open:  # it may have been lost already, while others were made
                    self._put(line)


def _sending(
    asking: Asking,
    due_ns: int,
    sent_ns: int,
    waited_ns: int,
    now_ns: int,
    reply: Reply | None,
    *,
    was_sent: bool = True,
) -> Sending:
    arrival = asking.arrival
    status = None if reply is None else reply.status
    return Sending(
        model=arrival.model,
        due_ns=due_ns,
        sent_ns=sent_ns,
        ended_ns=None if reply is None else now_ns,
        status=status,
        ending=ending_of(status, now_ns - due_ns, arrival.slo_ns),
        waited_ns=waited_ns,
        was_sent=was_sent,
    )


def _retry_after_ns(reply: Reply) -> int:
    """What a refusal says about coming back."""
    error = reply.error()
    return error.retry_after_ms * MS if isinstance(error, Refused) else 0
