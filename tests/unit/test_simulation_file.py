"""The file of a simulation: what is wrong with one is told with file, line and key; what is right comes out of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slotwise.config import MIB, ConfigError
from slotwise.facts.units import MS, S
from slotwise.simulation.reading import read_scenario
from slotwise.simulation.scenario import Fault, FaultKind, Scenario, changed
from slotwise.workload.values import Phase

WHOLE = """
seconds = 30
policy = "edf"
seed = 4
profiles = ["measured.json"]

[fleet]
link_us = 100
spread = 0.1

[[kinds]]
name = "big"
memory_mib = 1024
page_mib = 16
slowness = 0.5

[[nodes]]
name = "rack"
count = 2
link_us = 400
devices = [{ kind = "big", count = 2 }]

[[nodes]]
name = "edge"
[[nodes.devices]]
kind = "big"
slices = [{ share = 0.25 }, { share = 0.75, slowness = 1.2 }]
[[nodes.devices]]
kind = "core"

[[models]]
name = "known"
profile = "resnet50"
copies = 2
slo_ms = 100
rate_per_s = 10

[[models]]
name = "own"
rows = [
    1,
    4,
]
run_ms = [2, 5]
slo_ms = 20

[[models]]
name = "ours"
profile = "ocr/1"
slo_ms = 50

[[faults]]
at_s = 3
do = "slow"
where = "edge:big-0"
for_s = 2
"""
MEASURED = """[
  {"model": "ocr/1", "memory_mib": 8, "load_ms": 4,
   "rows": [1, 2],
   "run_ms": [3.5, 6]},
  {"model": "bad/1", "error": "broken"}
]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "measured.json").write_text(MEASURED)
    return tmp_path


def read(folder: Path, text: str) -> Scenario:
    path = folder / "spec.toml"
    path.write_text(text)
    return read_scenario(path)


def test_a_file_describes_nodes_devices_slices_models_and_faults(folder: Path) -> None:
    scenario = read(folder, WHOLE)
    assert [slice_.executor for slice_ in scenario.fleet.slices] == [
        *("rack-0:big-0", "rack-0:big-1", "rack-1:big-0", "rack-1:big-1"),
        *("edge:big-0.0", "edge:big-0.1", "edge:core-0"),
    ]
    whole, quarter, rest = scenario.fleet.slices[0], scenario.fleet.slices[4], scenario.fleet.slices[5]
    assert (whole.memory_bytes, whole.page_bytes, whole.slowness, whole.link_ns) == (
        1024 * MIB,
        16 * MIB,
        0.5,
        400_000,
    )
    assert (quarter.memory_bytes, quarter.slowness, quarter.link_ns) == (256 * MIB, 2.0, None)
    assert rest.slowness == pytest.approx(0.6)
    assert [model.id for model in scenario.models] == ["known-0/1", "known-1/1", "own/1", "ours/1"]
    assert scenario.models[3].profile.run_ns == (3_500_000, 6 * MS)
    assert [stream.rate_per_s for stream in scenario.workload.streams] == [5, 5, 0, 0]
    fault = Fault(
        at_ns=3 * S, kind=FaultKind.SLOW, executors=("edge:big-0.0", "edge:big-0.1"), for_ns=2 * S, factor=2.0
    )
    assert scenario.faults == (fault,)
    assert (scenario.policy, scenario.seed, scenario.workload.seed) == ("edf", 4, 4)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seconds = 30", "seconds = 0", "spec.toml, line 2: `seconds`: Expected `float` > 0.0"),
        ("seconds = 30", "second = 30", "spec.toml, line 2: `second`: there is no such key"),
        ("seconds = 30", "seconds 30", "spec.toml: Expected '=' after a key in a key/value pair (at line 2, column 9)"),
        ("slowness = 0.5", "slownes = 0.5", "spec.toml, line 15: `kinds[0].slownes`: there is no such key"),
        ('kind = "core"', 'kind = "cor"', "line 29: `nodes[1].devices[1].kind`: there is no kind 'cor'; did you mean"),
        ("share = 0.75", "share = 0.8", "line 27: `nodes[1].devices[0].slices`: the slices are more than the device"),
        ("share = 0.75", "share = 2", "line 27: `nodes[1].devices[0].slices[1].share`: Expected `float` <= 1.0"),
        ('"resnet50"', '"resnet5O"', "line 33: `models[0].profile`: there is no profile 'resnet5O'; did you mean"),
        ("run_ms = [2, 5]", "run_ms = [2]", "line 40: `models[1].rows`: run_ms must have one entry for each of rows"),
        ("    4,", '    "4",', "line 40: `models[1].rows[1]`: Expected `int`, got `str`"),
        ('name = "own"\n', "", "line 38: `models[1]`: Object missing required field `name`"),
        ('name = "own"', 'name = "known-1"', "line 39: `models[1].name`: two models have the same name, known-1"),
        ("rate_per_s = 10", "load_ms = 10", "line 36: `models[0].load_ms`: the profile says so already"),
        (
            'where = "edge:big-0"',
            'where = "edge:big"',
            "line 55: `faults[0].where`: there is nothing called 'edge:big'",
        ),
        ('do = "slow"', 'do = "melt"', "line 54: `faults[0].do`: Invalid enum value 'melt'"),
        ('do = "slow"', 'do = "hang"', "line 56: `faults[0].for_s`: whoever hangs does so until it is replaced"),
        ("[fleet]", "[fleet]\nexecutors = 3", "line 8: `fleet.executors`: the nodes say which executors there are"),
        ("count = 2\n", "count = 9999\n", "line 17: `nodes`: 10000 executors are the most"),
        ('["measured.json"]', '["absent.json"]', "absent.json cannot be read: No such file"),
        (
            "[[faults]]",
            "[workload]\n[[faults]]",
            "line 36: `models[0].rate_per_s`: `[workload]` says who asks how often",
        ),
        (
            "rate_per_s = 10",
            '[workload]\nname = "simpel"',
            "line 36: `workload`: there is no workload 'simpel'; did you",
        ),
        ("seed = 4", 'seed = 4\npolicy_settings = "x"', "line 5: `policy_settings`: Expected `object`, got `str`"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_key(folder: Path, old: str, new: str, told: str) -> None:
    assert WHOLE.count(old) == 1
    with pytest.raises(ConfigError, match=re.escape(told)):
        read(folder, WHOLE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[3.5, 6]", "[3.5]", "measured.json, line 3: `[0].rows`: run_ns must have one entry"),
        ("[3.5, 6]", '[3.5, "6"]', "measured.json, line 4: `[0].run_ms[1]`: Expected `float`, got `str`"),
        ("[3.5, 6]", "[3.5, -6]", "measured.json, line 4: `[0].run_ms`: run_ns must be positive"),
        ("[3.5, 6]},", "[3.5, 6]}", "measured.json, line 5: JSON is malformed"),
        ("ocr/1", "ocr/2", "there is no profile 'ocr/1'; did you mean 'ocr/2'?"),
    ],
)
def test_what_is_wrong_with_measured_profiles_is_told_with_its_line_and_key(
    folder: Path, old: str, new: str, told: str
) -> None:
    (folder / "measured.json").write_text(MEASURED.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(told)):
        read(folder, WHOLE)


@pytest.mark.parametrize(
    ("workload", "told"),
    [
        ('streams = [{ models = ["m"], slo_ms = 9 }]\nclients = [\n{ models = ["n"], slo_ms = 9 }]\nseconds = 1', 9),
        ('name = "simple"\n[workload.parameters]\npause_ms = 2\nluck = 3', 11),
        ('recorded = "absent.csv"\nseconds = 3', 7),
    ],
)
def test_the_part_of_a_workload_that_is_wrong_is_named_with_its_line(folder: Path, workload: str, told: int) -> None:
    models = '[[models]]\nname = "m"\nrows = [1]\nrun_ms = [1]\nslo_ms = 9\ncopies = 1\n'
    with pytest.raises(ConfigError, match=rf"spec.toml, line {told}: `workload"):
        read(folder, f"{models}[workload]\n{workload}\n")


def test_kinds_that_no_node_has_are_told_of(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 1: `kinds`: no node has such devices"):
        read(folder, '[[kinds]]\nname = "big"\n[[models]]\nname = "m"\nrows = [1]\nrun_ms = [1]\nslo_ms = 9\n')


def test_a_workload_by_name_brings_its_models_along(folder: Path) -> None:
    scenario = read(folder, '[workload]\nname = "comparison_experiment2"\n')
    assert [model.name for model in scenario.models] == [f"resnet50-{index}" for index in range(15)]
    assert scenario.workload.clients


def test_what_is_given_takes_the_place_of_what_the_file_says(folder: Path) -> None:
    scenario = read(folder, WHOLE)
    other = changed(scenario, policy="fifo", seed=7, scale=2, seconds=5)
    assert (other.policy, other.seed, other.workload.seed) == ("fifo", 7, 7)
    assert other.workload.phases == (Phase(duration_s=5),)
    assert other.workload.streams[0].rate_per_s == 10
    assert changed(scenario) == scenario


def test_a_row_of_phases_is_cut_short_or_its_last_goes_on(folder: Path) -> None:
    workload = (
        "[workload]\nphases = [{ seconds = 2, scale = 3 }, { seconds = 4 }]\n"
        'streams = [{ models = ["m"], slo_ms = 9 }]\n'
        '[[models]]\nname = "m"\nrows = [1]\nrun_ms = [1]\nslo_ms = 9\n'
    )
    scenario = read(folder, workload)
    assert changed(scenario, seconds=1).workload.phases == (Phase(duration_s=1, scale=3),)
    assert changed(scenario, seconds=9).workload.phases == (Phase(duration_s=2, scale=3), Phase(duration_s=7))
