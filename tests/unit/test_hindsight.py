"""Rules fitted with hindsight: they keep what they promise, stay below the bound, and fitting them helps."""

from __future__ import annotations

from slotwise.facts.profile import Profile
from slotwise.facts.types import Request
from slotwise.facts.units import MS
from slotwise.oracle.bound import best_possible
from slotwise.oracle.hindsight import Draw, Rule, answers, divisions, fit
from slotwise.workload.arrivals import requests
from slotwise.workload.mixes import Share, mix
from slotwise.workload.values import Phase, Workload


def profile(run_ms: int) -> Profile:
    return Profile(rows=(1,), run_ns=(run_ms * MS,), load_ns=0, memory_bytes=0)


PROFILES = {"short": profile(1), "long": profile(10)}


def drawn(utilisation: float, multiple: float, executors: int = 2) -> Draw:
    slos_ns = {name: int(multiple * one.expected_ns(1)) for name, one in PROFILES.items()}
    streams = mix(PROFILES, slos_ns, share=Share.WORK, utilisation=utilisation, executors=executors)
    workload = Workload(streams=streams, phases=(Phase(duration_s=1.0),), seed=1)
    found = tuple(requests(workload))
    return Draw(requests=found, profiles=PROFILES, batch_max={}, executors=executors, link_ns=0)


def asked(*arrivals_ms: tuple[str, int, int]) -> tuple[Request, ...]:
    return tuple(
        Request(id=number, model=model, arrival_ns=at_ms * MS, deadline_ns=(at_ms + allowance_ms) * MS)
        for number, (model, at_ms, allowance_ms) in enumerate(arrivals_ms)
    )


def test_rules_answer_all_that_there_is_time_for() -> None:
    draw = drawn(utilisation=0.2, multiple=20.0)
    everything = divisions(draw)[-1]
    assert answers(draw, everything) == len(draw.requests)


def test_a_model_that_may_not_wait_anywhere_is_not_answered() -> None:
    draw = Draw(
        requests=asked(("short", 0, 5), ("long", 20, 50)), profiles=PROFILES, batch_max={}, executors=1, link_ns=0
    )
    rules = ({"short": Rule(wait=1.0, rows=1), "long": Rule(wait=0.0, rows=1)},)
    assert answers(draw, rules) == 1


def test_an_idle_executor_takes_over_what_it_can_start_sooner() -> None:
    # The second short one is promised behind the first; the other executor is busy until 10 and free before it is due.
    draw = Draw(
        requests=asked(("long", 0, 10), ("short", 0, 1), ("short", 1, 2), ("short", 1, 2)),
        profiles=PROFILES,
        batch_max={},
        executors=2,
        link_ns=0,
    )
    assert answers(draw, divisions(draw)[-1]) == 4


def test_fitted_rules_do_no_worse_than_where_they_began_and_stay_below_the_bound() -> None:
    draw = drawn(utilisation=1.5, multiple=2.0)
    begun = max(answers(draw, rules) for rules in divisions(draw))
    fitted = fit(draw, tries=40)
    bound = best_possible(draw.requests, draw.profiles, draw.batch_max, draw.executors)
    assert begun <= fitted.answers <= bound.answers
    assert answers(draw, fitted.rules) == fitted.answers
