"""What a client asks and how it ends, whatever the way to the server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from slotwise.client.errors import ClientError
from slotwise.client.wire import Array, InferResult
from slotwise.facts.value import value

Asked = TypeVar("Asked")
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


class Asker(ABC, Generic[Asked]):
    """What can be asked: `Asked` is an answer, or for those that await, the coroutine of one."""

    @abstractmethod
    def ask(self, question: Question) -> Asked:
        """The answer to a question. Raises the ClientError that fits."""

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        timeout_us: int | None = None,
        priority: int | None = None,
        *,
        outputs: Sequence[str] = (),
        has_timing: bool = False,
    ) -> Asked:
        """The model's answer; the model's own deadline and priority hold where none are given.

        `model` is a name, or name/version; without `outputs` all are meant. Raises the ClientError that fits.
        """
        question = Question(
            model=model,
            inputs=inputs,
            timeout_us=timeout_us,
            priority=priority,
            outputs=outputs,
            has_timing=has_timing,
        )
        return self.ask(question)
