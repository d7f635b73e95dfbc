"""No schedule passes the bounds, and where it can be told they are reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from slotwise.facts.profile import Profile
from slotwise.facts.types import FOREVER_NS, Request
from slotwise.oracle.bound import best_possible, flow_bound, fluid_bound
from slotwise.oracle.clairvoyant import Schedule, clairvoyant
from slotwise.oracle.prices import Counter
from slotwise.oracle.problem import Problem, Way, problem_of
from slotwise.workload.arrivals import requests
from slotwise.workload.mixes import Share, mix
from slotwise.workload.values import Phase, Workload

NEAR = 1e-6
WEIGHTS = {"small": 1.0, "large": 3.5, "batched": 2.0}


def profile(*run_ns: int) -> Profile:
    return Profile(rows=tuple(range(1, len(run_ns) + 1)), run_ns=run_ns, load_ns=0, memory_bytes=0)


PROFILES = {"small": profile(4), "large": profile(10), "batched": profile(6, 8, 11)}
BATCH_MAX = {"small": 1, "large": 1, "batched": 3}


def request(number: int, model: str, arrival_ns: int, allowance_ns: int, rows: int = 1) -> Request:
    return Request(id=number, model=model, arrival_ns=arrival_ns, deadline_ns=arrival_ns + allowance_ns, rows=rows)


def most_weight(load: Sequence[Request], executors: int, weights: Mapping[str, float]) -> float:
    """The best schedule of all: every order of runs, each on the executor that is free first."""

    def extend(left: tuple[Request, ...], free_ns: tuple[int, ...]) -> float:
        best = 0.0
        for run in runs_of(left):
            rows = sum(one.rows for one in run)
            start_ns = max(free_ns[0], *(one.arrival_ns for one in run))
            end_ns = start_ns + PROFILES[run[0].model].expected_ns(rows)
            if all(end_ns <= one.deadline_ns for one in run):
                rest = tuple(one for one in left if one not in run)
                worth = sum(weights[one.model] for one in run)
                best = max(best, worth + extend(rest, tuple(sorted((*free_ns[1:], end_ns)))))
        return best

    def runs_of(left: tuple[Request, ...]) -> list[tuple[Request, ...]]:
        found = [(one,) for one in left]
        for run in found:
            for other in left:
                alike = other.model == run[0].model and other.id > run[-1].id
                if alike and sum(one.rows for one in (*run, other)) <= BATCH_MAX[other.model]:
                    found.append((*run, other))
        return found

    return extend(tuple(load), (0,) * executors)


def assert_feasible(schedule: Schedule, profiles: Mapping[str, Profile], batch_max: Mapping[str, int]) -> None:
    free_ns: dict[int, int] = {}
    seen: set[int] = set()
    for run in schedule.runs:
        rows = sum(one.rows for one in run.requests)
        assert run.start_ns >= free_ns.get(run.executor, 0)
        assert run.end_ns - run.start_ns == profiles[run.model].expected_ns(rows)
        assert len(run.requests) == 1 or rows <= batch_max[run.model]
        for one in run.requests:
            assert one.model == run.model
            assert one.arrival_ns <= run.start_ns
            assert run.end_ns <= one.deadline_ns
            assert one.id not in seen
            seen.add(one.id)
        free_ns[run.executor] = run.end_ns
    assert len(seen) == schedule.answers


@st.composite
def loads(draw: st.DrawFn, size_max: int = 5, rows_max: int = 2) -> list[Request]:
    size = draw(st.integers(1, size_max))
    return [
        request(
            number,
            draw(st.sampled_from(sorted(PROFILES))),
            draw(st.integers(0, 20)),
            draw(st.integers(3, 25)),
            draw(st.integers(1, rows_max)),
        )
        for number in range(size)
    ]


@pytest.mark.slow
@settings(max_examples=60)
@given(loads(), st.integers(1, 2))
def test_no_schedule_passes_a_bound(load: list[Request], executors: int) -> None:
    for weights in (dict.fromkeys(WEIGHTS, 1.0), WEIGHTS):
        exact = most_weight(load, executors, weights)
        made = clairvoyant(load, PROFILES, BATCH_MAX, executors, weights=weights, moves=20)
        bound = best_possible(load, PROFILES, BATCH_MAX, executors, weights=weights, rounds=40)
        flow = flow_bound(load, PROFILES, BATCH_MAX, executors, weights=weights)
        fluid = fluid_bound(load, PROFILES, BATCH_MAX, executors, weights=weights)
        assert_feasible(made, PROFILES, BATCH_MAX)
        assert made.weight <= exact + NEAR
        assert exact <= bound.weight + NEAR
        assert bound.weight <= flow.weight + NEAR
        assert flow.weight <= fluid.weight + NEAR
        assert bound.answers <= bound.possible + NEAR


@pytest.mark.slow
@settings(max_examples=50)
@given(loads(size_max=8, rows_max=1), st.integers(1, 3))
def test_the_flow_bound_is_the_linear_program_of_all_intervals(load: list[Request], executors: int) -> None:
    problem = problem_of(load, PROFILES, BATCH_MAX, executors)
    can = np.isfinite(problem.least_ns)
    first, last = problem.arrivals_ns, problem.deadlines_ns
    cost = np.where(can, problem.least_ns, 0.0)
    intervals = [(a, b) for a in set(first.tolist()) for b in set(last.tolist()) if a < b]
    inside = np.array([np.where((first >= a) & (last <= b), cost, 0.0) for a, b in intervals])
    room = np.array([executors * (b - a) for a, b in intervals])
    worth = np.array([WEIGHTS[one.model] for one in load])
    solved = linprog(-worth, A_ub=inside, b_ub=room, bounds=[(0, float(one)) for one in can])
    assert flow_bound(load, PROFILES, BATCH_MAX, executors, weights=WEIGHTS).weight == pytest.approx(-solved.fun)


@given(st.integers(0, 2**32), st.integers(1, 3_000), st.integers(0, 4_000))
def test_no_start_is_cheaper_than_the_one_found(seed: int, run_ns: int, freedom_ns: int) -> None:
    rng = np.random.default_rng(seed)
    first_ns = int(rng.integers(0, 1_000))
    problem = Problem(
        executors=1,
        arrivals_ns=np.array([first_ns]),
        deadlines_ns=np.array([first_ns + run_ns + freedom_ns]),
        ways=(Way(members=np.array([0]), run_ns=float(run_ns), share=0.5),),
        least_ns=np.array([run_ns / 2]),
    )
    cell_ns = 97.0
    prices = rng.random(int((first_ns + run_ns + freedom_ns) // cell_ns) + 1) / 100
    total = np.concatenate(([0.0], np.cumsum(prices)))
    counter = Counter(problem.ways[0], problem, 0, cell_ns, np.array([1.0]))
    paid, place = counter.cheapest(np.append(total, total[-1]))

    def cost(starts_ns: np.ndarray) -> np.ndarray:
        edges = np.arange(len(total)) * cell_ns
        return 0.5 * (np.interp(starts_ns + run_ns, edges, total) - np.interp(starts_ns, edges, total))

    assert paid[0] <= cost(np.linspace(first_ns, first_ns + freedom_ns, 2_000)).min() + NEAR
    assert paid[0] == pytest.approx(cost(place * cell_ns)[0], abs=NEAR)
    assert first_ns - NEAR <= place[0] * cell_ns <= first_ns + freedom_ns + NEAR


def test_requests_that_fit_one_after_the_other_are_all_possible() -> None:
    load = [request(number, "small", 4 * number, 4) for number in range(10)]
    assert best_possible(load, PROFILES, BATCH_MAX, 1).answers == pytest.approx(10)
    assert clairvoyant(load, PROFILES, BATCH_MAX, 1).answers == 10


def test_of_two_requests_that_cannot_move_only_one_is_possible() -> None:
    load = [request(0, "small", 0, 4), request(1, "small", 2, 4)]
    assert flow_bound(load, PROFILES, BATCH_MAX, 1).answers == pytest.approx(1.5)
    assert best_possible(load, PROFILES, BATCH_MAX, 1).answers == pytest.approx(1, abs=0.01)
    assert best_possible(load, PROFILES, BATCH_MAX, 2).answers == pytest.approx(2)


def test_runs_that_cannot_stand_side_by_side_are_known_to_the_prices() -> None:
    # Each has 15 to do 10 in, so both would need the middle.
    load = [request(0, "large", 0, 15), request(1, "large", 0, 15)]
    assert flow_bound(load, PROFILES, BATCH_MAX, 1).answers == pytest.approx(1.5)
    assert best_possible(load, PROFILES, BATCH_MAX, 1).answers == pytest.approx(1, abs=0.01)


def test_a_request_shorter_of_time_than_its_run_is_impossible() -> None:
    bound = best_possible([request(0, "large", 0, 9)], PROFILES, BATCH_MAX, 8)
    assert (bound.offered, bound.possible, bound.answers) == (1, 0, 0)


def test_a_cheap_batch_counts_only_where_the_deadline_allows_it() -> None:
    wide = [request(number, "batched", 0, 11) for number in range(3)]
    narrow = [request(number, "batched", 0, 7) for number in range(3)]
    assert best_possible(wide, PROFILES, BATCH_MAX, 1).answers == pytest.approx(3)
    assert clairvoyant(wide, PROFILES, BATCH_MAX, 1).answers == 3
    assert best_possible(narrow, PROFILES, BATCH_MAX, 1).answers == pytest.approx(1, abs=0.01)


def test_a_cheap_batch_counts_only_where_there_is_company() -> None:
    apart = problem_of([request(number, "batched", 100 * number, 50) for number in range(3)], PROFILES, BATCH_MAX, 1)
    together = problem_of([request(number, "batched", 10 * number, 50) for number in range(3)], PROFILES, BATCH_MAX, 1)
    assert apart.least_ns.tolist() == [6, 6, 6]
    assert together.least_ns == pytest.approx([11 / 3] * 3)


def test_requests_of_another_form_are_no_company() -> None:
    load = [
        Request(id=number, model="batched", arrival_ns=0, deadline_ns=50, form=number % 2, work=1 + number % 2)
        for number in range(3)
    ]
    assert problem_of(load, PROFILES, BATCH_MAX, 1).least_ns.tolist() == [4, 12, 4]


def test_without_a_deadline_everything_is_possible() -> None:
    load = [
        Request(id=number, model="large", arrival_ns=0, deadline_ns=FOREVER_NS if number else 12) for number in range(9)
    ]
    assert best_possible(load, PROFILES, BATCH_MAX, 1).answers == pytest.approx(9)
    assert clairvoyant(load, PROFILES, BATCH_MAX, 1).answers == 9


def test_weight_prefers_what_is_worth_more() -> None:
    load = [request(0, "small", 0, 10), request(1, "large", 0, 10)]
    bound = best_possible(load, PROFILES, BATCH_MAX, 1, weights=WEIGHTS)
    made = clairvoyant(load, PROFILES, BATCH_MAX, 1, weights=WEIGHTS)
    assert made.weight == 3.5
    assert bound.weight == pytest.approx(3.5, abs=0.8)


def test_no_request_is_no_answer() -> None:
    assert best_possible([], PROFILES, BATCH_MAX, 1).answers == 0
    assert clairvoyant([], PROFILES, BATCH_MAX, 1).answers == 0


def test_an_executor_at_least_is_asked_for() -> None:
    with pytest.raises(ValueError, match="executors is 0"):
        best_possible([], PROFILES, BATCH_MAX, 0)


@pytest.mark.slow
def test_the_bounds_and_the_schedule_close_in_under_overload() -> None:
    profiles = {
        "small": profile(1_000_000),
        "large": profile(10_000_000),
        "batched": profile(4_000_000, 5_000_000, 6_000_000),
    }
    slo_ns = {model: 2 * one.run_ns[0] for model, one in profiles.items()}
    streams = mix(profiles, slo_ns, share=Share.WORK, utilisation=2, executors=2)
    load = list(requests(Workload(streams=streams, phases=(Phase(duration_s=0.5),), seed=3)))
    first = clairvoyant(load, profiles, BATCH_MAX, 2, moves=0)
    better = clairvoyant(load, profiles, BATCH_MAX, 2, moves=300)
    assert_feasible(better, profiles, BATCH_MAX)
    bound = best_possible(load, profiles, BATCH_MAX, 2)
    flow = flow_bound(load, profiles, BATCH_MAX, 2)
    assert first.answers <= better.answers <= bound.answers < flow.answers < len(load)
    assert better.answers > 0.85 * bound.answers
