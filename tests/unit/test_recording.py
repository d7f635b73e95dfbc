"""What a run's clients asked is recorded from its journal, and asks the same again; so do the verbs about workloads."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from slotwise import cli
from slotwise.engine.journal import Journal, JournalError
from slotwise.facts.profile import Profile
from slotwise.facts.types import FOREVER_NS, ModelSpec
from slotwise.facts.units import MS, S
from slotwise.policy.presets import build_controller
from slotwise.recording import arrivals_of
from slotwise.sim.fleet import FleetSettings, SimSlice
from slotwise.sim.world import World
from slotwise.workload.azure import read_calls
from slotwise.workload.named import NAMED, parameters_of
from slotwise.workload.player import player_of
from slotwise.workload.recorded import read_recording, written
from slotwise.workload.values import Arrival, Bursty, Clients, Phase, Stream, Workload

WARM_UP_NS = 1 * S
NAMES = ("a/1", "b/1")
PROFILE = Profile(rows=(1, 2), run_ns=(4 * MS, 6 * MS), load_ns=1 * MS, memory_bytes=100)
LIVE = Workload(
    streams=(
        Stream(model="a/1", rate_per_s=150.0, slo_ns=30 * MS),
        Stream(model="b/1", rate_per_s=20.0, slo_ns=FOREVER_NS, rows=2, priority=2),
    ),
    clients=(
        Clients(
            models=NAMES, concurrency=3, slo_ns=20 * MS, pause_ns=MS, bursts=Bursty(mean_burst_s=0.5, mean_idle_s=0.5)
        ),
    ),
    phases=(Phase(duration_s=4.0),),
    seed=6,
)


class Run:
    """A simulated run of a workload: its journal, and what was asked, counted from the first request."""

    def __init__(self, workload: Workload) -> None:
        self.file = BytesIO()
        self.asked: list[Arrival] = []
        world = World(
            controller=build_controller("slotwise"),
            models=[
                ModelSpec(id=name, name=name[0], version="1", profile=PROFILE, slo_ns=S, batch_max=2) for name in NAMES
            ],
            fleet=FleetSettings(slices=(SimSlice(executor="e", memory_bytes=1000, page_bytes=1),)),
            seed=1,
            recorders=[Journal(self.file, {"policy": "slotwise", "settings": {}})],
        )
        world.run(WARM_UP_NS)
        world.play(player_of(workload), WARM_UP_NS)
        world.run(WARM_UP_NS + 60 * S)

    def record(self) -> str:
        return "".join(written(arrivals_of(self.file.getvalue().splitlines(keepends=True))))


def test_a_record_of_a_journal_asks_the_same_again_to_the_byte() -> None:
    first = Run(LIVE)
    record = first.record()
    recording = read_recording(record.splitlines(keepends=True), "first.csv")
    assert len(recording) > 600
    assert recording[0].at_ns == 0
    assert {(arrival.slo_ns, arrival.rows, arrival.priority) for arrival in recording if arrival.priority == 2} == {
        (FOREVER_NS, 2, 2)
    }
    again = Run(Workload(streams=(), phases=(), seed=1, recorded=recording))
    assert again.record() == record


def test_a_journal_that_is_none_is_refused() -> None:
    with pytest.raises(JournalError, match="not a journal"):
        arrivals_of([b"nothing\n"])


Verb = Callable[..., tuple[object, str, str]]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verb:
    """Runs a command in this process: its exit code, and what it printed and said."""

    def run(*words: object) -> tuple[object, str, str]:
        monkeypatch.setenv("COLUMNS", "300")
        monkeypatch.setattr(sys, "argv", ["slotwise", "workload", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return ended.value.code, told.out, told.err

    return run


def test_list_names_every_workload(verb: Verb) -> None:
    code, out, _ = verb("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(NAMED)


def test_show_tells_every_parameter_with_its_default_and_what_it_may_be(verb: Verb, tmp_path: Path) -> None:
    code, out, _ = verb("show", "slo-exp-2", "--set", "copies_bg=48", "--json", tmp_path / "shown.json")
    assert code == 0
    assert "It wants 54 models: 6 of resnet50, 48 of resnet50." in out
    for parameter in parameters_of(NAMED["slo-exp-2"]):
        assert f"  {parameter.name}={parameter.default}: {parameter.help}; {parameter.allowed}\n" in out
    assert json.loads((tmp_path / "shown.json").read_text())["models"] == [["resnet50", 6], ["resnet50", 48]]
    assert verb("show", "slo-exp-3")[:2] == (2, "")
    assert "did you mean slo-exp" in verb("show", "slo-exp-3")[2]
    assert "write name=value" in verb("show", "simple", "--set", "copies")[2]


def test_record_writes_what_a_journal_holds(verb: Verb, tmp_path: Path) -> None:
    run = Run(LIVE)
    (tmp_path / "journal").write_bytes(run.file.getvalue())
    code, _, err = verb("record", tmp_path / "journal", tmp_path / "record.csv")
    assert code == 0
    assert "requests are in" in err
    assert (tmp_path / "record.csv").read_text() == run.record()
    code, _, err = verb("record", tmp_path / "absent", tmp_path / "record.csv")
    assert (code, "No such file" in err) == (2, True)


def test_azure_writes_a_stand_in_that_it_describes_alike_when_it_reads_it(verb: Verb, tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    code, made_up, _ = verb("azure", "--functions", 60, "--write", file)
    assert code == 0
    assert made_up.startswith("a synthetic stand-in, seed 1: 60 functions")
    code, read, _ = verb("azure", file)
    assert code == 0
    assert read.splitlines()[1:] == made_up.splitlines()[1:]
    with file.open() as lines:
        assert len(read_calls(lines, "day.csv").functions) == 60
    file.write_text("HashOwner\n")
    code, _, err = verb("azure", file)
    assert (code, "line 1 has 1 columns, not 1444" in err) == (2, True)
