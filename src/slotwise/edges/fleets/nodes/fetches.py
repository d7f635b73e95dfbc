"""Models on their way from a front to a node's disk: one at a time, in pieces, a few of which are asked for at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
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
        self._tasks: dict[str, asyncio.Task[Path]] = {}

    async def get(self, weights: Weights, timeout_s: float) -> Path:
        """The file to load, fetched first if need be. Raises ModelError, or TimeoutError while it is still coming."""
        found = self._cache.find(weights)
        if found is not None:
            return found
        task = self._tasks.get(weights.digest)
        if task is None:
            task = self._tasks[weights.digest] = asyncio.create_task(self._fetch(weights))
            task.add_done_callback(lambda _: self._tasks.pop(weights.digest, None))
        return await asyncio.wait_for(asyncio.shield(task), timeout_s)

    def take(self, message: Chunk | NoChunk, body: memoryview) -> None:
        """A piece has come, or word that it cannot."""
        self._came.put_nowait((message, body))

    def close(self) -> None:
        """The front is gone."""
        for task in self._tasks.values():
            task.cancel()

    async def _fetch(self, weights: Weights) -> Path:
        async with self._turn:
            draft = self._cache.begin(weights)
            try:
                await self._fill(draft)
            except BaseException:
                draft.drop()
                raise
            draft.publish()
        found = self._cache.find(weights)
        if found is None:
            raise ModelError(f"the model has no file {weights.main}")
        return found

    async def _fill(self, draft: Draft) -> None:
        """Ask for all pieces, and take them in as they come."""
        pieces = draft.pieces(self._limits.chunk_bytes)
        under_way = sum(self._ask(pieces) for _ in range(self._limits.chunks_max))
        while under_way:
            message, body = await self._came.get()
            if type(message) is NoChunk:
                raise ModelError(message.text)
            assert type(message) is Chunk, "the other one"
            draft.add(message.sha256, message.offset, body)
            under_way += self._ask(pieces) - 1

    def _ask(self, pieces: Iterator[Piece]) -> bool:
        """Ask for the next piece; whether there is one."""
        piece = next(pieces, None)
        if piece is not None:
            self._link.send(Want(sha256=piece.sha256, offset=piece.offset, nbytes=piece.nbytes))
        return piece is not None
