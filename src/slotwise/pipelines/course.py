"""One request to a pipeline on its way through the steps: which have begun, what has been made, how time was spent.

Books only: who asks for steps and answers the whole is `relay`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from slotwise.facts.types import FOREVER_NS, ModelSpec, Request, TensorRef, Timing
from slotwise.facts.value import value


@value
class Made:
    """A tensor that is there, by the name that the pipeline gives it; `region` is None in a client's own memory.

    `ref` is None in virtual time, where there are no tensors.
    """

    ref: TensorRef | None
    region: int | None


class Course:
    """A request to a pipeline. `rest_ns` is the expected time of each step and all that must follow it."""

    def __init__(self, request: Request, spec: ModelSpec, step_ns: list[int], rest_ns: list[int]) -> None:
        self.request = request
        self.spec = spec
        self.step_ns = step_ns
        self.rest_ns = rest_ns
        self.under_way: dict[int, int] = {}
        """Steps begun and not ended, by the ids of their requests."""
        self.answered = 0
        self.copies: dict[int, set[int]] = {}
        """Regions of outputs that were kept, with the steps that are still to take from them."""
        self._unbegun = list(range(len(spec.steps)))
        self._wanted = frozenset(request.outputs or [tensor.name for tensor in spec.outputs])
        region = request.regions[0] if request.regions else None
        given = {ref.name: ref for ref in request.inputs}
        self._made = {tensor.name: Made(ref=given.get(tensor.name), region=region) for tensor in spec.inputs}
        self._timings: list[Timing] = []

    @property
    def expected_ns(self) -> int:
        """How long all of it is expected to take without waiting."""
        return max(self.rest_ns)

    def take_ready(self) -> list[int]:
        """Steps whose inputs are all there; each is given once."""
        ready = [at for at in self._unbegun if all(wire.tensor in self._made for wire in self.spec.steps[at].inputs)]
        self._unbegun = [at for at in self._unbegun if at not in ready]
        return ready

    def inputs(self, at: int) -> tuple[TensorRef, ...]:
        """The inputs of a step, by the names that its model has for them."""
        found = [(wire.name, self._made[wire.tensor].ref) for wire in self.spec.steps[at].inputs]
        return tuple([replace(ref, name=name) for name, ref in found if ref is not None])

    def regions(self, at: int) -> tuple[int, ...]:
        """The regions that a step's inputs lie in, each once."""
        made = [self._made[wire.tensor].region for wire in self.spec.steps[at].inputs]
        return tuple(dict.fromkeys(region for region in made if region is not None))

    def outputs(self, at: int) -> tuple[str, ...]:
        """Outputs that are asked of a step: those that a later step takes in, or the client."""
        return tuple([wire.name for wire in self.spec.steps[at].outputs if self._takers(wire.tensor)])

    def note(self, timing: Timing | None) -> None:
        """A step was answered."""
        self.answered += 1
        if timing is not None:
            self._timings.append(timing)

    def note_made(self, at: int, refs: Sequence[TensorRef], region: int | None) -> None:
        """A step's outputs are there, copied to a region if there is one."""
        given = {ref.name: ref for ref in refs}
        takers: set[int] = set()
        for wire in self.spec.steps[at].outputs:
            self._made[wire.tensor] = Made(ref=given.get(wire.name), region=region)
            takers |= self._takers(wire.tensor)
        if region is not None:
            self.copies[region] = takers

    def take_idle(self, at: int) -> list[int]:
        """Copies that nobody needs any more now that this step has ended; each is given once."""
        for takers in self.copies.values():
            takers.discard(at)
        idle = [region for region, takers in self.copies.items() if not takers]
        for region in idle:
            del self.copies[region]
        return idle

    def is_complete(self) -> bool:
        """Whether no step is left to do or under way."""
        return not self._unbegun and not self.under_way

    def answer(self) -> tuple[TensorRef, ...]:
        """The outputs that were asked for, by the names that the pipeline has for them."""
        names = self.request.outputs or [tensor.name for tensor in self.spec.outputs]
        found = [(name, self._made[name].ref) for name in names]
        return tuple([replace(ref, name=name) for name, ref in found if ref is not None])

    def timing(self) -> Timing | None:
        """How time was spent, from the first step's sending to the last one's end."""
        if not self._timings:
            return None
        last = max(self._timings, key=lambda timing: timing.ended_ns)
        return Timing(
            arrival_ns=self.request.arrival_ns,
            sent_ns=min(timing.sent_ns for timing in self._timings),
            started_ns=min(timing.started_ns for timing in self._timings),
            ended_ns=last.ended_ns,
            executor=last.executor,
            rows=last.rows,
            attempts=max(timing.attempts for timing in self._timings),
            predicted_ns=min(FOREVER_NS, self.request.arrival_ns + self.expected_ns),
        )

    def _takers(self, tensor: str) -> set[int]:
        """The steps that take a tensor in; the client counts as one after the last."""
        steps = self.spec.steps
        takers = {at for at in range(len(steps)) if any(wire.tensor == tensor for wire in steps[at].inputs)}
        return takers | {len(steps)} if tensor in self._wanted else takers
