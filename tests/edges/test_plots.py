"""Pictures of a timeline: a figure that opens, and a trace that a viewer can lay out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slotwise.edges.plots.perfetto import trace
from slotwise.edges.plots.timeline import PALETTE, colours, draw
from slotwise.facts.timeline import Asked, Bar, Loss, Mark, Scene, Timeline
from slotwise.facts.types import Outcome, Reason
from slotwise.facts.units import MS, S

START_NS = 1_000_000 * S
PNG = b"\x89PNG\r\n\x1a\n"


def bar(batch_id: int, executor: str, model: str, start_ms: int, length_ms: int, trouble: str = "") -> Bar:
    start_ns = START_NS + start_ms * MS
    return Bar(
        batch_id=batch_id,
        executor=executor,
        model=model,
        request_ids=(batch_id,),
        rows=1,
        sent_ns=start_ns - MS,
        started_ns=start_ns,
        ended_ns=start_ns + length_ms * MS,
        expected_ns=length_ms * MS,
        trouble=trouble,
    )


def asked(number: int, model: str, at_ms: int, outcome: Outcome | None, executor: str = "") -> Asked:
    at_ns = START_NS + at_ms * MS
    return Asked(
        id=number,
        model=model,
        arrival_ns=at_ns,
        deadline_ns=at_ns + 50 * MS,
        replied_ns=at_ns + 20 * MS if outcome else None,
        outcome=outcome,
        reason=Reason.OVERLOADED if outcome is Outcome.REFUSED else Reason.NONE,
        executor=executor,
    )


@pytest.fixture
def timeline() -> Timeline:
    """Something of every kind."""
    return Timeline(
        start_ns=START_NS,
        end_ns=START_NS + 2 * S,
        executors=("core0", "core1"),
        slo_ns={"cheap/1": 50 * MS, "dear/1": 500 * MS, "idle/1": MS},
        bars=(
            bar(1, "core0", "cheap/1", 10, 5),
            bar(2, "core0", "cheap/1", 20, 5),
            bar(3, "core1", "dear/1", 10, 300),
            bar(4, "core0", "dear/1", 700, 100, "executor_lost"),
        ),
        asked=(
            asked(1, "cheap/1", 5, Outcome.IN_TIME, "core0"),
            asked(2, "cheap/1", 12, Outcome.LATE, "core0"),
            asked(3, "dear/1", 9, Outcome.IN_TIME, "core1"),
            asked(4, "dear/1", 690, Outcome.DROPPED),
            asked(5, "dear/1", 695, Outcome.REFUSED),
            asked(6, "gone/1", 696, Outcome.FAILED),
            asked(7, "cheap/1", 1990, None),
        ),
        losses=(Loss(executor="core0", lost_ns=START_NS + 800 * MS, message="killed", back_ns=START_NS + 900 * MS),),
    )


@pytest.fixture
def scenes() -> list[Scene]:
    return [
        Scene(name="calm", caption="2/s", start_ns=START_NS, end_ns=START_NS + 600 * MS),
        Scene(name="fault", caption="3/s", start_ns=START_NS + 600 * MS, end_ns=START_NS + 2 * S),
    ]


@pytest.mark.slow
def test_a_timeline_with_something_of_every_kind_is_drawn(
    timeline: Timeline, scenes: list[Scene], tmp_path: Path
) -> None:
    marks = [Mark(executor="core0", at_ns=START_NS + 790 * MS, text="core0 killed")]
    draw(timeline, scenes, marks, tmp_path / "a.png", title="A title", subtitle="What it says")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_a_timeline_in_which_nothing_ran_is_drawn_too(scenes: list[Scene], tmp_path: Path) -> None:
    empty = Timeline(
        start_ns=START_NS, end_ns=START_NS + S, executors=("core0",), slo_ns={}, bars=(), asked=(), losses=()
    )
    draw(empty, scenes[:1], [], tmp_path / "a.png", title="Nothing", subtitle="")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_colours_run_from_the_cheapest_model_to_the_dearest(timeline: Timeline) -> None:
    assert colours(timeline) == dict(zip(("cheap/1", "dear/1", "gone/1"), PALETTE, strict=False))


def test_twenty_models_have_twenty_colours() -> None:
    assert len(set(PALETTE)) == len(PALETTE) == 20


def test_a_trace_has_a_named_track_for_each_executor_with_its_batches(timeline: Timeline, scenes: list[Scene]) -> None:
    document = json.loads(trace(timeline, scenes))
    events = document["traceEvents"]
    assert {event["ph"] for event in events} == {"X", "i", "M"}
    tracks = {(event["pid"], event["tid"]): event["args"]["name"] for event in events if event["name"] == "thread_name"}
    batches = [event for event in events if event.get("cat") == "batch"]
    assert [(tracks[event["pid"], event["tid"]], event["name"], event["ts"], event["dur"]) for event in batches] == [
        ("core0", "cheap/1", 10_000, 5_000),
        ("core0", "cheap/1", 20_000, 5_000),
        ("core1", "dear/1", 10_000, 300_000),
        ("core0", "dear/1", 700_000, 100_000),
    ]
    assert [(event["args"]["met"], event["args"]["missed"]) for event in batches] == [(1, 0), (0, 1), (1, 0), (0, 1)]
    assert batches[3]["args"]["trouble"] == "executor_lost"


def test_a_trace_marks_every_request_that_was_not_answered_in_time(timeline: Timeline) -> None:
    events = json.loads(trace(timeline))["traceEvents"]
    missed = [(event["name"], event["args"]["reason"]) for event in events if event.get("cat") == "request"]
    assert missed == [("late", "none"), ("dropped", "none"), ("refused", "overloaded")]


def test_a_trace_shows_the_kill_and_how_long_the_executor_was_away(timeline: Timeline) -> None:
    mark = Mark(executor="core0", at_ns=START_NS + 790 * MS, text="core0 killed")
    events = [event for event in json.loads(trace(timeline, (), [mark]))["traceEvents"] if event.get("cat") == "fault"]
    assert [(event["name"], event["ph"], event["ts"], event.get("dur")) for event in events] == [
        ("core0 lost", "i", 800_000, None),
        ("away", "X", 800_000, 100_000),
        ("core0 killed", "i", 790_000, None),
    ]
