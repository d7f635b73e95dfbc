"""What the gRPC door turns away by itself, on its way to the server, which counts and logs it.

Refusals of a kind are gathered for a moment and told as one with their number, so a flood of them is a few lines.
What the server has refused is not among them: it knows of it. Nor is what gRPC's own library refuses before anybody
is told: messages that are too long, and bytes that are no calls. Of calls beyond `calls_max`, those are among them
that come while so many of the protocol's own are open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import grpc

from slotwise.edges.oip.grpc.errors import STATUSES, CallError
from slotwise.engine.ports import Refusal
from slotwise.facts.types import Reason

GATHER_S = 0.2
TEXT_CHARS_MAX = 200
_HTTP = {code: int(status) for status, code in reversed(STATUSES.items())}
"""The first of several."""


class Gathering:
    """Refusals of the last moment, the newest of each kind."""

    def __init__(self, tell: Callable[[Sequence[Refusal]], None]) -> None:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._kinds: dict[tuple[grpc.StatusCode, str | None], Refusal] = {}

    def note(self, error: CallError, method: str, peer: str) -> None:
        """Take one in."""
        if error.is_known:
            return
        if not self._kinds:
            self._loop.call_later(GATHER_S, self.flush)
        kind = (error.status, error.reason)
        before = self._kinds.get(kind)
        self._kinds[kind] = Refusal(
            door="grpc",
            status=_HTTP[error.status],
            reason=error.reason or Reason.NONE.value,
            message=error.message[:TEXT_CHARS_MAX],
            peer=peer,
            target=method,
            count=1 if before is None else before.count + 1,
        )

    def flush(self) -> None:
        """Tell what there is."""
        kinds, self._kinds = list(self._kinds.values()), {}
        if kinds:
            self._tell(kinds)
