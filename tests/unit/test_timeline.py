"""A journal read as a timeline: both ends of everything are found, and what has no end gets one."""

from __future__ import annotations

import io

import pytest

from slotwise.engine.journal import Journal, JournalError
from slotwise.engine.timeline import read_timeline
from slotwise.facts.actions import Action, Reply, RunBatch
from slotwise.facts.events import Arrived, BatchDone, BatchFailed, Event, ExecutorLost, ExecutorUp, ModelAdded
from slotwise.facts.profile import Profile
from slotwise.facts.timeline import Timeline
from slotwise.facts.types import FOREVER_NS, Failure, ModelSpec, Outcome, Reason, Request, Timing

SPEC = ModelSpec(
    id="m/1",
    name="m",
    version="1",
    profile=Profile(rows=(1,), run_ns=(10,), load_ns=1, memory_bytes=1),
    slo_ns=100,
)


class Story:
    """A journal, told turn by turn."""

    def __init__(self) -> None:
        self._file = io.BytesIO()
        self._journal = Journal(self._file, {"policy": "fifo"})

    def turn(self, now_ns: int, *events: Event, then: tuple[Action, ...] = ()) -> None:
        self._journal.record(now_ns, events, then)

    def lines(self) -> list[bytes]:
        return self._file.getvalue().splitlines(keepends=True)

    def read(self) -> Timeline:
        return read_timeline(self.lines())


def ask(number: int, at_ns: int) -> Request:
    return Request(id=number, model="m/1", arrival_ns=at_ns, deadline_ns=at_ns + 100)


def run(batch_id: int, *requests: Request, executor: str = "core0") -> RunBatch:
    return RunBatch(
        executor=executor,
        batch_id=batch_id,
        model="m/1",
        requests=requests,
        rows=len(requests),
        earliest_ns=0,
        latest_ns=FOREVER_NS,
        expected_ns=10,
    )


@pytest.fixture
def story() -> Story:
    """Two executors and a model."""
    begun = Story()
    up = [ExecutorUp(executor=name, memory_bytes=1) for name in ("core1", "core0")]
    begun.turn(1000, *up, ModelAdded(spec=SPEC))
    return begun


def test_a_batch_is_a_bar_from_its_start_to_its_end(story: Story) -> None:
    first, second = ask(1, 1010), ask(2, 1011)
    story.turn(1012, Arrived(request=first), Arrived(request=second), then=(run(7, first, second),))
    story.turn(1030, BatchDone(executor="core0", batch_id=7, started_ns=1015, ended_ns=1028))
    timeline = story.read()
    (bar,) = timeline.bars
    assert (bar.executor, bar.model, bar.request_ids, bar.rows) == ("core0", "m/1", (1, 2), 2)
    assert (bar.sent_ns, bar.started_ns, bar.ended_ns, bar.trouble) == (1012, 1015, 1028, "")
    assert (timeline.start_ns, timeline.end_ns) == (1000, 1030)
    assert timeline.executors == ("core0", "core1")
    assert timeline.slo_ns == {"m/1": 100}


def test_a_request_has_the_ending_that_its_reply_gave_it(story: Story) -> None:
    timing = Timing(
        arrival_ns=1010,
        sent_ns=1010,
        started_ns=1012,
        ended_ns=1020,
        executor="core1",
        rows=1,
        attempts=1,
        predicted_ns=9,
    )
    story.turn(1010, *(Arrived(request=ask(number, 1010)) for number in (1, 2, 3)))
    refused = Reply(request_id=2, outcome=Outcome.REFUSED, reason=Reason.OVERLOADED)
    story.turn(1022, then=(Reply(request_id=1, outcome=Outcome.IN_TIME, timing=timing), refused))
    answered, turned_away, waiting = story.read().asked
    assert (answered.outcome, answered.executor, answered.ended_ns, answered.replied_ns) == (
        Outcome.IN_TIME,
        "core1",
        1020,
        1022,
    )
    assert (turned_away.outcome, turned_away.reason, turned_away.executor) == (Outcome.REFUSED, Reason.OVERLOADED, "")
    assert (waiting.outcome, waiting.replied_ns) == (None, None)


def test_batches_of_a_lost_executor_end_where_it_was_lost_and_never_overlap(story: Story) -> None:
    story.turn(1010, then=(run(1, ask(1, 1010)), run(2, ask(2, 1010)), run(3, ask(3, 1010), executor="core1")))
    story.turn(1030, BatchDone(executor="core0", batch_id=1, started_ns=1011, ended_ns=1025))
    story.turn(1040, ExecutorLost(executor="core0", message="killed"))
    story.turn(1041, BatchFailed(executor="core0", batch_id=2, failure=Failure.STOPPED))
    story.turn(1060, ExecutorUp(executor="core0", memory_bytes=1))
    timeline = story.read()
    on_core0 = [bar for bar in timeline.bars if bar.executor == "core0"]
    assert [(bar.started_ns, bar.ended_ns, bar.trouble) for bar in on_core0] == [
        (1011, 1025, ""),
        (1025, 1040, "executor_lost"),
    ]
    (loss,) = timeline.losses
    assert (loss.executor, loss.lost_ns, loss.back_ns, loss.message) == ("core0", 1040, 1060, "killed")


def test_a_batch_that_failed_says_why(story: Story) -> None:
    story.turn(1010, then=(run(1, ask(1, 1010)), run(2, ask(2, 1010))))
    story.turn(
        1020,
        BatchFailed(executor="core0", batch_id=1, failure=Failure.STOPPED, started_ns=1012, ended_ns=1019),
        BatchFailed(executor="core0", batch_id=2, failure=Failure.TOO_LATE),
    )
    stopped, too_late = story.read().bars
    assert (stopped.trouble, stopped.started_ns, stopped.ended_ns) == ("stopped", 1012, 1019)
    assert (too_late.trouble, too_late.started_ns, too_late.ended_ns) == ("too_late", 1020, 1020)


def test_a_batch_under_way_at_the_end_is_drawn_to_the_end(story: Story) -> None:
    story.turn(1010, then=(run(1, ask(1, 1010)),))
    story.turn(1050)
    (bar,) = story.read().bars
    assert (bar.started_ns, bar.ended_ns, bar.trouble) == (1010, 1050, "unfinished")


def test_a_torn_last_line_is_left_out_and_any_other_is_an_error(story: Story) -> None:
    story.turn(1010, Arrived(request=ask(1, 1010)))
    header, first, last = story.lines()
    assert read_timeline([header, first, last[:-5]]).asked == ()
    with pytest.raises(JournalError, match="line 3"):
        read_timeline([header, first, last[:-5] + b"\n"])


def test_a_file_that_is_no_journal_is_refused() -> None:
    with pytest.raises(JournalError, match="line 1"):
        read_timeline([b"hello\n"])
    with pytest.raises(JournalError, match="line 1"):
        read_timeline([])
