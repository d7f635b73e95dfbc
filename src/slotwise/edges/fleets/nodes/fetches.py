"""Models on their way from a front to a node's disk: one at a time, in pieces, a few of which are asked for at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from slotwise.edges.fleets.nodes.link import Link
from slotwise.edges.fleets.nodes.messages import Chunk, NoChunk, Want, Weights
from slotwise.edges.fleets.nodes.settings import Nodes
from slotwise.edges.fleets.nodes.weights import Cache, Draft, Piece
from slotwise.engine.ports import ModelError


class Fetches:
    """What one front is asked for. Make another for the next front."""

    def __init__(self, link: Link, cache: Cache, limits: Nodes) -> None:
        self._link = link
        self._cache = cache
        self._limits = limits
        self._turn = asyncio.Lock()
        self._came: asyncio.Queue[tuple[Chunk | NoChunk, memoryview]] = asyncio.Queue()
        self._under_way = 0
        """Pieces asked for that have not come."""
        self._tasks: dict[str, asyncio.Task[Path]] = {}

    async def get(self, weights: Weights, timeout_s: float) -> Path:
        """The file to load, fetched first if need be. Raises ModelError, or TimeoutError while it is still coming."""
        found = self._cache.find(weights)
        if found is not None:
            return found
        task = self._tasks.get(weights.digest)
        if task is None:
            task = self._tasks[weights.digest] = asyncio.create_task(self._fetch(weights))
            task.add_done_callback(partial(self._end, weights.digest))
        return await asyncio.wait_for(asyncio.shield(task), timeout_s)

    def take(self, message: Chunk | NoChunk, body: memoryview) -> None:
        """A piece has come, or word that it cannot."""
        self._came.put_nowait((message, body))

    def close(self) -> None:
        """The front is gone."""
        for task in list(self._tasks.values()):
            task.cancel()

    def _end(self, digest: str, task: asyncio.Task[Path]) -> None:
        del self._tasks[digest]
        if not task.cancelled():
            task.exception()  # told to whoever waits; if nobody does any more, the next one tries again

    async def _fetch(self, weights: Weights) -> Path:
        async with self._turn:
            draft = self._cache.begin(weights)
            try:
                await self._fill(draft)
                draft.publish()
            except (ModelError, OSError):
                await self._drain()
                raise
            finally:
                draft.drop()
        found = self._cache.find(weights)
        if found is None:
            raise ModelError(f"the model has no file {weights.main}")
        return found

    async def _fill(self, draft: Draft) -> None:
        """Ask for all pieces, and take them in as they come."""
        pieces = draft.pieces(self._limits.chunk_bytes)
        for _ in range(self._limits.chunks_max):
            self._ask(pieces)
        while self._under_way:
            message, body = await self._next()
            if type(message) is NoChunk:
                raise ModelError(message.text)
            assert type(message) is Chunk, "the other one"
            draft.add(message.sha256, message.offset, body)
            self._ask(pieces)

    async def _drain(self) -> None:
        """Let fall what is still on its way, so that it is not taken for pieces of the next model."""
        while self._under_way:
            await self._next()

    async def _next(self) -> tuple[Chunk | NoChunk, memoryview]:
        came = await self._came.get()
        self._under_way -= 1
        return came

    def _ask(self, pieces: Iterator[Piece]) -> None:
        """Ask for the next piece, if there is one."""
        piece = next(pieces, None)
        if piece is not None:
            self._under_way += 1
            self._link.send(Want(sha256=piece.sha256, offset=piece.offset, nbytes=piece.nbytes))
