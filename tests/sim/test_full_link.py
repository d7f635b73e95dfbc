"""A node behind a link that inputs fill up: what cannot be there in time is told so, and harms nobody else."""

from __future__ import annotations

from collections import Counter

from slotwise.facts.actions import Action, RunBatch
from slotwise.facts.events import BatchFailed, Event
from slotwise.facts.profile import Profile
from slotwise.facts.types import Failure, Outcome
from slotwise.facts.units import MS, S
from slotwise.policy.presets import build_controller
from slotwise.sim.fleet import FleetSettings, SimSlice
from slotwise.sim.world import World
from slotwise.simulation.models import copies
from slotwise.workload.player import player_of
from slotwise.workload.values import Phase, Stream, Workload

ROW_BYTES = 600_000
GIGABIT = 125e6
"""Bytes a second, so a row takes 4.8 ms to be sent, and 208 rows a second fill the link."""
PROFILE = Profile(rows=(1, 2), run_ns=(1 * MS, 2 * MS), load_ns=MS, memory_bytes=1)


class Seen:
    """Batches that were sent and came back unsent."""

    def __init__(self) -> None:
        self.unsent = 0
        self.under_way_max = 0
        self._under_way: set[int] = set()

    def record(self, now_ns: int, events: list[Event], actions: list[Action]) -> None:
        for event in events:
            self._under_way.discard(getattr(event, "batch_id", -1))
            self.unsent += type(event) is BatchFailed and event.failure is Failure.TOO_LATE
        self._under_way.update(action.batch_id for action in actions if type(action) is RunBatch)
        self.under_way_max = max(self.under_way_max, len(self._under_way))


def test_what_cannot_be_sent_in_time_comes_back_and_no_backlog_grows() -> None:
    models = copies("pictures", PROFILE, slo_ns=40 * MS)
    outcomes: Counter[Outcome] = Counter()
    seen = Seen()
    world = World(
        controller=build_controller("slotwise"),
        models=models,
        fleet=FleetSettings(
            slices=(SimSlice(executor="a", node="n"), SimSlice(executor="b", node="n")),
            link_ns=MS // 4,
            link_bytes_per_s=GIGABIT,
            row_bytes={models[0].id: ROW_BYTES},
            is_far=True,
        ),
        seed=1,
        recorders=(seen,),
        on_reply=lambda _, reply: outcomes.update([reply.outcome]),
    )
    workload = Workload(
        streams=(Stream(model=models[0].id, rate_per_s=600.0, slo_ns=40 * MS),), phases=(Phase(duration_s=5.0),), seed=1
    )
    world.play(player_of(workload), 1 * S)
    world.run(10 * S)

    assert seen.unsent > 0
    assert seen.under_way_max <= 4, "two executors with two batches each"
    assert outcomes[Outcome.FAILED] == 0
    assert outcomes[Outcome.IN_TIME] > 0.9 * 5 * GIGABIT / ROW_BYTES, "the link is used for what can be in time"
    assert outcomes[Outcome.LATE] <= 0.01 * sum(outcomes.values())
