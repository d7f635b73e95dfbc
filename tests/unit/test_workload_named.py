"""Every workload that has a name is made with its defaults, plays, and does what it says."""

from __future__ import annotations

import heapq
from collections import Counter
from functools import cache
from itertools import islice

import pytest

from slotwise.facts.units import MS, S
from slotwise.workload.azure import Trace
from slotwise.workload.named import NAMED, Built, build, help_of, names_for, parameters_of
from slotwise.workload.named.form import read_parameters
from slotwise.workload.named.trace import TraceReplay
from slotwise.workload.player import Asking, player_of
from slotwise.workload.synthetic import stand_in
from slotwise.workload.values import Arrival, WorkloadError

TAKES_NS = 5 * MS


@cache
def day() -> Trace:
    """The stand-in of the defaults, made once."""
    return stand_in()


def built_with_defaults(name: str) -> Built:
    return build(name, trace=day() if issubclass(NAMED[name], TraceReplay) else None)


def played(built: Built, asks_max: int = 3_000) -> list[Arrival]:
    """What is asked first, where every answer takes the same time."""
    player = player_of(built.workload)
    open_: list[tuple[int, int, Asking]] = []
    asked: list[Arrival] = []
    while len(asked) < asks_max:
        due_ns = player.due_ns()
        if open_ and (due_ns is None or open_[0][0] <= due_ns):
            at_ns, _, asking = heapq.heappop(open_)
            player.answered(asking, at_ns)
        elif due_ns is None:
            break
        else:
            asking = player.take()
            asked.append(asking.arrival)
            heapq.heappush(open_, (due_ns + TAKES_NS, len(asked), asking))
    return asked


def arrivals_until(built: Built, end_s: float) -> list[Arrival]:
    """All that is asked in the first seconds, of one without clients."""
    player = player_of(built.workload)
    asked = []
    while (due_ns := player.due_ns()) is not None and due_ns < end_s * S:
        asked.append(player.take().arrival)
    return asked


@pytest.mark.parametrize("name", NAMED)
def test_a_named_workload_is_made_and_plays_with_its_defaults(name: str) -> None:
    built = built_with_defaults(name)
    assert len(built.models) == sum(want.copies for want in built.wants) == len(set(built.models))
    assert built.models == names_for(built.wants)
    asked = played(built)
    assert asked
    assert {arrival.model for arrival in asked} <= set(built.models)
    assert built.workload.duration_s < 24 * 3600


@pytest.mark.parametrize("name", NAMED)
def test_what_is_told_of_a_parameter_is_what_it_takes(name: str) -> None:
    parameters = parameters_of(NAMED[name])
    assert help_of(NAMED[name]).endswith(".")
    assert all(parameter.help for parameter in parameters)
    given = {parameter.name: parameter.default for parameter in parameters}
    assert read_parameters(name, NAMED[name], given) == NAMED[name](), "defaults as told are the defaults"


def test_it_uses_the_models_it_is_given_in_their_order() -> None:
    built = build("slo-exp-2", {"copies": 1, "copies_bg": 2}, models=["x", "y", "z", "unused"])
    assert built.models == ("x", "y", "z")
    assert [stream.model for stream in built.workload.streams] == ["x"]
    assert [clients.models for clients in built.workload.clients] == [("y",), ("z",)]


def test_too_few_models_are_an_error_that_says_how_many_it_wants() -> None:
    with pytest.raises(
        WorkloadError, match=r"slo-exp-2 wants 18 models \(6 of resnet50, 12 of resnet50\).* there are 2;"
    ):
        build("slo-exp-2", models=["a", "b"])


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("simpel", {}, r"there is no workload 'simpel'; did you mean simple\? there are simple, "),
        ("simple", {"copeis": 1}, r"no parameter 'copeis'; did you mean copies\? it has pause_ms, "),
        (
            "simple",
            {"copies": "few"},
            r"parameter copies of simple is 'few'; it must be a whole number 1 or above, 100,000 at ",
        ),
        ("simple", {"copies": 0}, "parameter copies of simple is 0; it must be a whole number 1 or above"),
        ("simple", {"copies": "1.5"}, "must be a whole number"),
        ("simple", {"slo_ms": "nan"}, "parameter slo_ms of simple is 'nan'; it must be a number above 0"),
        ("simple", {"slo_ms": 0}, "must be a number above 0"),
        ("simple", {"heeds_retry_after": "perhaps"}, "it must be true or false"),
        ("slo-exp-1", {"op": "pow"}, "parameter op of slo-exp-1 is 'pow'; it must be add or mul"),
        ("slo-exp-1", {"factor": 0.5}, "steps from 1 to 100 by mul 0.5 never come there"),
        ("slo-exp-1", {"op": "add", "factor": 1e-6}, "over 100000 steps"),
        ("simple-parametric", {"clients": 13}, "13 clients for 12 copies"),
        ("simple-slo-factor", {"period_s": 1e-9}, "has over 100000 steps; make period_s longer"),
        ("azure", {"functions": 20, "interval_s": 1e-6}, "over 100000 intervals of 1e-06 s"),
    ],
)
def test_what_cannot_be_is_named_with_what_is_allowed(name: str, given: dict[str, str | float], told: str) -> None:
    with pytest.raises(WorkloadError, match=told):
        build(name, given)


def test_parameters_come_as_text_or_as_numbers() -> None:
    told = build("slo-exp-2", {"copies": "3", "rate_per_s": "10.5", "op": "mul", "heeds_retry_after": "true"})
    given = build("slo-exp-2", {"copies": 3, "rate_per_s": 10.5, "op": "mul", "heeds_retry_after": True})
    assert told.workload == given.workload


def test_comparison_experiment2_is_figure_5() -> None:
    built = build("comparison_experiment2")
    assert built.wants == (("resnet50", 15),)
    assert [clients.concurrency for clients in built.workload.clients] == [16] * 15
    assert {(clients.slo_ns, clients.pause_ns) for clients in built.workload.clients} == {(100 * MS, 1 * MS)}


def test_clients_of_simple_parametric_share_the_models_out_and_end() -> None:
    built = build("simple-parametric", {"copies": 5, "clients": 2, "concurrency": 3, "requests": 10})
    assert [clients.models for clients in built.workload.clients] == [
        ("resnet50-0", "resnet50-1"),
        ("resnet50-2", "resnet50-3", "resnet50-4"),
    ]
    assert len(played(built)) == 20


def test_slos_of_simple_slo_factor_grow_and_toggle() -> None:
    asked = played(build("simple-slo-factor", {"pause_ms": 500}), asks_max=10_000)
    factors: dict[str, dict[int, set[float]]] = {}
    for arrival in asked:
        steps = factors.setdefault(arrival.model, {})
        steps.setdefault(arrival.at_ns // (10 * S), set()).add(round(arrival.slo_ns / (2.9 * MS), 3))
    assert [min(factors["resnet50-0"][step]) for step in range(4)] == [4, 5, 6.25, 7.812]
    assert [sorted(factors["resnet50-1"][step]) for step in range(4)] == [[4], [5], [6], [7]]
    assert [sorted(factors["resnet50-2"][step]) for step in range(4)] == [[4], [1], [4], [1]]


def test_the_major_models_of_figure_6_wake_up_one_after_the_other_and_share_one_rate() -> None:
    given = {"copies": 20, "lead_in_s": 10, "growth_per_s": 0.1, "major_per_s": 200, "minor_per_s": 50}
    built = build("bursty_experiment", given)
    assert built.wants == (("resnet50", 21),)
    assert built.workload.duration_s == pytest.approx(210)
    asked = arrivals_until(built, 211)
    minor, *major = built.models
    first_s = {arrival.model: arrival.at_ns / S for arrival in reversed(asked)}
    assert all(10 + 10 * index <= first_s[model] < 13 + 10 * index for index, model in enumerate(major))
    counts = Counter(arrival.model == minor for arrival in asked)
    assert counts[False] == pytest.approx(200 * 200, rel=0.02)
    assert counts[True] == pytest.approx(210 * 50, rel=0.03)
    last = Counter(arrival.model for arrival in asked if arrival.at_ns > 200 * S)
    assert all(last[model] == pytest.approx(10 * 10, rel=0.4) for model in major)


def test_figure_7_raises_slos_from_the_model_s_own_time_by_half_each_30_seconds() -> None:
    built = build("slo-exp-1")
    assert [phase.slo_scale for phase in built.workload.phases][:4] == [1, 1.5, 2.25, 3.375]
    assert built.workload.duration_s == 12 * 30
    assert {stream.slo_ns for stream in built.workload.streams} == {2_900_000}
    assert sum(stream.rate_per_s for stream in built.workload.streams) == pytest.approx(600)
    fractions = build("slo-exp-1", {"slo_start": 1.5, "slo_end": 2.9, "op": "add", "factor": 0.7})
    assert [phase.slo_scale for phase in fractions.workload.phases] == pytest.approx([1.5, 2.2, 2.9])


def test_each_model_in_front_of_figure_8_has_the_rate_unless_it_is_shared_as_published() -> None:
    built = build("slo-exp-2")
    assert [stream.rate_per_s for stream in built.workload.streams] == [200.0] * 6
    assert [clients.concurrency for clients in built.workload.clients] == [16] * 12
    assert {clients.slo_ns for clients in built.workload.clients} == {24 * 3600 * S}
    shared = build("slo-exp-2", {"rate_is": "shared", "copies_bg": 0})
    assert sum(stream.rate_per_s for stream in shared.workload.streams) == pytest.approx(200)
    assert shared.workload.clients == ()


def test_example_asks_every_model_in_five_ways() -> None:
    built = build("example")
    assert len(built.models) == 53
    assert len(built.workload.streams) == 3 * 53
    assert [clients.bursts is None for clients in built.workload.clients[:2]] == [True, False]
    bursty = build("example", {"fixed_per_s": 0, "poisson_per_s": 0, "seconds": 3000})
    player = islice(iter(arrivals_until(bursty, 300)), None)
    rate = sum(1 for _ in player) / 53 / 300
    assert rate == pytest.approx(10 / 3, rel=0.2), "ten a second within bursts, which are a third of the time"


def test_scalability_exp_1_raises_the_rate_of_all() -> None:
    built = build("scalability-exp-1", {"rate_min_per_s": 100, "rate_max_per_s": 400, "factor": 2})
    counts = Counter(arrival.at_ns // (10 * S) for arrival in arrivals_until(built, 40))
    assert [counts[step] for step in range(4)] == pytest.approx([1000, 2000, 4000, 0], rel=0.1)


SMALL = {"functions": 500, "models": 20}


def test_azure_at_nominal_load_of_eight_workers_is_the_trace_as_it_was() -> None:
    trace = stand_in(500)
    for mapping in ("shuffled", "sorted"):
        built = build("azure", {**SMALL, "workers": 8, "mapping": mapping, "seconds": 600})
        rate = sum(1 for _ in arrivals_until(built, 600)) / 600
        assert rate == pytest.approx(trace.counts[:, :10].sum() / 600, rel=0.02)
        assert built.about.endswith(f"; from a synthetic stand-in, seed 1, 500 functions, {mapping}")


def test_variants_of_azure_are_what_their_names_say() -> None:
    trace = stand_in(500)
    rate = {name: len(arrivals_until(build(name, SMALL, trace=trace), 60)) for name in ("azure", "azure_half")}
    assert rate["azure_half"] == pytest.approx(rate["azure"] / 2, rel=0.15)
    assert {want.copies for want in build("azure_small", {"functions": 500}).wants} == {3}
    assert build("azure_single", {"functions": 500}).wants == (("resnet50", 1),)
    assert build("azure", {"use_all": False, "memory": 1, "functions": 500}).wants == (("resnet50", 200),)
    fast = build("azure_fast", SMALL, trace=trace)
    assert all(phase.duration_s <= 1440 for stream in fast.workload.streams for phase in stream.phases)


def test_models_of_azure_are_spread_evenly_over_the_types() -> None:
    wants = build("azure", {"functions": 500, "models": 55}).wants
    assert [want.copies for want in wants[:3]] == [2, 2, 1]
    assert sum(want.copies for want in wants) == 55


def test_azure_scalability_exp_raises_the_load_of_the_trace_each_minute() -> None:
    built = build("azure_scalability_exp", {**SMALL, "workers": 80})
    assert built.workload.duration_s == 10 * 60
    trace = stand_in(500).counts.sum(axis=0)
    counts = Counter(arrival.at_ns // (60 * S) for arrival in arrivals_until(built, 240))
    expected = [trace[minute] * 10 * 0.1 * 1.5**minute for minute in range(4)]
    assert [counts[minute] for minute in range(4)] == pytest.approx(expected, rel=0.05)


def test_a_workload_that_replays_no_trace_is_given_none() -> None:
    with pytest.raises(WorkloadError, match="simple replays no trace"):
        build("simple", trace=stand_in(10))
