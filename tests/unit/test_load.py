"""The pure parts of a load: spreads, what is chosen and asked, the tally and the report of it, and two side by side."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest

from slotwise.client import BadRequest, ServerFault
from slotwise.client.pages import InputSpec, ServerModel
from slotwise.facts.types import FOREVER_NS
from slotwise.facts.units import MS, S
from slotwise.load.ending import Ending, Sending
from slotwise.load.inputs import Questions, Shape
from slotwise.load.lines import Told
from slotwise.load.plan import Closed, Formed, Steady, chosen, duration_ns, ends_when_spent, workload_of
from slotwise.load.report import Facts, LoadReport, compared, count_rows, remarks, report_of
from slotwise.load.sender import Run
from slotwise.load.spread import Spread
from slotwise.load.tally import Tally
from slotwise.workload.form import WorkloadPart
from slotwise.workload.values import Arrival, WorkloadError

TINY = ServerModel(name="tiny", inputs=(InputSpec("x", "FP32", (-1, 4)),), slo_ns=20 * MS)
TEXT = ServerModel(
    name="text", inputs=(InputSpec("ids", "INT64", (-1, -1)), InputSpec("t", "BYTES", (1,))), slo_ns=None
)


def asked(model: str, rows: int = 1, slo_ns: int = S) -> Arrival:
    return Arrival(at_ns=0, model=model, slo_ns=slo_ns, rows=rows, priority=5)


# Spreads.


def test_quantiles_of_a_spread_are_right_to_half_a_percent_from_microseconds_to_minutes() -> None:
    rng = random.Random(3)
    spread, samples = Spread(), [int(10 ** rng.uniform(3, 11)) for _ in range(20_000)]
    for sample in samples:
        spread.add(sample)
    samples.sort()
    for share in (0.5, 0.9, 0.99, 0.999):
        told = spread.quantile_ns(share)
        assert told is not None
        assert abs(told - samples[int(share * len(samples))]) <= 0.005 * told
    assert (spread.count, spread.max_ns, spread.sum_ns) == (len(samples), samples[-1], sum(samples))


def test_a_quantile_that_too_few_durations_tell_is_none() -> None:
    spread = Spread()
    assert spread.quantile_ns(0.5) is None
    for _ in range(100):
        spread.add(MS)
    assert spread.quantile_ns(0.99) is not None
    assert spread.quantile_ns(0.999) is None


def test_spreads_that_are_merged_count_as_one() -> None:
    one, other, both = Spread(), Spread(), Spread()
    for number in range(200):
        (one if number % 2 else other).add(number * MS)
        both.add(number * MS)
    one.merge(other)
    shares = (0.5, 0.9, 0.99)
    assert one.quantiles_ns(shares) == both.quantiles_ns(shares)
    assert (one.count, one.max_ns, one.sum_ns) == (both.count, both.max_ns, both.sum_ns)


# What is asked of which models.


def test_models_are_chosen_by_name_and_pattern_in_the_order_given() -> None:
    offered = ["b2", "a", "b1"]
    assert chosen((), offered) == ["a", "b1", "b2"]
    assert chosen(("b*", "a", "b1"), offered) == ["b1", "b2", "a"]
    assert chosen(("z", "a"), None) == ["z", "a"]
    with pytest.raises(WorkloadError, match="no model of the server's is called 'c\\*'; it offers a, b1, b2"):
        chosen(("c*",), offered)


def test_a_rate_is_shared_by_the_models_and_each_has_its_own_deadline_unless_one_is_given() -> None:
    streams = workload_of(Steady(rate_per_s=10.0), [TINY, TEXT], seconds=5.0, slo_ns=None, seed=1).workload.streams
    assert [(one.model, one.rate_per_s, one.slo_ns) for one in streams] == [
        ("tiny", 5.0, 20 * MS),
        ("text", 5.0, FOREVER_NS),
    ]
    given = workload_of(Steady(rate_per_s=10.0), [TINY, TEXT], seconds=5.0, slo_ns=7 * MS, seed=1).workload
    assert {one.slo_ns for one in given.streams} == {7 * MS}


def test_clients_end_with_their_requests_or_with_the_time() -> None:
    few = workload_of(Closed(concurrency=4, requests_max=9), [TINY], seconds=5.0, slo_ns=None, seed=1).workload
    assert ends_when_spent(few)
    assert not ends_when_spent(workload_of(Closed(concurrency=4), [TINY], seconds=5.0, slo_ns=None, seed=1).workload)
    assert duration_ns(few, None) == 5 * S
    unbounded = workload_of(Closed(concurrency=4, requests_max=9), [TINY], seconds=None, slo_ns=None, seed=1).workload
    assert duration_ns(unbounded, None) == FOREVER_NS
    assert duration_ns(few, 2.0) == 2 * S
    with pytest.raises(WorkloadError, match="different deadlines"):
        workload_of(Closed(concurrency=4), [TINY, TEXT], seconds=5.0, slo_ns=None, seed=1)


def test_a_workload_by_name_asks_the_models_in_their_order_and_brings_its_deadlines() -> None:
    named = Formed(form=WorkloadPart(name="poisson-open-loop", parameters={"copies": "2"}), lines=lambda _: [])
    workload = workload_of(named, [TEXT, TINY], seconds=1.0, slo_ns=None, seed=1).workload
    assert [stream.model for stream in workload.streams] == ["text", "tiny"]
    with pytest.raises(WorkloadError, match="deadlines of its own"):
        workload_of(named, [TEXT, TINY], seconds=1.0, slo_ns=MS, seed=1)


def test_inputs_have_the_shapes_that_the_server_tells_and_are_the_same_for_the_same_seed() -> None:
    questions = Questions([TINY, TEXT], {"ids": Shape(sizes=(1, 7))}, seed=5, margin_ns=MS)
    first = questions.of(asked("tiny", rows=3))
    assert first.inputs["x"].shape == (3, 4)
    assert first.inputs["x"].dtype == np.float32
    again = Questions([TINY], {}, seed=5, margin_ns=MS).of(asked("tiny", rows=3))
    np.testing.assert_array_equal(first.inputs["x"], again.inputs["x"])
    text = questions.of(asked("text"))
    assert {name: array.shape for name, array in text.inputs.items()} == {"ids": (1, 7), "t": (1,)}
    assert [(one.model, one.input, one.taken) for one in questions.taken()] == [("text", "ids", (1, 7))]


@pytest.mark.parametrize(
    ("shapes", "rows", "words"),
    [({"x": (1, 5)}, 1, "does not fit"), ({"tiny:x": (4,)}, 1, "does not fit"), ({}, 2, "one row at a time")],
)
def test_inputs_that_a_model_cannot_take_are_told(shapes: dict[str, tuple[int, ...]], rows: int, words: str) -> None:
    fixed = ServerModel(name="fixed", inputs=(InputSpec("y", "FP32", (1, 4)),), slo_ns=None)
    model = "fixed" if not shapes else "tiny"
    given = {name: Shape(sizes=sizes) for name, sizes in shapes.items()}
    questions = Questions([TINY, fixed], given, seed=1, margin_ns=0)
    with pytest.raises(BadRequest, match=words):
        questions.of(asked(model, rows=rows))


def test_inputs_that_the_server_does_not_tell_can_be_named() -> None:
    mute = ServerModel(name="mute", inputs=(), slo_ns=None)
    with pytest.raises(BadRequest, match="does not tell what mute takes"):
        Questions([mute], {}, seed=1, margin_ns=0)
    given = {"x": Shape(sizes=(1, 3), datatype="FP32"), "other:y": Shape(sizes=(1,), datatype="FP32")}
    inputs = Questions([mute], given, seed=1, margin_ns=0).of(asked("mute", rows=2)).inputs
    assert {name: array.shape for name, array in inputs.items()} == {"x": (2, 3)}


@pytest.mark.parametrize(("slo_ns", "told_us"), [(10 * MS, 9_000), (MS, 500), (1_000, 1), (FOREVER_NS, None)])
def test_the_server_is_told_a_margin_less_but_half_of_the_time_at_least(slo_ns: int, told_us: int | None) -> None:
    questions = Questions([TINY], {}, seed=1, margin_ns=MS)
    assert questions.of(asked("tiny", slo_ns=slo_ns)).timeout_us == told_us


# The tally, and the report.


def sending(model: str, ending: Ending, took_ms: int | None, status: int | None, waited_ms: int = 0) -> Sending:
    ended_ns = None if took_ms is None else took_ms * MS
    return Sending(
        model=model,
        due_ns=0,
        sent_ns=(waited_ms + 1) * MS,
        ended_ns=ended_ns,
        status=status,
        ending=ending,
        waited_ns=waited_ms * MS,
    )


def report(*more: Sending) -> LoadReport:
    tally = Tally()
    fault = Told(told=ServerFault("it broke", status=500), status=500)
    for one in (
        *[sending("a", Ending.IN_TIME, 10, 200)] * 3,
        sending("a", Ending.LATE, 90, 200),
        sending("a", Ending.LATE, 40, 504),
        *[sending("b", Ending.REFUSED, 2, 503)] * 2,
        sending("b", Ending.UNANSWERED, None, None, waited_ms=50),
        *more,
    ):
        tally.note(one, None)
    for _ in range(2):
        tally.note(sending("b", Ending.FAILED, 5, 500), fault)
    facts = Facts(url="u", workload="w", seed=1, connections=4, cpu_s=0.001, trouble="")
    return report_of(tally, Run(started_ns=0, ended_ns=2 * S, waits=1), facts)


def test_a_report_counts_every_ending_once_by_model_and_in_all() -> None:
    told = report()
    for part in (*told.models, told.total):
        assert part.offered == part.in_time + part.late + part.refused + part.failed + part.unanswered
    total = told.total
    assert (total.offered, total.in_time, total.late, total.refused, total.failed, total.unanswered) == (
        10,
        3,
        2,
        2,
        2,
        1,
    )
    assert total.statuses == {"200": 4, "500": 2, "503": 2, "504": 1}
    assert (total.offered_per_s, total.goodput_per_s) == (5.0, 1.5)
    assert total.latency_ms.count == 4, "answers alone, in time or not"
    assert total.latency_ms.max == 90.0
    assert total.refusal_ms.p50 == pytest.approx(2.0, rel=0.005)
    assert [row[0] for row in count_rows(told)] == ["a", "b", "all"]


def test_the_clients_own_lag_is_without_the_wait_for_a_connection() -> None:
    client = report().client
    assert client.lag_ms.max == 1.0
    assert (client.waits, client.wait_ms.count, client.wait_ms.max) == (1, 1, 50.0)


def test_failures_are_told_in_the_words_of_the_first_and_silence_is_told() -> None:
    told = report()
    assert [(one.model, one.status, one.count, one.words) for one in told.errors] == [("b", 500, 2, "it broke")]
    words = "; ".join(remarks(told))
    assert "b: 2 requests failed with 500: it broke" in words
    assert "1 requests went unanswered" in words


def test_a_report_is_read_again_as_it_was_written_and_two_stand_side_by_side() -> None:
    before = report()
    assert msgspec.json.decode(msgspec.json.encode(before), type=LoadReport) == before
    now = report(*[sending("a", Ending.IN_TIME, 10, 200)] * 3)
    lines = {row[0]: row[1:] for row in compared(before, now)}
    assert lines["answers in time/s"] == ["1.50", "3", "2.00"]
    assert lines["p99.99 ms"] == ["-", "-", "-"]
