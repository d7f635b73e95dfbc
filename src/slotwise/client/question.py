"""What a client asks and how it ends, whatever the way to the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slotwise.client.errors import ClientError
from slotwise.client.wire import Array, InferResult
from slotwise.facts.value import value

WINDOW = 16
"""Questions of a stream that are under way at once."""


@value
class Question:
    """What a client asks. `model` is a name, or name/version; without `outputs` all are meant."""

    model: str
    inputs: Mapping[str, Array]
    timeout_us: int | None = None
    """0 or none means the model's own, as for `priority`."""
    priority: int | None = None
    outputs: Sequence[str] = ()
    has_timing: bool = False


@value
class Streamed:
    """One answer of a stream: to which question, counted from 0, and what it is."""

    index: int
    outcome: InferResult | ClientError

    def result(self) -> InferResult:
        """The answer. Raises the ClientError that came instead."""
        if isinstance(self.outcome, ClientError):
            raise self.outcome
        return self.outcome
