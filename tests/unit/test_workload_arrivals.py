"""What a workload stands for: rates, order, determinism, and what cannot be a workload."""

from __future__ import annotations

import math
import statistics
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotwise.facts.types import FOREVER_NS
from slotwise.workload.arrivals import arrivals, requests
from slotwise.workload.values import (
    Bursty,
    Fixed,
    Gamma,
    Phase,
    Poisson,
    Process,
    Stream,
    Workload,
    WorkloadError,
    counted,
    scaled,
)

SLO_NS = 10_000_000
MINUTE = (Phase(duration_s=60),)


def stream(model: str = "a", rate_per_s: float = 100, process: Process | None = None, **more: int) -> Stream:
    return Stream(model=model, rate_per_s=rate_per_s, slo_ns=SLO_NS, process=process or Poisson(), **more)


def workload(*streams: Stream, phases: tuple[Phase, ...] = MINUTE, seed: int = 1) -> Workload:
    return Workload(streams=streams, phases=phases, seed=seed)


def times_ns(load: Workload, model: str = "a") -> list[int]:
    return [arrival.at_ns for arrival in arrivals(load) if arrival.model == model]


RENEWALS = [Poisson(), Fixed(), Gamma(variation=3)]
PROCESSES = [*RENEWALS, Bursty(mean_burst_s=0.5, mean_idle_s=1.5)]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
def test_every_process_keeps_its_mean_rate(process: Process) -> None:
    seen = len(times_ns(workload(stream(process=process), phases=(Phase(duration_s=1000),))))
    assert seen == pytest.approx(100_000, rel=0.15)


@pytest.mark.parametrize("process", RENEWALS, ids=lambda process: type(process).__name__)
def test_a_change_of_rate_in_the_middle_of_a_gap_is_exact(process: Process) -> None:
    even = times_ns(workload(stream(process=process, rate_per_s=10), phases=(Phase(duration_s=8),)))
    phases = (Phase(duration_s=4.03), Phase(duration_s=0.5, scale=0), Phase(duration_s=(8 - 4.03) / 7, scale=7))
    bent = times_ns(workload(stream(process=process, rate_per_s=10), phases=phases))
    change_ns = 4_030_000_000
    expected = [at if at < change_ns else change_ns + 500_000_000 + (at - change_ns) / 7 for at in even]
    assert bent == pytest.approx(expected, abs=2)
    assert min(len([at for at in even if at < change_ns]), len([at for at in even if at > change_ns])) > 0


def test_poisson_gaps_vary_as_much_as_their_mean() -> None:
    gaps = [after - before for before, after in pairwise(times_ns(workload(stream())))]
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.05)


def test_fixed_gaps_are_equal() -> None:
    gaps = {after - before for before, after in pairwise(times_ns(workload(stream(process=Fixed()))))}
    assert max(gaps) - min(gaps) <= 1


def test_gamma_gaps_vary_as_asked() -> None:
    load = workload(stream(process=Gamma(variation=3)), phases=(Phase(duration_s=1000),))
    gaps = [after - before for before, after in pairwise(times_ns(load))]
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(3, rel=0.1)


def test_bursts_are_dense_and_silences_are_silent() -> None:
    load = workload(
        stream(rate_per_s=100, process=Bursty(mean_burst_s=1, mean_idle_s=3)), phases=(Phase(duration_s=600),)
    )
    gaps = [after - before for before, after in pairwise(times_ns(load))]
    assert statistics.median(gaps) == pytest.approx(math.log(2) * 1e9 / 400, rel=0.1)
    silent_ns = sum(gap for gap in gaps if gap > 100_000_000)
    assert silent_ns / sum(gaps) == pytest.approx(0.75, abs=0.12)


def test_the_same_seed_gives_the_same_arrivals_and_another_gives_others() -> None:
    load = workload(*(stream(process=process) for process in PROCESSES))
    other = workload(*load.streams, seed=2)
    assert list(arrivals(load)) == list(arrivals(load))
    assert list(arrivals(load)) != list(arrivals(other))


def test_a_stream_of_another_model_moves_no_arrival() -> None:
    alone = times_ns(workload(stream()))
    assert times_ns(workload(stream("b", 999), stream())) == alone


def test_two_streams_of_one_model_do_not_march_in_step() -> None:
    assert len(set(times_ns(workload(stream(), stream())))) > len(times_ns(workload(stream())))


@given(st.lists(st.floats(0, 300), min_size=1, max_size=6), st.integers())
def test_arrivals_come_in_order_of_time(rates: list[float], seed: int) -> None:
    streams = [stream(f"m{index}", rate) for index, rate in enumerate(rates)]
    seen = [arrival.at_ns for arrival in arrivals(workload(*streams, phases=(Phase(duration_s=1),), seed=seed))]
    assert seen == sorted(seen)
    assert all(0 <= at < 1_000_000_000 for at in seen)


def test_of_arrivals_at_one_instant_the_earlier_stream_comes_first() -> None:
    crowded = workload(*(stream(f"m{index}", 1e9) for index in range(3)), phases=(Phase(duration_s=1e-6),))
    seen = [(arrival.at_ns, arrival.model) for arrival in arrivals(crowded)]
    assert len({at for at, _ in seen}) < len(seen)
    assert seen == sorted(seen)


def test_an_endless_workload_is_made_as_it_is_asked_for() -> None:
    endless = workload(stream(rate_per_s=1000), phases=(Phase(duration_s=1, scale=0), Phase(duration_s=math.inf)))
    first = list(islice(arrivals(endless), 5000))
    assert first[0].at_ns >= 1_000_000_000
    assert first[-1].at_ns == pytest.approx(6_000_000_000, rel=0.1)


def test_an_endless_silence_ends_the_stream() -> None:
    assert times_ns(workload(stream(), phases=(Phase(duration_s=math.inf, scale=0),))) == []


def test_scaling_keeps_the_pattern_and_changes_the_rate() -> None:
    load = workload(stream(), phases=(Phase(duration_s=math.inf),))
    slow = [arrival.at_ns for arrival in islice(arrivals(load), 1000)]
    fast = [arrival.at_ns for arrival in islice(arrivals(scaled(load, 4)), 1000)]
    assert [at / 4 for at in slow] == pytest.approx(fast, abs=2)


def test_counts_of_a_trace_come_back_as_means() -> None:
    trace = Stream(model="a", rate_per_s=1, slo_ns=SLO_NS, phases=counted((600, 0, 6000), interval_s=60))
    seen = times_ns(workload(trace, phases=()))
    by_minute = [sum(1 for at in seen if at // 60_000_000_000 == minute) for minute in range(3)]
    assert by_minute[1] == 0
    assert by_minute == pytest.approx([600, 0, 6000], rel=0.15)


def test_requests_carry_the_deadline_and_count_up() -> None:
    load = workload(stream(rows=3, priority=2))
    pairs = list(zip(arrivals(load), requests(load, first_id=7), strict=True))
    assert [request.id for _, request in pairs[:3]] == [7, 8, 9]
    for arrival, request in pairs:
        assert (request.arrival_ns, request.rows, request.priority) == (arrival.at_ns, 3, 2)
        assert request.deadline_ns == arrival.at_ns + SLO_NS


def test_no_deadline_stays_no_deadline() -> None:
    patient = Stream(model="a", rate_per_s=10, slo_ns=FOREVER_NS)
    assert {request.deadline_ns for request in requests(workload(patient))} == {FOREVER_NS}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: stream(rate_per_s=-1), "rate_per_s of the stream for 'a' is -1"),
        (lambda: stream(rate_per_s=math.nan), "finite number"),
        (lambda: stream(rows=0), "rows of the stream for 'a' is 0"),
        (lambda: stream(priority=10), "from 1 \\(highest\\) to 9"),
        (lambda: Stream(model="a", rate_per_s=1, slo_ns=0), "slo_ns of the stream for 'a' is 0"),
        (lambda: Phase(duration_s=0), "duration_s of a phase is 0"),
        (lambda: Phase(duration_s=1, scale=-2), "scale of a phase is -2"),
        (lambda: Bursty(mean_burst_s=0, mean_idle_s=1), "mean_burst_s is 0"),
        (lambda: Gamma(variation=math.inf), "variation is inf"),
        (lambda: workload(stream(), phases=()), "stream for 'a' has a phase"),
        (lambda: workload(stream(), phases=(Phase(duration_s=math.inf), Phase(duration_s=1))), "follows an endless"),
        (lambda: scaled(workload(stream()), -1), "factor to scale by is -1"),
        (lambda: counted((1,), interval_s=0), "interval_s is 0"),
    ],
)
def test_what_cannot_be_a_workload_is_named(make: object, words: str) -> None:
    with pytest.raises(WorkloadError, match=words):
        make()  # type: ignore[operator]  # one of the calls above
