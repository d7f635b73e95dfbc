"""What follows from a pipeline's steps alone: who waits for whom, and how long the rest takes. Pure.

Steps stand in an order in which each comes after those that make its inputs; who makes a pipeline sees to that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from slotwise.facts.types import ModelSpec, Step


def expected_rest_ns(steps: Sequence[Step], expected_ns: Sequence[int]) -> list[int]:
    """For each step, how long it and the longest way from it to the end are expected to take.

    `expected_ns` is the time of each step alone. The greatest of the result is that of the whole.
    """
    rest_ns = [0] * len(steps)
    after_ns: dict[str, int] = {}
    """By tensor, the longest rest of those that take it in."""
    for at in reversed(range(len(steps))):
        step = steps[at]
        rest_ns[at] = expected_ns[at] + max((after_ns.get(wire.tensor, 0) for wire in step.outputs), default=0)
        for wire in step.inputs:
            after_ns[wire.tensor] = max(after_ns.get(wire.tensor, 0), rest_ns[at])
    return rest_ns


def needed(steps: Sequence[Step], tensors: Collection[str]) -> tuple[Step, ...]:
    """The steps without which these tensors are not made, in their order."""
    wanted = set(tensors)
    found: list[Step] = []
    for step in reversed(steps):
        if any(wire.tensor in wanted for wire in step.outputs):
            found.append(step)
            wanted.update(wire.tensor for wire in step.inputs)
    return tuple(reversed(found))


def expected_ns(steps: Sequence[Step], members: Mapping[str, ModelSpec], rows: int) -> list[int]:
    """The time that a run of each step of so many rows takes by its model's profile; 0 for one that is not known."""
    known = [members.get(step.model) for step in steps]
    return [0 if spec is None else spec.profile.expected_ns(rows) for spec in known]
