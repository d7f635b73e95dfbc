"""The way over HTTP: a line is a connection, and a request is the bytes that go over it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence

from slotwise.client.connection import Connection
from slotwise.client.errors import BadRequest, Unreachable
from slotwise.workload.values import Arrival


class HttpWay:
    """Connections to one server. `request` is the whole HTTP request for an arrival, in whatever form it takes."""

    def __init__(
        self, host: str, port: int, request: Callable[[Arrival], bytes], *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._address = (host, port)
        self._tls = tls
        self.request = request

    async def open(self, count: int) -> Sequence[Connection]:
        """So many connections. Raises Unreachable, or BadRequest for TLS that is not trusted."""
        made: list[Connection] = []
        try:
            while len(made) < count:
                made.append(await self._connect())
        except BaseException:
            for connection in made:
                connection.close()
            raise
        return made

    async def close(self) -> None:
        """Connections are closed by whoever has them."""

    async def _connect(self) -> Connection:
        host, port = self._address
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(lambda: Connection(_forget), host, port, ssl=self._tls)
        except ssl.SSLError as error:
            words = f"{host}:{port} does not speak TLS that is trusted here ({error.reason or error}); name its CA file"
            raise BadRequest(words) from error
        except OSError as error:
            raise Unreachable(f"{host}:{port} cannot be reached: {error.strerror or error}") from error
        return made


def _forget(_: Connection) -> None:
    """A sender sees for itself which of its lines are open."""
