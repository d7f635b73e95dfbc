"""Models to simulate: a name, a profile, and so many copies."""

from __future__ import annotations

from slotwise.facts.profile import Profile
from slotwise.facts.types import PRIORITY_DEFAULT, ModelSpec


def copy_names(name: str, count: int) -> tuple[str, ...]:
    """`resnet50` alone; of several, `resnet50-0`, `resnet50-1` and so on."""
    return (name,) if count == 1 else tuple(f"{name}-{index}" for index in range(count))


def copies(
    name: str,
    profile: Profile,
    count: int = 1,
    *,
    slo_ns: int,
    batch_max: int | None = None,
    priority: int = PRIORITY_DEFAULT,
    weight: float = 1.0,
) -> tuple[ModelSpec, ...]:
    """So many models of one profile, each with weights of its own; ids are `NAME/1`, names as `copy_names` makes them.

    `batch_max` is the largest measured batch where it is not given.
    """
    largest = profile.rows[-1]
    return tuple(
        ModelSpec(
            id=f"{copy}/1",
            name=copy,
            version="1",
            profile=profile,
            slo_ns=slo_ns,
            batch_max=largest if batch_max is None else batch_max,
            priority=priority,
            weight=weight,
            batchable=largest > 1,
        )
        for copy in copy_names(name, count)
    )
