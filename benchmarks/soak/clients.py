"""Clients as they should not be: those that send slowly, stop halfway, or vanish, and connections that say nothing."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Sequence

from slotwise.client import AsyncLocalClient, ClientError, Question
from slotwise.demo.mix import Exhibit
from soak.questions import WIDE_US, Asked
from soak.tally import End, Outcome, Tally, tells_removed
from soak.ways import GrpcWay, LocalWay
from soak.web import ANSWER_S_MAX, HOST, binary_request

PIECES = 20
TRICKLE_S_MAX = 8.0
HALT_S_MAX = 75.0
"""Longer than the server waits for a request, so that some halting clients see it give up."""
IDLE_S_MAX = 45.0
"""Longer than the server keeps an idle connection."""
VANISH_S_MAX = 0.1
TOLD_BYTES = 1000


class RudeClients:
    """Each method is one client's life."""

    def __init__(
        self, port: int, grpc: GrpcWay, local: LocalWay, exhibits: Sequence[Exhibit], tally: Tally, rng: random.Random
    ) -> None:
        self._port = port
        self._grpc = grpc
        self._local = local
        self._exhibits = exhibits
        self._tally = tally
        self._rng = rng

    async def trickle(self) -> None:
        """Send a request bit by bit, whole in the end: it is owed an answer like any other."""
        asked = self._asked()
        request, took_s = binary_request(asked), self._rng.uniform(0.5, TRICKLE_S_MAX)
        began_s = time.monotonic()
        reader, writer = await asyncio.open_connection(HOST, self._port)
        try:
            step = -(-len(request) // PIECES)
            for start in range(0, len(request), step):
                writer.write(request[start : start + step])
                await writer.drain()
                await asyncio.sleep(took_s / PIECES)
            async with asyncio.timeout(ANSWER_S_MAX):
                line, rest = await reader.readline(), await reader.read(TOLD_BYTES)
                outcome = _outcome(line, rest)
        except (TimeoutError, OSError) as error:
            outcome = Outcome(End.UNANSWERED, repr(error))
        finally:
            writer.transport.abort()
        self._tally.add("trickle", asked.model, outcome, time.monotonic() - began_s)

    async def halt(self) -> None:
        """Send a part, wait, and leave."""
        request = binary_request(self._asked())
        await self._send(request[: self._rng.randrange(1, len(request))], self._rng.uniform(1, HALT_S_MAX))

    async def vanish_early(self) -> None:
        """Send a part, and leave at once."""
        request = binary_request(self._asked())
        await self._send(request[: self._rng.randrange(1, len(request))], 0.0)

    async def vanish_late(self) -> None:
        """Send all, and leave while the answer is made or on its way."""
        await self._send(binary_request(self._asked()), self._rng.uniform(0, VANISH_S_MAX))

    async def idle(self) -> None:
        """Open a connection and say nothing."""
        await self._send(b"", self._rng.uniform(1, IDLE_S_MAX))

    async def vanish_grpc(self) -> None:
        """Take a call back."""
        await self._grpc.abandon(self._asked(), self._rng.uniform(0, VANISH_S_MAX))

    async def vanish_local(self) -> None:
        """Come over the local channel with questions, and leave while they are under way."""
        asked = self._asked()
        client = AsyncLocalClient(self._local.path, answer_s_max=ANSWER_S_MAX)
        questions: list[asyncio.Task[object]] = []
        try:
            await client.open()
            for _ in range(self._rng.randint(1, 4)):
                question = Question(model=asked.model, inputs=asked.inputs, timeout_us=asked.timeout_us)
                questions.append(asyncio.create_task(client.ask(question)))
            await asyncio.sleep(self._rng.uniform(0, VANISH_S_MAX))
        except ClientError as error:
            self._tally.add("vanish_local", asked.model, Outcome(End.UNANSWERED, f"not taken: {error}"))
        finally:
            client.close()
            await asyncio.gather(*questions, return_exceptions=True)

    async def idle_local(self) -> None:
        """Connect to the local socket and do not even say hello."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.setblocking(False)  # noqa: FBT003  # the method has no keyword
            await asyncio.get_running_loop().sock_connect(connection, self._local.path)
            await asyncio.sleep(self._rng.uniform(0, IDLE_S_MAX))

    def _asked(self) -> Asked:
        return Asked(exhibit=self._rng.choice(self._exhibits), timeout_us=WIDE_US)

    async def _send(self, data: bytes, stay_s: float) -> None:
        _, writer = await asyncio.open_connection(HOST, self._port)
        try:
            writer.write(data)
            await asyncio.sleep(stay_s)
        finally:
            writer.transport.abort()


def _outcome(line: bytes, rest: bytes) -> Outcome:
    """What a status line says; not all of the rest of the reply is read."""
    status, ends = line[9:12], {b"200": End.OK, b"503": End.REFUSED, b"504": End.TOO_LATE}
    told = (line + rest).decode(errors="replace")
    if tells_removed(told):
        return Outcome(End.REMOVED, told)
    return Outcome(ends.get(status, End.WRONG if status else End.UNANSWERED), told)
