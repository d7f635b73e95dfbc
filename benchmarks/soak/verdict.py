"""What a soak comes to: whether requests were left unanswered, whether memory and descriptors stayed level. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import msgspec

from soak.samples import Process, Sample

WARM_UP = 0.25
"""The first part of a run, in which pools and caches fill, has no say in slopes."""
END_SAMPLES_MAX = 20
"""So many samples at most, at either end, are summed up by their median."""
MIB_PER_H_MAX = 4.0
"""The front may grow by so much and still be called flat; a night of it is what a model takes."""
DESCRIPTORS_MAX = 3
"""More descriptors in the last quarter than in the first are a leak if there are more than these."""
ROLES = ("front", "zygote", "grpc_door", "executors")
S_PER_H = 3600.0


class Slope(msgspec.Struct, frozen=True):
    """A role over the last three quarters of a run, the largest process where there are several."""

    role: str
    pss_mib: float
    """At the end."""
    pss_mib_per_h: float
    anon_mib_per_h: float
    descriptors_first: float
    """In the first quarter, which the last one is compared with."""
    descriptors_last: float
    mappings_first: float
    mappings_last: float
    threads_first: float
    threads_last: float


class Leftovers(msgspec.Struct, frozen=True):
    """What was found after the server had been told to end."""

    exit_status: int | None
    """None where it had to be killed."""
    orphans: int
    files: list[str]
    """In its folder for temporary files, and its socket."""
    segments: int
    """Shared memory that its clients, all closed, still hold."""
    models_missing: list[str]
    """Not on offer when everything had been mended, before the end."""


class Verdict(msgspec.Struct, frozen=True, tag="verdict"):
    """The whole run."""

    minutes: float
    requests: int
    unanswered: int
    wrong: int
    surplus: int
    door_killed: int
    counts: dict[str, int]
    """Requests by way and end, as `http ok`."""
    faults: dict[str, int]
    slopes: list[Slope]
    leftovers: Leftovers
    complaints: list[str]
    """What makes the run a failure; none when it passed."""
    remarks: list[str]
    """What did not stay level."""


def slopes(samples: Sequence[Sample]) -> list[Slope]:
    """Every role's, of those that were there at both ends."""
    return [slope for role in ROLES for slope in [_slope(samples, role)] if slope is not None]


def complaints(counts: dict[str, int], left: Leftovers) -> list[str]:
    """What must not be, in words."""
    found = [f"{count} requests were {end}" for end, count in counts.items() if count]
    if left.exit_status != 0:
        found.append(f"the server ended with {left.exit_status}" if left.exit_status else "the server had to be killed")
    if left.orphans:
        found.append(f"{left.orphans} processes outlived the server")
    if left.files:
        found.append(f"files were left behind: {', '.join(left.files)}")
    if left.segments:
        found.append(f"{left.segments} pieces of shared memory were left with clients that had closed")
    if left.models_missing:
        found.append(f"models did not come back: {', '.join(left.models_missing)}")
    return found


def remarks(found: Sequence[Slope]) -> list[str]:
    """What did not stay level, in words."""
    told = []
    for slope in found:
        if slope.role == "front" and slope.pss_mib_per_h > MIB_PER_H_MAX:
            told.append(f"the front grew by {slope.pss_mib_per_h:.1f} MiB/h")
        if slope.descriptors_last > slope.descriptors_first + DESCRIPTORS_MAX:
            told.append(f"{slope.role}: descriptors {slope.descriptors_first:g} to {slope.descriptors_last:g}")
        if slope.mappings_last > slope.mappings_first + DESCRIPTORS_MAX:
            told.append(f"{slope.role}: mappings {slope.mappings_first:g} to {slope.mappings_last:g}")
        if slope.threads_last > slope.threads_first + DESCRIPTORS_MAX:
            told.append(f"{slope.role}: threads {slope.threads_first:g} to {slope.threads_last:g}")
    return told


def _slope(samples: Sequence[Sample], role: str) -> Slope | None:
    seen = [sample for sample in samples if sample.of(role)]
    late = seen[int(len(seen) * WARM_UP) :]
    number = max(1, min(END_SAMPLES_MAX, len(late) // 4))
    first, last = late[:number], late[-number:]
    if not first:
        return None
    quarter = max(1, len(seen) // 4)
    early, end = seen[:quarter], seen[-quarter:]
    span_h = (median(one.at_s for one in last) - median(one.at_s for one in first)) / S_PER_H

    def middle(chosen: Sequence[Sample], figure: Callable[[Process], float]) -> float:
        return median(max(figure(process) for process in sample.of(role)) for sample in chosen)

    def per_h(figure: Callable[[Process], float]) -> float:
        return round((middle(last, figure) - middle(first, figure)) / span_h, 2) if span_h else 0.0

    return Slope(
        role=role,
        pss_mib=middle(last, lambda one: one.pss_mib),
        pss_mib_per_h=per_h(lambda one: one.pss_mib),
        anon_mib_per_h=per_h(lambda one: one.anon_mib),
        descriptors_first=middle(early, lambda one: one.descriptors),
        descriptors_last=middle(end, lambda one: one.descriptors),
        mappings_first=middle(early, lambda one: one.mappings),
        mappings_last=middle(end, lambda one: one.mappings),
        threads_first=middle(early, lambda one: one.threads),
        threads_last=middle(end, lambda one: one.threads),
    )
