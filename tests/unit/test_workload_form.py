"""A workload in a file is read whole or refused by name; what is written out comes to what it says."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable

import msgspec
import pytest

from slotwise.facts.units import MS, S
from slotwise.workload.arrivals import arrivals
from slotwise.workload.form import Made, WorkloadPart, made, wants
from slotwise.workload.named import build
from slotwise.workload.recorded import written
from slotwise.workload.values import Bursty, Fixed, Gamma, Phase, Poisson, WorkloadError

MODELS = {"a": "a/1", "b-0": "b-0/1", "b-1": "b-1/1"}


def no_file(name: str) -> Iterable[str]:
    raise AssertionError(f"nobody asked for {name}")


def read(text: str) -> WorkloadPart:
    return msgspec.convert(tomllib.loads(text), WorkloadPart)


def made_of(text: str, seed: int = 3) -> Made:
    return made(read(text), MODELS, seed=seed, lines=no_file)


def test_a_name_with_parameters_is_the_named_workload_with_the_models_in_their_order() -> None:
    text = 'name = "poisson-open-loop"\n[parameters]\ncopies = 2\nrate_per_s = "7.5"'
    given = {"copies": 2, "rate_per_s": 7.5}
    assert made_of(text).workload == build("poisson-open-loop", given, models=["a/1", "b-0/1"], seed=3).workload
    assert wants(read(text)) == (("resnet50", 2),)
    assert made_of(f"seed = 8\n{text}").workload.seed == 8


def test_streams_share_a_rate_or_have_it_each() -> None:
    text = "seconds = 10\n[[streams]]\nmodels = ['b-*']\nslo_ms = 50\nrate_per_s = 20"
    assert [(stream.model, stream.rate_per_s) for stream in made_of(text).workload.streams] == [
        ("b-0/1", 10),
        ("b-1/1", 10),
    ]
    each = made_of(f"{text}\nrate_is = 'each'").workload
    assert [(stream.rate_per_s, stream.slo_ns) for stream in each.streams] == [(20, 50 * MS)] * 2
    assert each.phases == (Phase(duration_s=10),)


@pytest.mark.parametrize(
    ("text", "process"),
    [
        ("", Poisson()),
        ("process = 'fixed'", Fixed()),
        ("process = 'gamma'\nvariation = 3", Gamma(variation=3)),
        ("process = 'bursty'\nburst_s = 1\nidle_s = 2", Bursty(mean_burst_s=1, mean_idle_s=2)),
    ],
)
def test_each_process_has_its_name(text: str, process: object) -> None:
    stream = made_of(f"seconds = 1\n[[streams]]\nmodels = ['a']\nslo_ms = 50\n{text}").workload.streams[0]
    assert stream.process == process


def test_clients_are_as_written_out() -> None:
    text = """
        seconds = 10
        [[clients]]
        models = ["a", "b-*"]
        slo_ms = 10
        concurrency = 4
        heeds_retry_after = true
        requests_max = 9
        start_within_s = 2
        burst_s = 1
        idle_s = 3
        phases = [{ seconds = 2, slo_scale = 2 }]
    """
    clients = made_of(text).workload.clients[0]
    assert (clients.models, clients.concurrency, clients.slo_ns) == (("a/1", "b-0/1", "b-1/1"), 4, 10 * MS)
    assert (clients.pause_ns, clients.requests_max, clients.start_within_s) == (1 * MS, 9, 2)
    assert clients.bursts == Bursty(mean_burst_s=1, mean_idle_s=3)
    assert clients.phases == (Phase(duration_s=2, slo_scale=2),)


def test_a_ramp_is_a_row_of_phases() -> None:
    stream = "[[streams]]\nmodels = ['a']\nslo_ms = 1"
    ramp = "ramp = { of = 'OF', start = 1, end = 4, change = 2, period_s = 5 }"
    rates = made_of(f"{ramp.replace('OF', 'rate')}\n{stream}").workload.phases
    slos = made_of(f"{ramp.replace('OF', 'slo')}\n{stream}").workload.phases
    assert [(phase.duration_s, phase.scale) for phase in rates] == [(5, 1), (5, 2), (5, 4)]
    assert [(phase.scale, phase.slo_scale) for phase in slos] == [(1, 1), (1, 2), (1, 4)]


def test_counts_of_a_trace_are_replayed_interval_by_interval() -> None:
    text = "[[streams]]\nmodels = ['a']\nslo_ms = 1\ncounts = [100, 0, 400]\ninterval_s = 2\nrate_per_s = 10"
    counts = Counter(arrival.at_ns // (2 * S) for arrival in arrivals(made_of(text).workload))
    assert [counts[interval] for interval in range(4)] == pytest.approx([1000, 0, 4000, 0], rel=0.1)


def test_a_ramp_multiplies_what_a_trace_counts() -> None:
    ramp = "ramp = { of = 'rate', start = 1, end = 2, change = 2, period_s = 3 }"
    text = f"{ramp}\n[[streams]]\nmodels = ['a']\nslo_ms = 1\ncounts = [2, 4, 6]\ninterval_s = 2"
    phases = made_of(text).workload.streams[0].phases
    assert [(phase.duration_s, phase.scale) for phase in phases] == [(2, 1), (1, 2), (1, 4), (2, 6)]


def test_a_record_is_replayed_under_the_names_that_hold_here() -> None:
    original = list(arrivals(made_of("seconds = 3\n[[streams]]\nmodels = ['*']\nslo_ms = 5\nrate_per_s = 90").workload))
    files = {"old.csv": list(written(original))}
    again = made(read("recorded = 'old.csv'"), MODELS, seed=1, lines=files.__getitem__)
    assert list(arrivals(again.workload)) == original
    assert again.about == f"{len(original)} requests recorded in old.csv"
    plain = {"a": "a", "b-0": "b-0", "b-1": "b-1"}
    live = made(read("recorded = 'old.csv'"), plain, seed=1, lines=files.__getitem__)
    assert {arrival.model for arrival in arrivals(live.workload)} == set(plain)
    with pytest.raises(WorkloadError, match=r"old\.csv has requests for '.*', and there is no such model here; there"):
        made(read("recorded = 'old.csv'"), {"a": "a"}, seed=1, lines=files.__getitem__)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seconds = 1", "either a name, or a file `recorded`, or streams and clients"),
        ("name = 'simple'\nrecorded = 'f'", "give one of these"),
        ("name = 'simple'\nseconds = 4", "seconds, phases and ramp are for streams"),
        ("recorded = 'f'\nparameters = { copies = 1 }", "parameters and trace are for a workload by name"),
        ("name = 'simple'\ntrace = 'f'", "simple replays no trace"),
        ("name = 'spam'", r"spam wants 100 models \(100 of resnet50\), and there are 3"),
        ("seconds = 1\nphases = [{ seconds = 1 }]\n[[clients]]\nmodels = ['a']\nslo_ms = 1", "or phases, or a ramp"),
        ("[[streams]]\nmodels = ['a']\nslo_ms = 1", "neither the workload nor its stream for 'a/1' has a phase"),
        ("seconds = 1\n[[streams]]\nmodels = ['c']\nslo_ms = 1", "no model is called 'c'; there are a, b-0, b-1"),
        ("seconds = 1\n[[streams]]\nmodels = ['a']\nslo_ms = 1\nprocess = 'gamma'", "is gamma, and has no variation"),
        ("seconds = 1\n[[streams]]\nmodels = ['a']\nslo_ms = 1\nvariation = 2", 'that is for process = "gamma"'),
        ("seconds = 1\n[[streams]]\nmodels = ['a']\nslo_ms = 1\nburst_s = 2", 'they are for process = "bursty"'),
        ("seconds = 1\n[[clients]]\nmodels = ['a']\nslo_ms = 1\nburst_s = 2", "need both burst_s and idle_s"),
    ],
)
def test_what_cannot_be_is_told_with_what_would_be_right(text: str, told: str) -> None:
    with pytest.raises(WorkloadError, match=told):
        made_of(text)


@pytest.mark.parametrize("text", ["nmae = 'simple'", "seconds = -1", "[[streams]]\nmodels = []\nslo_ms = 1"])
def test_an_unknown_key_or_a_bad_value_is_refused_by_the_form(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(text)
