"""What has become of a load so far: counts and spreads, in memory that does not grow with the requests. Pure.

A tally is told of each ending once, and can be read at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus

from slotwise.facts.value import value
from slotwise.load.ending import Ending, Sending
from slotwise.load.lines import Reply
from slotwise.load.spread import Spread

ERRORS_MAX = 64
"""Kinds of errors whose words are kept."""
WORDS_MAX = 200
"""Characters kept of an error's words."""


@value
class ErrorKind:
    """Errors of one model with one status."""

    model: str
    status: int
    words: str
    """Of the first of them."""


class Part:
    """The requests to one model."""

    def __init__(self) -> None:
        self.offered = 0
        self.sent = 0
        self.endings: Counter[Ending] = Counter()
        self.statuses: Counter[int] = Counter()
        self.answers = Spread()
        """From when a request was due until its answer was there, whether in time or not."""
        self.refusals = Spread()

    def note(self, sending: Sending) -> None:
        """Count one in."""
        self.offered += 1
        self.sent += sending.was_sent
        self.endings[sending.ending] += 1
        if sending.status is None:
            return
        self.statuses[sending.status] += 1
        if sending.status == HTTPStatus.OK:
            self.answers.add(sending.took_ns or 0)
        elif sending.ending is Ending.REFUSED:
            self.refusals.add(sending.took_ns or 0)

    def merge(self, other: Part) -> None:
        """Count in all of another."""
        self.offered += other.offered
        self.sent += other.sent
        self.endings += other.endings
        self.statuses += other.statuses
        self.answers.merge(other.answers)
        self.refusals.merge(other.refusals)


class Tally:
    """All requests, by model."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.lag = Spread()
        """How much later than due requests were sent, or began to wait: the client's own doing."""
        self.waits = Spread()
        """How long those waited that found no free connection, and were sent in the end."""
        self._words: dict[tuple[str, int], str] = {}

    def note(self, sending: Sending, reply: Reply | None) -> None:
        """Count one in. What a failure says is kept once for each model and status."""
        part = self.parts.get(sending.model)
        if part is None:
            part = self.parts[sending.model] = Part()
        part.note(sending)
        self.lag.add(sending.lag_ns - sending.waited_ns)
        if sending.waited_ns and sending.was_sent:
            self.waits.add(sending.waited_ns)
        if sending.ending is Ending.FAILED and reply is not None:
            self._keep_words(sending.model, reply)

    def total(self) -> Part:
        """All models together."""
        total = Part()
        for part in self.parts.values():
            total.merge(part)
        return total

    def errors(self) -> Mapping[ErrorKind, int]:
        """Failures, as far as their words were kept, and how many there were of each kind."""
        kinds = [ErrorKind(model=model, status=status, words=words) for (model, status), words in self._words.items()]
        return {kind: self.parts[kind.model].statuses[kind.status] for kind in kinds}

    def _keep_words(self, model: str, reply: Reply) -> None:
        if len(self._words) < ERRORS_MAX and (model, reply.status) not in self._words:
            self._words[model, reply.status] = str(reply.error())[:WORDS_MAX]
