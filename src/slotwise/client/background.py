"""An asyncio client in a thread of its own, which any thread may ask: what futures and callbacks stand on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol

from slotwise.client.errors import ClientError, ConnectionLost
from slotwise.client.question import Question
from slotwise.client.wire import InferResult

Outcome = InferResult | ClientError


class Asked(Protocol):
    """The client within."""

    def ask(self, question: Question) -> Coroutine[Any, Any, InferResult]:
        """The answer to a question."""

    async def aclose(self) -> None:
        """Close every connection."""


class Background:
    """A loop in a thread, from the making to `close`. `make` makes the client, in that loop."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Asked]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slotwise-client", daemon=True)
        self._thread.start()
        try:
            self._client = asyncio.run_coroutine_threadsafe(make(), self._loop).result()
        except BaseException:
            self._stop()
            raise

    def submit(self, question: Question) -> Future[InferResult]:
        """A future of the answer; from any thread."""
        return asyncio.run_coroutine_threadsafe(self._client.ask(question), self._loop)

    def close(self) -> None:
        """Cancel what is under way, close the client and end the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._stop()

    async def _end(self) -> None:
        asked = asyncio.all_tasks() - {asyncio.current_task()}
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await self._client.aclose()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def call_with(asked: Future[InferResult], then: Callable[[Outcome], None]) -> Future[InferResult]:
    """Have `then` called with how a question ended; one that was cancelled ended with its connection."""
    asked.add_done_callback(lambda done: then(_outcome_of(done)))
    return asked


def _outcome_of(done: Future[InferResult]) -> Outcome:
    try:
        return done.result()
    except ClientError as error:
        return error
    except CancelledError:
        return ConnectionLost("the question was cancelled, or its client closed, before there was an answer")
