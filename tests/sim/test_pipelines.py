"""Pipelines in virtual time: one reply to each request whatever happens, and which rule for deadlines serves best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from slotwise.config import Config, ConfigError
from slotwise.edges.logs.recorder import LogRecorder
from slotwise.edges.logs.rows import RequestRow
from slotwise.engine.journal import Journal, replay
from slotwise.engine.ports import Recorder
from slotwise.engine.statistics import Statistics
from slotwise.explain.journal import explanations
from slotwise.facts.actions import Reply
from slotwise.facts.pipeline import expected_ns, expected_rest_ns
from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, Outcome, Reason, Request, Step, TensorSpec, Wire
from slotwise.facts.units import MS, S
from slotwise.pipelines.deadlines import Deadlines
from slotwise.policy.presets import build_controller
from slotwise.sim.checks import Checks
from slotwise.sim.fleet import FleetSettings, SimSlice
from slotwise.sim.world import World
from slotwise.simulation.reading import read_scenario
from slotwise.simulation.running import run
from slotwise.workload.arrivals import arrivals
from slotwise.workload.values import Arrival, Phase, Stream, Workload

EXECUTORS = 2
WARM_UP_S = 1.0


def model(name: str, run_ms: float) -> ModelSpec:
    profile = Profile(rows=(1,), run_ns=(int(run_ms * MS),), load_ns=1 * MS, memory_bytes=100)
    return ModelSpec(id=f"{name}/1", name=name, version="1", profile=profile, slo_ns=10 * S)


def step(member: str, inputs: str, outputs: str) -> Step:
    """A step by the names of its tensors, one word each."""
    ins = tuple(Wire(name=f"in{at}", tensor=tensor) for at, tensor in enumerate(inputs.split()))
    return Step(
        model=f"{member}/1",
        inputs=ins,
        outputs=tuple(Wire(name=f"out{at}", tensor=tensor) for at, tensor in enumerate(outputs.split())),
    )


def pipeline(name: str, members: Sequence[ModelSpec], *steps: Step, slo_ns: int = 10 * S) -> ModelSpec:
    """Takes tensor `in`, gives tensor `out`."""
    times = expected_ns(steps, {spec.id: spec for spec in members}, 1)
    profile = Profile(rows=(1,), run_ns=(max(expected_rest_ns(steps, times)),), load_ns=0, memory_bytes=0)
    tensor = TensorSpec(name="in", datatype="FP32", shape=(1,))
    return ModelSpec(
        id=f"{name}/1",
        name=name,
        version="1",
        profile=profile,
        slo_ns=slo_ns,
        inputs=(tensor,),
        outputs=(replace(tensor, name="out"),),
        steps=steps,
    )


MEMBERS = [model("a", 4), model("b", 10), model("c", 6), model("d", 2)]
DIAMOND = pipeline(
    "diamond",
    MEMBERS,
    step("a", "in", "x"),
    step("b", "x", "left"),
    step("c", "x", "right"),
    step("d", "left right", "out"),
)


class Replies:
    """What clients were told, by request."""

    def __init__(self) -> None:
        self.found: list[tuple[Request, Reply]] = []

    def take(self, request: Request, reply: Reply) -> None:
        self.found.append((request, reply))

    @property
    def last(self) -> Reply:
        return self.found[-1][1]


def system(
    specs: Sequence[ModelSpec],
    *,
    policy: str = "slotwise",
    replies: Replies | None = None,
    deadlines: Deadlines = Deadlines.EFFECTIVE,
    recorders: Sequence[Recorder] = (),
    pipeline_recorders: Sequence[Recorder] = (),
    executors: int = EXECUTORS,
) -> tuple[World, Checks]:
    checks = Checks({spec.id: spec for spec in specs})
    slices = tuple(SimSlice(executor=f"e{at}", memory_bytes=10_000) for at in range(executors))
    world = World(
        controller=build_controller(policy),
        models=specs,
        fleet=FleetSettings(slices=slices),
        seed=1,
        recorders=[checks, *recorders],
        on_reply=replies.take if replies is not None else None,
        deadlines=deadlines,
        pipeline_recorders=pipeline_recorders,
    )
    world.run(1 * S)
    return world, checks


def ask(world: World, spec: ModelSpec, slo_ms: float = 100, priority: int = 5) -> Request:
    return world.ask(Arrival(at_ns=0, model=spec.id, slo_ns=int(slo_ms * MS), rows=1, priority=priority))


def let_pass(world: World, ms: float) -> None:
    world.run(world.clock.now_ns() + int(ms * MS))


def test_branches_run_at_once_and_the_join_waits_for_both() -> None:
    replies = Replies()
    world, checks = system([*MEMBERS, DIAMOND], replies=replies)
    ask(world, DIAMOND)
    let_pass(world, 200)
    timing = replies.last.timing
    assert replies.last.outcome is Outcome.IN_TIME
    assert timing is not None
    assert 16 * MS <= timing.ended_ns - timing.arrival_ns < 17 * MS  # 4 + 10 + 2, and not the 6 beside
    assert checks.replies[Outcome.IN_TIME] == 4
    checks.finish()


def test_a_request_to_a_pipeline_is_a_cold_start_if_one_of_its_steps_is() -> None:
    rows: list[RequestRow] = []
    log = LogRecorder(rows.append, lambda _: None)
    world, _ = system([*MEMBERS, DIAMOND], executors=1, recorders=[log], pipeline_recorders=[log])
    for slo_ms in (1, 500):  # refused before any step; all members are there
        ask(world, DIAMOND, slo_ms)
        let_pass(world, 500)
    world.fleet.kill("e0")
    let_pass(world, 1)
    ask(world, DIAMOND, 500)  # there is nobody who could hold the first step's model
    let_pass(world, 500)
    found = [(row.result, row.is_coldstart) for row in rows if row.model_id == "diamond/1"]
    assert found == [("refused", 0), ("in_time", 0), ("refused", 1)]
    assert [row.is_coldstart for row in rows if row.model_id == "a/1"] == [0, 1]


def test_what_cannot_fit_even_without_waiting_is_refused_before_any_step_runs() -> None:
    replies = Replies()
    world, checks = system([*MEMBERS, DIAMOND], replies=replies)
    request = ask(world, DIAMOND, slo_ms=15.9)
    let_pass(world, 0)
    assert (replies.last.outcome, replies.last.reason) == (Outcome.REFUSED, Reason.INFEASIBLE)
    assert replies.last.predicted_ns - request.arrival_ns == 16 * MS
    assert not checks.replies


def test_a_step_that_is_turned_away_ends_the_whole_in_its_name() -> None:
    replies = Replies()
    world, checks = system([*MEMBERS, DIAMOND], replies=replies, executors=1)
    ask(world, DIAMOND, slo_ms=20)  # 16 on two executors, 22 on one
    let_pass(world, 100)
    assert replies.last.outcome is Outcome.DROPPED
    assert replies.last.reason is Reason.EXPIRED
    assert "step 3 of 4 (c/1)" in replies.last.message
    assert checks.replies[Outcome.CANCELLED] == 1  # its sibling
    checks.finish()


@pytest.mark.parametrize("after_ms", [0, 2, 6, 15])
def test_a_cancelled_pipeline_is_answered_once_and_runs_no_further(after_ms: float) -> None:
    replies = Replies()
    world, checks = system([*MEMBERS, DIAMOND], replies=replies)
    request = ask(world, DIAMOND)
    let_pass(world, after_ms)
    world.cancel(request.id)
    world.cancel(request.id)
    let_pass(world, 100)
    assert [reply.outcome for _, reply in replies.found] == [Outcome.CANCELLED]
    assert checks.replies[Outcome.IN_TIME] == {0: 0, 2: 0, 6: 1, 15: 3}[after_ms]
    assert world.relay.under_way() == 0
    checks.finish()


@pytest.mark.parametrize("at_ms", [1, 5, 12, 15])
def test_an_executor_killed_at_any_step_costs_no_answer(at_ms: float) -> None:
    replies = Replies()
    world, checks = system([*MEMBERS, DIAMOND], replies=replies)
    for _ in range(3):
        ask(world, DIAMOND, slo_ms=1000)
    let_pass(world, at_ms)
    world.fleet.kill("e0")
    let_pass(world, 2000)
    assert [reply.outcome for _, reply in replies.found] == [Outcome.IN_TIME] * 3
    checks.finish()


def test_under_load_faults_and_cancellations_every_request_gets_one_reply_and_the_journal_replays() -> None:
    file = BytesIO()
    counts = Statistics()
    replies = Replies()
    journal = Journal(file, {"policy": "slotwise", "settings": {}})
    world, checks = system([*MEMBERS, DIAMOND], replies=replies, recorders=[journal], pipeline_recorders=[counts])
    streams = (
        Stream(model=DIAMOND.id, rate_per_s=80, slo_ns=60 * MS),
        Stream(model="a/1", rate_per_s=50, slo_ns=40 * MS),
    )
    world.on_ask = lambda request: world.cancel(request.id) if request.id % 17 == 0 else None
    start_ns = world.clock.now_ns()
    phases = (Phase(duration_s=start_ns / S, scale=0.0), Phase(duration_s=3))
    world.feed(arrivals(Workload(streams=streams, phases=phases, seed=5)))
    for at_ms in (300, 900, 1700):
        world.run(start_ns + at_ms * MS)
        world.fleet.kill("e1")
    world.run(start_ns + 2400 * MS)
    world.fleet.hang("e0")
    world.run(start_ns + 20 * S)
    checks.finish()
    assert world.front.unanswered() == world.relay.under_way() == 0
    tally = world.front.tally(DIAMOND.id)
    assert sum(tally.outcomes.values()) == tally.offered
    assert {Outcome.IN_TIME, Outcome.CANCELLED} < tally.outcomes.keys()
    told = {one.outcome: 0 for one in counts.model(DIAMOND.id).outcomes}
    for one in counts.model(DIAMOND.id).outcomes:
        told[one.outcome] += one.count
    assert told == {outcome.value: count for outcome, count in tally.outcomes.items()}
    replayed = replay(file.getvalue().splitlines(keepends=True)[1:], build_controller("slotwise"))
    assert replayed.difference is None
    assert replayed.turns > 100


SIMULATION = """
seconds = 2
[[models]]
name = "detect"
rows = [1, 2]
run_ms = [8, 15]
rate_per_s = 20
slo_ms = 100
[[models]]
name = "read"
rows = [1]
run_ms = [12]
rate_per_s = 0
slo_ms = 100
[[pipelines]]
name = "both"
stages = [["detect"], ["read", "detect"]]
rate_per_s = 20
slo_ms = 80
"""


def test_a_simulation_s_file_may_have_pipelines_and_its_journal_tells_of_their_steps(tmp_path: Path) -> None:
    spec, journal = tmp_path / "spec.toml", tmp_path / "journal"
    spec.write_text(SIMULATION)
    with journal.open("wb") as file:
        report = run(read_scenario(spec), journal=file, logs=tmp_path / "logs")
    told = {one.model: one for one in report.models}
    assert told["both"].in_time > 0.9 * told["both"].offered > 20
    assert told["read"].offered == 0
    assert 20 <= told["both"].latency_ms_p50 < 40
    (log,) = (tmp_path / "logs").glob("requests-*.csv")
    assert log.read_text().count("both/1") == told["both"].offered
    assert log.read_text().count("read/1") == told["both"].offered
    first = next(one for one in range(1, 100) if (found := explanations(journal, request=one)) and found[0].steps)
    (story,) = explanations(journal, request=first)
    assert [(one.step, one.model) for one in story.steps] == [(1, "detect/1"), (2, "read/1"), (3, "detect/1")]
    assert story.why.startswith("answered")
    assert all(one.allowed_ms is not None and one.allowed_ms <= 80 for one in story.steps)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('["read", "detect"]', '["write"]', "there is no model 'write'"),
        ('["read", "detect"]', "[]", "must name a model"),
        ('"both"', '"read"', "two models have the same name"),
    ],
)
def test_a_simulation_s_pipeline_that_cannot_be_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(SIMULATION.replace(old, new))
    with pytest.raises(ConfigError, match=words):
        read_scenario(spec)


# Which rule for deadlines. Three pipelines beside two single models.

MIX = [model("detect", 8), model("crop", 1), model("read", 12), model("sort", 3), model("say", 6), model("solo", 5)]
SHORT = pipeline("short", MIX, step("crop", "in", "x"), step("sort", "x", "out"))
LONG = pipeline("long", MIX, step("detect", "in", "x"), step("crop", "x", "y"), step("read", "y", "out"))
FORK = pipeline(
    "fork", MIX, step("detect", "in", "x"), step("sort", "x", "y"), step("say", "x", "z"), step("crop", "y z", "out")
)
SINGLE = [MIX[-1], MIX[2]]
"""Asked for by themselves as well."""
WORK_MS = {SHORT.id: 4, LONG.id: 21, FORK.id: 18, "solo/1": 5, "read/1": 12}
DURATION_S = 3.0
MULTIPLES = (2.0, 3.0)
"""Allowances as multiples of the time that a pipeline takes without waiting."""


def answered_per_s(load: float, multiple: float, deadlines: Deadlines) -> float:
    """Answers in time, where each of the five asks for the same share of the work."""
    world, checks = system([*MIX, SHORT, LONG, FORK], deadlines=deadlines)
    asked = [SHORT, LONG, FORK, *SINGLE]
    streams = tuple(
        Stream(
            model=spec.id,
            rate_per_s=load * EXECUTORS * 1000 / WORK_MS[spec.id] / len(asked),
            slo_ns=int(multiple * spec.profile.run_ns[0]),
        )
        for spec in asked
    )
    phases = (Phase(duration_s=WARM_UP_S, scale=0.0), Phase(duration_s=DURATION_S))
    world.feed(arrivals(Workload(streams=streams, phases=phases, seed=3)))
    world.run(int((WARM_UP_S + DURATION_S + 5) * S))
    checks.finish()
    return world.front.tally().in_time / DURATION_S


@pytest.mark.slow
def test_the_default_rule_for_deadlines_answers_most_at_each_load() -> None:
    default = Config().pipeline_deadlines
    others = [rule for rule in Deadlines if rule is not default]
    for load in (0.8, 1.5, 3.0):
        best = sum(answered_per_s(load, multiple, default) for multiple in MULTIPLES)
        for rule in others:
            assert best >= sum(answered_per_s(load, multiple, rule) for multiple in MULTIPLES), (load, rule)
