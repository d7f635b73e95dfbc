"""The way over gRPC: a line is a place on one of a few channels, and a request is a message that is encoded once.

grpcio is an extra, and is loaded with this file alone. A request's deadline goes along as the parameter `timeout`; as
the call's own deadline too only where that is asked for, since the library then ends the call by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

import grpc

from slotwise.client.address import GrpcAddress
from slotwise.client.errors import ConnectionLost, Refused
from slotwise.client.grpc import METHOD, channel_of, connect, encode, error_of, metadata_of, target_of
from slotwise.facts.value import value
from slotwise.load.inputs import Questions
from slotwise.load.lines import ANSWERED, OnReply, Reply, reply_of
from slotwise.load.places import Links, Place
from slotwise.load.requests import Requests
from slotwise.workload.values import Arrival

LINES_PER_CHANNEL = 64


@value
class Message:
    """A request as it goes over the wire. `deadline_s` is the call's own, where it has one."""

    data: bytes
    deadline_s: float | None


class GrpcWay:
    """Channels to one server."""

    def __init__(
        self,
        address: GrpcAddress,
        questions: Questions,
        *,
        token: str = "",
        ca_file: str = "",
        has_deadlines: bool = False,
    ) -> None:
        """Raises ValueError for what is no token."""
        self._address = address
        self._target = target_of(address.host, address.port)
        self._questions = questions
        self._metadata = metadata_of(token)
        self._ca_file = ca_file
        self._has_deadlines = has_deadlines
        self._links = Links(self._link, lambda _: LINES_PER_CHANNEL)
        self.request = Requests(self._made, lambda message: len(message.data), questions.samples).of

    async def open(self, count: int) -> Sequence[GrpcLine]:
        """So many lines. Raises Unreachable."""
        for lost in self._links.forget_lost():
            await lost.close()
        return await self._links.lines(count, GrpcLine)

    async def close(self) -> None:
        """Close every channel."""
        for link in self._links:
            await link.close()

    async def _link(self) -> _Link:
        channel = channel_of(self._target, is_tls=self._address.is_tls, ca_file=self._ca_file)
        link = _Link(channel, self._target, self._metadata)
        await link.open()
        return link

    def _made(self, arrival: Arrival, sample: int) -> Message:
        question = self._questions.of(arrival, sample)
        deadline_s = question.timeout_us / 1e6 if self._has_deadlines and question.timeout_us else None
        return Message(data=encode(question).SerializeToString(), deadline_s=deadline_s)


class _Link:
    """A channel, until its connection is lost."""

    def __init__(self, channel: grpc.aio.Channel, target: str, metadata: tuple[tuple[str, str], ...]) -> None:
        self._channel = channel
        self._target = target
        self._metadata = metadata
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        self.is_open = False

    async def open(self) -> None:
        try:
            await connect(self._channel, self._target)
        except BaseException:
            await self._channel.close()
            raise
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False
        await self._channel.close()

    async def ask(self, message: Message) -> Reply | None:
        """What comes of a call; None where it gets no reply."""
        try:
            await self._call(message.data, timeout=message.deadline_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            return self._reply_to(error)
        return ANSWERED

    def _reply_to(self, error: grpc.aio.AioRpcError) -> Reply | None:
        told = error_of(self._target, error)
        if isinstance(told, ConnectionLost) and self._channel.get_state() is grpc.ChannelConnectivity.READY:
            # Both a server that is full and a lost connection say that it is unavailable; here the connection stands.
            told = Refused(error.details() or "unavailable", status=HTTPStatus.SERVICE_UNAVAILABLE)
        reply = reply_of(told)
        self.is_open = self.is_open and reply is not None
        return reply


class GrpcLine(Place[_Link]):
    """A place for one call on a channel; a call that is taken back is cancelled."""

    _asking: asyncio.Task[Reply | None] | None = None

    def send(self, request: Message, on_reply: OnReply) -> None:
        """Make the call; `on_reply` is called later."""
        self._asking = asyncio.create_task(self._link.ask(request))
        self._asking.add_done_callback(lambda ended: on_reply(None if ended.cancelled() else ended.result()))

    def _take_back(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
