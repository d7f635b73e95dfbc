"""The front's way to one node: connects, proves, asks for the time, notices when the node is gone, and calls again.

    LOST --connected--> MEETING --proved--> TIMING --clock known--> UP --silence or end--> LOST, and again after a pause

What is said beyond that is the host's affair. The pause grows while calls fail, up to a limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Protocol

from slotwise.edges.fleets.messages import Message, MessageError
from slotwise.edges.fleets.nodes import secret as secrets
from slotwise.edges.fleets.nodes.budget import Budget
from slotwise.edges.fleets.nodes.clock import ClockEstimate
from slotwise.edges.fleets.nodes.link import Link
from slotwise.edges.fleets.nodes.messages import (
    Challenge,
    FromNode,
    Hello,
    Ping,
    Pong,
    Probe,
    Received,
    Refused,
    Welcome,
    decode_from_node,
)
from slotwise.edges.fleets.nodes.settings import Address, Nodes
from slotwise.engine.ports import Clock

FIRST_TRIPS = 8
"""Round trips, one at once after the other, before a node is used."""


class NodeState(Enum):
    """Where a node stands."""

    LOST = "lost"
    MEETING = "meeting"
    TIMING = "timing"
    UP = "up"
    CLOSED = "closed"


class Host(Protocol):
    """Whoever uses the node."""

    def entered(self) -> None:
        """The node is up: its clock is known."""

    def take(self, message: FromNode, body: memoryview) -> None:
        """The node says something, perhaps before it is up. Raises MessageError."""

    def left(self, why: str) -> None:
        """The node is lost, if it was up or not."""


class Caller:
    """A connection that is made again when it is lost; a `link.End`. Begin it in the engine's loop, and `close` it."""

    def __init__(self, host: Host, address: Address, secret: bytes, limits: Nodes, clock: Clock) -> None:
        self._host = host
        self._address = address
        self._secret = secret
        self._limits = limits
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.state = NodeState.LOST
        self.estimate = ClockEstimate(limits.clock_samples)
        self.budget = Budget()
        self.wants_probe = True
        """Whether the link's speed should be measured anew."""
        self.arena_bytes = 0
        """What the node can hold of inputs at once."""
        self.losses = 0
        self.last_end = "it was not reached yet"
        self._link: Link | None = None
        self._nonce = b""
        self._asked = b""
        self._ended = asyncio.Event()
        self._ticking: asyncio.TimerHandle | None = None
        self._keeping: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Call, and go on calling."""
        self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Hang up."""
        self.state = NodeState.CLOSED
        if self._keeping is not None:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping
        if self._link is not None:
            self._link.cut("the front stops")
            await self._ended.wait()

    def send(self, message: Message, body: Sequence[bytes | memoryview] = ()) -> None:
        """Say something to the node; nothing if there is no connection."""
        if self._link is not None:
            self.budget.sent(self._link.send(message, body), self._clock.now_ns())

    @property
    def way_ns(self) -> int:
        """How long a byte is on its way."""
        return self.estimate.round_trip_ns // 2

    # The link's side

    def met(self, link: Link) -> None:
        """Connected; the node speaks first."""
        self._link = link
        self._ended.clear()
        self.state = NodeState.MEETING
        self._nonce = secrets.draw()
        self._loop.call_later(self._limits.hello_s, self._lose_patience, link)

    def take(self, link: Link, head: memoryview, body: memoryview) -> None:
        """The node says something. Raises MessageError."""
        message = decode_from_node(head)
        if type(message) is Pong:
            self._take_time(message)
        elif type(message) is Received:
            self.budget.received(message.received_bytes, self.estimate.here(message.at_ns), self.way_ns)
        elif self.state is NodeState.MEETING:
            self._meet(link, message)
        else:
            self._host.take(message, body)

    def lost(self, link: Link, why: str) -> None:
        """The connection is gone."""
        self._link = None
        if self._ticking is not None:
            self._ticking.cancel()
        if self.state is not NodeState.CLOSED:
            self.losses += self.state is NodeState.UP
            self.state = NodeState.LOST
        self.last_end = why
        self._host.left(why)
        self._ended.set()

    def end(self, why: str) -> None:
        """Hang up, and call again."""
        if self._link is not None:
            self._link.cut(why)

    # Meeting

    def _meet(self, link: Link, message: FromNode) -> None:
        if type(message) is Challenge:
            self._asked = message.nonce
            answer = secrets.proof(self._secret, secrets.FRONT, message.nonce, self._nonce)
            self.send(Hello(nonce=self._nonce, proof=answer))
        elif type(message) is Welcome:
            if not secrets.is_proof(message.proof, self._secret, secrets.NODE, self._nonce, self._asked):
                raise MessageError("the node does not know the secret: give both the same `nodes.token_file`")
            self.arena_bytes = message.arena_bytes
            self.state = NodeState.TIMING
            self._ping()
        elif type(message) is Refused:
            link.cut(message.text)
        else:
            raise MessageError("a node begins with a challenge")

    def _lose_patience(self, link: Link) -> None:
        if link is self._link and self.state in (NodeState.MEETING, NodeState.TIMING):
            link.cut(f"it did not get as far as to be used within {self._limits.hello_s:g} s")

    # Time

    def _ping(self) -> None:
        self.send(Ping(sent_ns=self._clock.now_ns()))

    def _take_time(self, pong: Pong) -> None:
        self.estimate.add(pong.sent_ns, pong.received_ns, pong.returned_ns, self._clock.now_ns())
        self.budget.received(pong.received_bytes, self.estimate.here(pong.received_ns), self.way_ns)
        if self.state is not NodeState.TIMING:
            return
        if self.estimate.samples < min(FIRST_TRIPS, self._limits.clock_samples):
            self._ping()
            return
        self.state = NodeState.UP
        self._tick()
        self._host.entered()

    def _tick(self) -> None:
        """Ask for the time, measure the link if need be, and look whether the node still says anything."""
        link, silence_s = self._link, self._limits.silence_s_max
        if link is None:
            return
        if self._loop.time() - link.heard_s > silence_s:
            link.cut(f"it has said nothing for {silence_s:g} s")
            return
        self._ping()
        if self.wants_probe and self.budget.backlog_bytes < self._limits.probe_bytes:
            self.wants_probe = False
            self.send(Probe(), (bytes(self._limits.probe_bytes),))
        self._ticking = self._loop.call_later(self._limits.ping_s, self._tick)

    # Calling

    async def _keep(self) -> None:
        limits = self._limits
        pause_s = limits.retry_s_min
        while True:
            losses = self.losses
            await self._call()
            if self.losses > losses:
                pause_s = limits.retry_s_min
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, limits.retry_s_max)

    async def _call(self) -> None:
        """One connection, from its beginning to its end."""
        self.estimate, self.budget = ClockEstimate(self._limits.clock_samples), Budget()
        self.wants_probe = True
        make = partial(Link, self, self._limits.frame_bytes_max)
        try:
            async with asyncio.timeout(self._limits.hello_s):
                await self._loop.create_connection(make, self._address.host, self._address.port)
        except OSError as error:
            self.last_end = f"it cannot be reached: {error.strerror or error}"
            return
        except TimeoutError:
            self.last_end = f"it cannot be reached within {self._limits.hello_s:g} s"
            return
        await self._ended.wait()
