"""Small systems in virtual time for the tests of this folder, all of ResNet50 as Clockwork's paper measured it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from slotwise.engine.ports import Recorder
from slotwise.facts.actions import Action, Load, Reply, RunBatch
from slotwise.facts.events import BatchDone, BatchFailed, Event
from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, Request
from slotwise.facts.units import MS, S
from slotwise.policy.presets import build_controller
from slotwise.sim.checks import Checks
from slotwise.sim.fleet import FleetSettings, Noise, SimSlice
from slotwise.sim.world import World
from slotwise.workload.arrivals import arrivals
from slotwise.workload.values import Arrival, Phase, Stream, Workload

PAGE_BYTES = 16 << 20
QUIET = Noise()
RESNET50 = Profile(
    rows=(1, 2, 4, 8, 16),
    run_ns=(2_610_000, 3_780_000, 5_610_000, 9_130_000, 15_670_000),
    load_ns=8_330_000,
    memory_bytes=7 * PAGE_BYTES,
)


def copies(count: int, slo_ns: int = 100 * MS, batch_max: int = 16, profile: Profile = RESNET50) -> list[ModelSpec]:
    """Models m0, m1, ... that are all alike."""
    return [
        ModelSpec(id=f"m{i}", name=f"m{i}", version="1", profile=profile, slo_ns=slo_ns, batch_max=batch_max)
        for i in range(count)
    ]


def system(
    policy: str,
    models: Sequence[ModelSpec],
    *,
    executors: int = 1,
    resident: int | None = None,
    noise: Noise = QUIET,
    restart_ns: int = 200 * MS,
    seed: int = 1,
    settings: Mapping[str, object] | None = None,
    recorders: Sequence[Recorder] = (),
    on_reply: Callable[[Request, Reply], None] | None = None,
) -> World:
    """A world under a policy, checked at every turn. `resident` models fit into an executor's memory, else all."""
    pages = 7 * (len(models) if resident is None else resident)
    slices = tuple(
        SimSlice(executor=f"e{i}", memory_bytes=pages * PAGE_BYTES, page_bytes=PAGE_BYTES) for i in range(executors)
    )
    return World(
        controller=build_controller(policy, settings=settings or {}),
        models=models,
        fleet=FleetSettings(slices=slices, noise=noise, restart_ns=restart_ns),
        seed=seed,
        recorders=[Checks({spec.id: spec for spec in models}), *recorders],
        on_reply=on_reply,
    )


def feed(world: World, rates_per_s: Mapping[str, float], duration_s: float, slo_ns: int, start_s: float = 0.0) -> None:
    """Open-loop Poisson arrivals of single rows, from `start_s` of the world's time on."""
    streams = tuple(Stream(model=model, rate_per_s=rate, slo_ns=slo_ns) for model, rate in rates_per_s.items())
    phases = (Phase(duration_s=duration_s),)
    if start_s:
        phases = (Phase(duration_s=start_s, scale=0.0), *phases)
    world.feed(arrivals(Workload(streams=streams, phases=phases, seed=7)))


def ask(world: World, model: str, slo_ns: int = 100 * MS) -> Request:
    """One request, now."""
    return world.ask(Arrival(at_ns=0, model=model, slo_ns=slo_ns, rows=1, priority=5))


def warm(world: World, models: Sequence[ModelSpec]) -> None:
    """Let every model be loaded and run once; a second passes."""
    for spec in models:
        ask(world, spec.id, slo_ns=1 * S)
    world.run(world.clock.now_ns() + 1 * S)


class Log:
    """A recorder that keeps what the tests ask about."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, RunBatch]] = []
        self.loads: list[tuple[int, Load]] = []
        self.replies: dict[int, tuple[int, Reply]] = {}
        self.done: list[tuple[int, BatchDone | BatchFailed]] = []

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Sort one turn."""
        self.done += [(now_ns, event) for event in events if isinstance(event, BatchDone | BatchFailed)]
        self.runs += [(now_ns, action) for action in actions if type(action) is RunBatch]
        self.loads += [(now_ns, action) for action in actions if type(action) is Load]
        self.replies |= {action.request_id: (now_ns, action) for action in actions if type(action) is Reply}
