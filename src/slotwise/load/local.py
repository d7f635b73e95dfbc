"""The way over the local channel: a line is a place among those that one connection has.

What is sent again and again is laid into shared memory once, so that a request is a frame and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from slotwise.client.asynchronous import AsyncLocalClient
from slotwise.client.errors import ClientError, NoRoom
from slotwise.client.question import Question
from slotwise.client.sharing import Inputs
from slotwise.client.wire import STRINGS, Array, InferResult
from slotwise.load.lines import ANSWERED, OnReply, reply_of
from slotwise.load.requests import Requests
from slotwise.workload.values import Arrival

INPUTS_BYTES = 64 << 20


class LocalWay:
    """Connections to one server's local socket, which share the memory of all inputs."""

    def __init__(self, path: str, question_of: Callable[[Arrival], Question]) -> None:
        self._path = path
        self._question_of = question_of
        self._inputs = Inputs(INPUTS_BYTES)
        self._laid: dict[int, tuple[Array, Array]] = {}
        """By its id: an array, and where it lies in shared memory."""
        self._links: Counter[AsyncLocalClient] = Counter()
        """Connections, and how many of their places are lines."""
        self.request = Requests(self._made, lambda _: 0).of

    async def open(self, count: int) -> Sequence[LocalLine]:
        """So many lines, on as few connections as the server allows. Raises the ClientError that fits."""
        made: list[LocalLine] = []
        self._links = Counter({link: taken for link, taken in self._links.items() if link.is_open})
        try:
            while len(made) < count:
                link = await self._link()
                self._links[link] += 1
                made.append(LocalLine(link, self._put_back))
        except BaseException:
            for line in made:
                line.close()
            raise
        return made

    async def close(self) -> None:
        """Leave."""
        for link in self._links:
            link.close()
        self._inputs.close()

    async def _link(self) -> AsyncLocalClient:
        """A connection with a place left; a new one if need be."""
        for link, taken in self._links.items():
            if taken < link.requests_max:
                return link
        link = AsyncLocalClient(self._path, inputs=self._inputs)
        await link.open()
        return link

    def _put_back(self, link: AsyncLocalClient) -> None:
        self._links[link] -= 1

    def _made(self, arrival: Arrival) -> Question:
        asked = self._question_of(arrival)
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


class LocalLine:
    """A place for one request on a connection."""

    def __init__(self, link: AsyncLocalClient, put_back: Callable[[AsyncLocalClient], None]) -> None:
        self._link = link
        self._put_back = put_back
        self._is_closed = False
        self._serial = 0
        self._on_reply: OnReply | None = None

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._link.is_open and not self._is_closed

    def send(self, request: Question, on_reply: OnReply) -> None:
        """Send a question; `on_reply` is called later."""
        self._on_reply = on_reply
        try:
            self._serial = self._link.start(request, self._end)
        except ClientError as error:
            asyncio.get_running_loop().call_soon(self._end, error)

    def close(self) -> None:
        """Give the place back; a question under way is taken back."""
        if self._is_closed:
            return
        self._is_closed = True
        self._put_back(self._link)
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
