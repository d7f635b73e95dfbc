"""The least that an HTTP server in Python can cost here: parses requests, and answers each with the same bytes.

A program, run beside the real server: what the kernel takes for sockets and for waking others differs tenfold from
machine to machine, and is no work of ours. Prints its port.
"""

from __future__ import annotations

import asyncio

import httptools

REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: 150\r\n\r\n" + bytes(150)


class Door(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Parse; what is understood comes back below."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Answer."""
        self._transport.write(REPLY)


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Door, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
