"""Streams of questions over a client that asks each once, with those asked again that may be (`address.Tries`)."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing

from slotwise.client.address import Tries
from slotwise.client.errors import ClientError, TooLate
from slotwise.client.question import Question, Streamed
from slotwise.facts.value import value

AskAll = Callable[[Iterator[Question]], Generator[Streamed]]


@value
class _Asked:
    """A question of the stream: the how-manieth, and what is left of its tries."""

    index: int
    tries: Tries


def stream_with_tries(ask_all: AskAll, questions: Iterable[Question], tries_max: int) -> Iterator[Streamed]:
    """What comes of every question in the end; one that is asked again comes when its last answer has."""
    stream = _Stream(questions, tries_max)
    while True:
        with closing(ask_all(stream.ahead())) as answers:
            for answer in answers:
                yield from stream.endings(answer)
        yield from stream.expired()
        pause_s = stream.pause_s()
        if pause_s is None:
            return
        time.sleep(pause_s)


class _Stream:
    """What is still to be asked. Each pass asks what is due, and ends when there is nothing due and nothing fresh."""

    def __init__(self, questions: Iterable[Question], tries_max: int) -> None:
        self._fresh = enumerate(questions)
        self._has_fresh = True
        self._tries_max = tries_max
        self._again: list[tuple[float, int, Tries]] = []
        """By the time at which each is due."""
        self._under_way: dict[int, _Asked] = {}
        self._late: list[Streamed] = []

    def ahead(self) -> Iterator[Question]:
        """What to ask in one pass; the how-manieth of the pass is how `endings` is told of it."""
        number = 0
        while (asked := self._next()) is not None:
            try:
                question = asked.tries.question()
            except TooLate as error:
                self._late.append(Streamed(index=asked.index, outcome=error))
                continue
            self._under_way[number] = asked
            number += 1
            yield question

    def endings(self, answer: Streamed) -> Iterator[Streamed]:
        """What to hand out of an answer: nothing, where its question is to be asked again."""
        asked = self._under_way.pop(answer.index)
        if isinstance(answer.outcome, ClientError):
            try:
                pause_s = asked.tries.pause_s(answer.outcome)
            except ClientError:
                pause_s = None
            if pause_s is not None:
                heapq.heappush(self._again, (time.monotonic() + pause_s, asked.index, asked.tries))
                return
        yield Streamed(index=asked.index, outcome=answer.outcome)

    def expired(self) -> Iterator[Streamed]:
        """Those whose deadline passed before they could be asked again."""
        late, self._late = self._late, []
        yield from late

    def pause_s(self) -> float | None:
        """How long until the next pass; None when all has been asked."""
        if self._has_fresh:
            return 0.0
        return max(0.0, self._again[0][0] - time.monotonic()) if self._again else None

    def _next(self) -> _Asked | None:
        if self._again and self._again[0][0] <= time.monotonic():
            _, index, tries = heapq.heappop(self._again)
            return _Asked(index=index, tries=tries)
        if self._has_fresh:
            for index, question in self._fresh:
                return _Asked(index=index, tries=Tries(question, self._tries_max))
            self._has_fresh = False
        return None
