"""What passes between steps: outputs are copied once, into the arena, because an executor soon writes over its own.

Regions are counted, as the arena counts them: whoever makes a copy holds it until it is released here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from slotwise.engine.ports import Arena, Outputs
from slotwise.facts.types import TensorRef
from slotwise.facts.value import value

ALIGNMENT = 64


@value
class Copy:
    """Tensors that lie in a region of the arena, in the order they were given."""

    region: int
    refs: tuple[TensorRef, ...]


class Tensors:
    """The shared memory of a server, as far as steps need it."""

    def __init__(self, arena: Arena, outputs: Outputs) -> None:
        self._arena = arena
        self._outputs = outputs

    def copy(self, refs: Sequence[TensorRef]) -> Copy | None:
        """Keep outputs of the reply that is being carried out; None when the arena has no room for them."""
        region = self._arena.allocate(sum([_room(ref) for ref in refs]) or 1)
        if region is None:
            return None
        kept, at = [], region
        for ref in refs:
            self._arena.view(at, ref.nbytes)[:] = self._outputs.read(ref)
            kept.append(replace(ref, segment=self._arena.segment, offset=at))
            at += _room(ref)
        return Copy(region=region, refs=tuple(kept))

    def hold(self, regions: Iterable[int]) -> None:
        """Hold regions once more."""
        for region in regions:
            self._arena.keep(region)

    def release(self, regions: Iterable[int]) -> None:
        """Hold regions once less."""
        for region in regions:
            self._arena.release(region)


def _room(ref: TensorRef) -> int:
    return -(-ref.nbytes // ALIGNMENT) * ALIGNMENT
