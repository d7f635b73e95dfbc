"""Several doors before one engine, as one front. A door knows the requests that came through it, and no others."""

from __future__ import annotations

from collections.abc import Sequence

from slotwise.engine.ports import Front
from slotwise.facts.actions import Reply


class Fronts:
    """Hands each reply to the doors; all of them draw their requests' ids from one counter."""

    def __init__(self, fronts: Sequence[Front]) -> None:
        self._fronts = tuple(fronts)

    @classmethod
    def of(cls, *fronts: Front | None) -> Front:
        """Those that there are, as one; one that is alone stays what it is."""
        there = [front for front in fronts if front is not None]
        return there[0] if len(there) == 1 else cls(there)

    def reply(self, reply: Reply) -> None:
        """Answer one request, through the door that it came by."""
        for front in self._fronts:
            front.reply(reply)
