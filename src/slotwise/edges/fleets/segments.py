"""The output segments of all executors, as the front reads them. Implements the engine's `Outputs` port.

The arena can be read as well, for outputs of a pipeline's earlier steps are kept there. A segment's number is never
used again. When its executor is gone it stays readable until the turn that replies from it has ended.
"""

from __future__ import annotations

from slotwise.facts.types import TensorRef

ARENA_SEGMENT = 0
FIRST_SEGMENT = 1


class Segments:
    """Memory by segment number."""

    def __init__(self, arena: memoryview) -> None:
        self._memories = {ARENA_SEGMENT: arena}
        self._retired: list[int] = []
        self._next = FIRST_SEGMENT

    def add(self, memory: memoryview) -> int:
        """Give a segment its number."""
        segment = self.draw()
        self._memories[segment] = memory
        return segment

    def draw(self) -> int:
        """A number for memory that is not read here."""
        segment = self._next
        self._next += 1
        return segment

    def read(self, ref: TensorRef) -> memoryview:
        """The bytes of an output. Valid only while the reply that names it is being carried out."""
        return self._memories[ref.segment][ref.offset : ref.offset + ref.nbytes]

    def retire(self, segment: int) -> None:
        """Forget a segment at the end of the present or next turn."""
        self._retired.append(segment)

    def close(self) -> None:
        """Forget all; nothing is read any more."""
        self._memories.clear()

    def forget_retired(self) -> None:
        """The turn has ended."""
        for segment in self._retired:
            del self._memories[segment]
        self._retired.clear()
