"""The form of a simulation's file: what may stand in it, of which kind, and within which bounds.

Only what can be said of one value by itself stands here; what several must agree on is checked in `agreement`. Names of
keys end in their unit.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from slotwise.facts.types import PRIORITY_DEFAULT, PRIORITY_HIGHEST, PRIORITY_LOWEST
from slotwise.workload.form import WorkloadPart

NUMBER_MAX = 1e9
Positive = Annotated[float, msgspec.Meta(gt=0, le=NUMBER_MAX)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=NUMBER_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0, le=int(NUMBER_MAX))]
Copies = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Devices = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Part = Annotated[float, msgspec.Meta(gt=0, le=1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Priority = Annotated[int, msgspec.Meta(ge=PRIORITY_HIGHEST, le=PRIORITY_LOWEST)]


class ModelPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model, or several copies of one. Its times are those of a `profile` by name, or stand here.

    `input_kib` is what the inputs of a row take on a link.
    `run_ms[i]` is the time of a batch of `rows[i]`. Requests come at `rate_per_s` times the scale, to all copies
    together.
    """

    name: Name
    slo_ms: Positive
    profile: str = ""
    copies: Copies = 1
    rows: tuple[Count, ...] = ()
    run_ms: tuple[Positive, ...] = ()
    load_ms: Amount | None = None
    memory_mib: Amount | None = None
    input_kib: Amount = 0.0
    rate_per_s: Amount = 0.0
    batch_max: Count = 0
    """0 takes the largest measured batch."""
    priority: Priority = PRIORITY_DEFAULT
    weight: Positive = 1.0


class PipelinePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pipeline of models by their names: those of one stage run at once, after all of the stage before."""

    name: Name
    stages: tuple[tuple[str, ...], ...]
    slo_ms: Positive
    rate_per_s: Amount = 0.0
    priority: Priority = PRIORITY_DEFAULT


class FleetPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is common to all executors, and how they differ from their profiles. 0 is no limit to memory and links.

    `executors` alike, who share `memory_mib`, are all there is where no node is described.
    """

    executors: Devices | None = None
    memory_mib: Amount = 0.0
    link_us: Amount = 50.0
    link_spread: Share = 0.0
    link_mbit_s: Amount = 0.0
    restart_ms: Amount = 200.0
    spread: Amount = 0.0
    load_spread: Amount = 0.0
    overrun_share: Share = 0.0
    overrun_factor: Amount = 10.0


class KindPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of device. Memory 0 is without limit.

    `profiles` names, for models that are to have another one there, their profile on this kind.
    """

    name: Name
    memory_mib: Amount = 0.0
    page_mib: Positive = 1.0
    slowness: Positive = 1.0
    price_per_h: Amount = 0.0
    profiles: dict[str, str] = {}


class SlicePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a device, with as large a part of its memory. As much slower as it is smaller, if nothing is said."""

    share: Part
    slowness: Positive | None = None


class DevicePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Devices of one kind, whole or each cut into the same slices."""

    kind: str
    count: Devices = 1
    slices: tuple[SlicePart, ...] = ()


class NodePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Machines alike. `link_us` is what an action or an event takes to cross; that of the fleet, if nothing is said."""

    name: Name
    devices: tuple[DevicePart, ...]
    count: Devices = 1
    link_us: Amount | None = None


class FaultPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that goes wrong `at_s` after the first request, at an executor, a device or a whole node.

    One that is killed stays away for `for_s`; one that is slow, by `factor`, is mended after it.
    """

    at_s: Amount
    do: Literal["kill", "hang", "slow"]
    where: Name
    for_s: Amount | None = None
    factor: Positive = 2.0


class ChancePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes wrong by chance: mean times between faults of the whole fleet, 0 for never; clients that go away."""

    kill_every_s: Amount = 0.0
    hang_every_s: Amount = 0.0
    cancelled_share: Share = 0.0
    patience_ms: Positive = 20.0


class CapacityPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `slotwise capacity` is to find: the least count of devices at which `target` of all requests are in time."""

    target: Part = 0.99
    devices_max: Devices = 64
    every_model: bool = False
    """Whether each model's requests must reach the target by themselves."""
    kinds: tuple[str, ...] = ()
    """Those to try; all of `[[kinds]]` if none is named."""


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole simulation. Requests come at the models' own rates, or as the workload says.

    A workload by name brings its models along where none is described.
    """

    models: tuple[ModelPart, ...] = ()
    pipelines: tuple[PipelinePart, ...] = ()
    fleet: FleetPart = FleetPart()
    kinds: tuple[KindPart, ...] = ()
    nodes: tuple[NodePart, ...] = ()
    faults: tuple[FaultPart, ...] = ()
    chance: ChancePart = ChancePart()
    workload: WorkloadPart | None = None
    capacity: CapacityPart = CapacityPart()
    profiles: tuple[str, ...] = ()
    """Files that `slotwise profile --json` wrote; models name what stands in them as they name what is shipped."""
    policy: str = "slotwise"
    policy_settings: dict[str, object] = {}
    seed: int = 1
    seconds: Positive | None = None
    """How long requests come; as long as the workload says, or for a minute."""
    warm_up_s: Amount = 10.0
    """Models are loaded first; requests begin to come this late."""
