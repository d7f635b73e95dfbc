"""A node's gate: who may come in. It listens, has each who comes prove to know the secret, and lets in one at a time.

One that is let in and then says nothing for too long is sent away, so that its successor finds the gate open.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

from slotwise.edges.fleets.messages import MessageError
from slotwise.edges.fleets.nodes import secret as secrets
from slotwise.edges.fleets.nodes.link import Link
from slotwise.edges.fleets.nodes.messages import Challenge, FromFront, Hello, Refused, Welcome, decode_from_front
from slotwise.edges.fleets.nodes.settings import Nodes

LOOKS_PER_SILENCE = 4
"""How often it is looked whether the front is silent, in the time that it may be."""


class Host(Protocol):
    """Whoever the front is let in to."""

    def entered(self, link: Link) -> None:
        """A front is there."""

    def take(self, link: Link, message: FromFront, body: memoryview) -> None:
        """The front says something. Raises MessageError."""

    def left(self, why: str) -> None:
        """The front is gone."""


class Gate:
    """A listening socket, and a `link.End` for whoever comes."""

    def __init__(self, host: Host, secret: bytes, arena_bytes: int, limits: Nodes) -> None:
        self._host = host
        self._secret = secret
        self._arena_bytes = arena_bytes
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._visitors: dict[Link, bytes] = {}
        """Those that have not proved anything yet, and what they were asked."""
        self._front: Link | None = None
        self._server: asyncio.Server | None = None
        self._watching: asyncio.TimerHandle | None = None

    async def open(self, host: str, port: int) -> int:
        """Listen; the port, where 0 takes a free one. Raises OSError."""
        make = partial(Link, self, self._limits.frame_bytes_max)
        self._server = await self._loop.create_server(make, host, port)
        self._watch()
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Close the gate, and send everybody away."""
        if self._server is None:
            return
        self._server.close()
        if self._watching is not None:
            self._watching.cancel()
        for link in [*self._visitors, *([self._front] if self._front else [])]:
            link.cut("the node stops")
        await self._server.wait_closed()
        await asyncio.sleep(0)  # the transports close in the loop's next turn

    # The links' side

    def met(self, link: Link) -> None:
        """Somebody comes."""
        if len(self._visitors) >= self._limits.connections_max:
            link.cut("too many come at once")
            return
        nonce = self._visitors[link] = secrets.draw()
        self._loop.call_later(self._limits.hello_s, self._lose_patience, link)
        link.send(Challenge(nonce=nonce))

    def take(self, link: Link, head: memoryview, body: memoryview) -> None:
        """Somebody says something. Raises MessageError."""
        message = decode_from_front(head)
        if link is self._front:
            self._host.take(link, message, body)
        elif type(message) is Hello and link in self._visitors:
            self._meet(link, message)
        else:
            raise MessageError("one who comes begins with the proof that was asked for")

    def lost(self, link: Link, why: str) -> None:
        """Somebody is gone."""
        self._visitors.pop(link, None)
        if link is self._front:
            self._front = None
            self._host.left(why)

    def _meet(self, link: Link, hello: Hello) -> None:
        asked = self._visitors.pop(link)
        if not secrets.is_proof(hello.proof, self._secret, secrets.FRONT, asked, hello.nonce):
            self._refuse(link, "this node has another secret: give both the same `nodes.token_file`")
        elif self._front is not None:
            self._refuse(link, f"this node serves another front, at {self._front.peer}")
        else:
            self._front = link
            answer = secrets.proof(self._secret, secrets.NODE, hello.nonce, asked)
            link.send(Welcome(proof=answer, arena_bytes=self._arena_bytes))
            self._host.entered(link)

    def _refuse(self, link: Link, text: str) -> None:
        link.send(Refused(text=text))
        link.end(text)

    def _lose_patience(self, link: Link) -> None:
        if link in self._visitors:
            link.cut("it did not prove to know the secret in time")

    def _watch(self) -> None:
        front, silence_s = self._front, self._limits.silence_s_max
        if front is not None and self._loop.time() - front.heard_s > silence_s:
            front.cut(f"it has said nothing for {silence_s:g} s")
        self._watching = self._loop.call_later(silence_s / LOOKS_PER_SILENCE, self._watch)
