"""What follows from a pipeline's steps and times alone: how long the rest takes, and which part each may take."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotwise.engine.clock import VirtualClock
from slotwise.facts.actions import Reply
from slotwise.facts.events import Arrived, Cancelled, Event, ModelAdded, PipelineEnded
from slotwise.facts.pipeline import expected_ns, expected_rest_ns, needed
from slotwise.facts.profile import Profile
from slotwise.facts.types import FOREVER_NS, ModelSpec, Outcome, Request, Step, TensorRef, TensorSpec, Timing, Wire
from slotwise.pipelines.course import Course
from slotwise.pipelines.deadlines import RULES, Deadlines, effective_ns, equal_flexibility_ns
from slotwise.pipelines.relay import Relay
from slotwise.pipelines.tensors import Tensors
from slotwise.sim.front import SimFront
from slotwise.sim.world import NoTensors

TIMES = st.integers(min_value=1, max_value=10**12)


def step(model: str, inputs: str, outputs: str) -> Step:
    """Each model calls a tensor as the pipeline does."""
    ins, outs = ([Wire(name=name, tensor=name) for name in names.split()] for names in (inputs, outputs))
    return Step(model=model, inputs=tuple(ins), outputs=tuple(outs))


DIAMOND = (step("a", "in", "x"), step("b", "x", "left"), step("c", "x", "right"), step("d", "left right", "out"))


def test_the_rest_is_the_longest_way_to_the_end() -> None:
    assert expected_rest_ns(DIAMOND, [4, 10, 6, 2]) == [16, 12, 8, 2]
    assert expected_rest_ns((step("a", "in", "x"), step("b", "in", "y")), [3, 5]) == [3, 5]


def test_steps_whose_outputs_nobody_asked_for_are_left_out() -> None:
    assert needed(DIAMOND, ["left"]) == DIAMOND[:2]
    assert needed(DIAMOND, ["out"]) == needed(DIAMOND, ["out", "left"]) == DIAMOND


def test_times_are_those_of_the_models_profiles_for_so_many_rows() -> None:
    profile = Profile(rows=(1, 2), run_ns=(10, 16), load_ns=0, memory_bytes=0)
    spec = ModelSpec(id="a", name="a", version="1", profile=profile, slo_ns=1)
    assert expected_ns(DIAMOND[:2], {"a": spec}, 2) == [16, 0]


def test_the_effective_deadline_leaves_those_after_it_their_time() -> None:
    assert effective_ns(0, 100, 20, 50) == 70


def test_equal_flexibility_shares_spare_time_in_proportion() -> None:
    assert equal_flexibility_ns(0, 100, 20, 50) == 40  # 20, and 20 of the 50 to spare
    assert equal_flexibility_ns(40, 100, 30, 30) == 100
    assert equal_flexibility_ns(10, 100, 30, 30) == 100, "the last one has all that is left"


@pytest.mark.parametrize("rule", Deadlines)
def test_without_a_deadline_steps_have_none(rule: Deadlines) -> None:
    assert RULES[rule](5, FOREVER_NS, 20, 50) == FOREVER_NS


@given(now=TIMES, spare=st.integers(min_value=0, max_value=10**12), run=TIMES, after=TIMES)
def test_each_rule_leaves_a_step_and_those_after_it_their_time(now: int, spare: int, run: int, after: int) -> None:
    deadline_ns = now + spare + run + after
    for rule in RULES.values():
        own_ns = rule(now, deadline_ns, run, run + after)
        assert now + run <= own_ns <= deadline_ns - after


def course(outputs: tuple[str, ...] = ()) -> Course:
    tensors = {name: TensorSpec(name=name, datatype="FP32", shape=(1,)) for name in ("in", "out", "left")}
    profile = Profile(rows=(1,), run_ns=(16,), load_ns=0, memory_bytes=0)
    spec = ModelSpec(
        id="p",
        name="p",
        version="1",
        profile=profile,
        slo_ns=1,
        inputs=(tensors["in"],),
        outputs=(tensors["out"], tensors["left"]),
        steps=DIAMOND,
    )
    request = Request(
        id=1, model="p", arrival_ns=0, deadline_ns=100, inputs=(ref("in"),), regions=(640,), outputs=outputs
    )
    return Course(request, spec, [4, 10, 6, 2], [16, 12, 8, 2])


def test_a_client_that_goes_away_has_its_steps_cancelled_before_anything_else_can_happen() -> None:
    """The memory that they read from may be gone with it."""
    clock, nothing = VirtualClock(), NoTensors()
    posted: list[Event] = []
    front = SimFront(clock)
    members = {name: replace(course().spec, id=name, steps=()) for name in "abcd"}
    relay = Relay(
        post=posted.append,
        front=front,
        clock=clock,
        request_ids=itertools.count(2),
        members=members,
        tensors=Tensors(nothing, nothing),
    )
    relay.post(ModelAdded(spec=course().spec))
    request = replace(course().request, inputs=(), regions=())
    front.expect(request)
    relay.post(Arrived(request=request))
    relay.post(Cancelled(request_id=1))
    assert [type(event) for event in posted] == [Arrived, Cancelled]
    assert posted[1] == Cancelled(request_id=2)
    assert front.unanswered() == 1
    clock.run(0)
    assert front.unanswered() == 0
    assert isinstance(posted[2], PipelineEnded)
    relay.reply(Reply(request_id=2, outcome=Outcome.IN_TIME))  # it crossed the cancellation, and is nobody's
    assert len(posted) == 3


def ref(name: str, offset: int = 0) -> TensorRef:
    return TensorRef(name=name, datatype="FP32", shape=(1,), segment=0, offset=offset, nbytes=4)


def test_a_step_is_ready_once_when_all_that_it_takes_is_there() -> None:
    made = course()
    assert made.take_ready() == [0]
    made.note_made(0, [ref("x", 64)], 64)
    assert made.take_ready() == [1, 2]
    made.note_made(1, [ref("left", 128)], 128)
    assert made.take_ready() == []
    made.note_made(2, [ref("right", 192)], 192)
    assert made.take_ready() == [3]
    assert [one.offset for one in made.inputs(3)] == [128, 192]
    assert made.regions(3) == (128, 192)
    assert made.is_complete()


def test_a_copy_is_let_go_of_when_its_last_taker_has_ended_and_the_clients_at_the_end() -> None:
    made = course()
    made.note_made(0, [ref("x", 64)], 64)
    assert made.take_idle(0) == made.take_idle(1) == []
    assert made.take_idle(2) == [64]
    made.note_made(1, [ref("left", 128)], 128)
    assert made.take_idle(3) == []
    assert list(made.copies) == [128]
    narrow = course(outputs=("out",))
    narrow.note_made(1, [ref("left", 128)], 128)
    assert narrow.take_idle(3) == [128]


def test_outputs_that_nobody_takes_are_not_asked_of_a_step() -> None:
    made = course(outputs=("left",))
    made.spec = replace(made.spec, steps=(step("a", "in", "x spare"), *DIAMOND[1:3], step("d", "left", "out")))
    assert made.outputs(0) == ("x",)
    assert course().outputs(1) == ("left",)


def test_the_whole_s_timing_spans_the_steps() -> None:
    made = course()
    assert made.timing() is None
    for sent_ns, executor in ((5, "e0"), (9, "e1")):
        made.note(
            Timing(
                arrival_ns=sent_ns,
                sent_ns=sent_ns,
                started_ns=sent_ns + 1,
                ended_ns=sent_ns + 3,
                executor=executor,
                rows=2,
                attempts=1,
                predicted_ns=0,
            )
        )
    timing = made.timing()
    assert timing is not None
    assert (timing.arrival_ns, timing.sent_ns, timing.started_ns, timing.ended_ns) == (0, 5, 6, 12)
    assert (timing.executor, timing.predicted_ns) == ("e1", 16)
