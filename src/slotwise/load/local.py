"""The way over the local channel: a line is a place among those that one connection has.

What is sent again and again is laid into shared memory once, so that a request is a frame and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from slotwise.client.asynchronous import AsyncLocalClient
from slotwise.client.errors import ClientError, NoRoom
from slotwise.client.question import Question
from slotwise.client.sharing import Inputs
from slotwise.client.wire import STRINGS, Array, InferResult
from slotwise.load.inputs import Questions
from slotwise.load.lines import ANSWERED, OnReply, reply_of
from slotwise.load.places import Links, Place
from slotwise.load.requests import Requests
from slotwise.workload.values import Arrival

INPUTS_BYTES = 64 << 20


class LocalWay:
    """Connections to one server's local socket, which share the memory of all inputs."""

    def __init__(self, path: str, questions: Questions) -> None:
        self._path = path
        self._questions = questions
        self._inputs = Inputs(INPUTS_BYTES)
        self._laid: dict[int, tuple[Array, Array]] = {}
        """By its id: an array, and where it lies in shared memory."""
        self._links = Links(self._link, lambda link: link.requests_max)
        self.request = Requests(self._made, lambda _: 0, questions.samples).of

    async def open(self, count: int) -> Sequence[LocalLine]:
        """So many lines, on as few connections as the server allows. Raises the ClientError that fits."""
        self._links.forget_lost()
        return await self._links.lines(count, LocalLine)

    async def close(self) -> None:
        """Leave."""
        for link in self._links:
            link.close()
        self._inputs.close()

    async def _link(self) -> AsyncLocalClient:
        link = AsyncLocalClient(self._path, inputs=self._inputs)
        await link.open()
        return link

    def _made(self, arrival: Arrival, sample: int) -> Question:
        asked = self._questions.of(arrival, sample)
        return replace(asked, inputs={name: self._shared(array) for name, array in asked.inputs.items()})

    def _shared(self, array: Array) -> Array:
        """The array in shared memory; itself where there is no room, or where it has to be packed each time."""
        if array.dtype.kind in STRINGS:
            return array
        found = self._laid.get(id(array))
        if found is not None:
            return found[1]
        try:
            laid = self._inputs.empty(array.shape, array.dtype)
        except NoRoom:
            return array
        laid[...] = array
        self._laid[id(array)] = (array, laid)
        return laid


class LocalLine(Place[AsyncLocalClient]):
    """A place for one request on a connection."""

    _serial = 0
    _on_reply: OnReply | None = None

    def send(self, request: Question, on_reply: OnReply) -> None:
        """Send a question; `on_reply` is called later."""
        self._on_reply = on_reply
        try:
            self._serial = self._link.start(request, self._end)
        except ClientError as error:
            asyncio.get_running_loop().call_soon(self._end, error)

    def _take_back(self) -> None:
        if self._on_reply is not None:
            self._link.take_back(self._serial)
            asyncio.get_running_loop().call_soon(self._end, None)

    def _end(self, outcome: InferResult | ClientError | None) -> None:
        on_reply, self._on_reply = self._on_reply, None
        if on_reply is None:
            return
        if isinstance(outcome, InferResult):
            on_reply(ANSWERED)
        else:
            on_reply(None if outcome is None else reply_of(outcome))
