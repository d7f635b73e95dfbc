"""The laboratory: what is run, what is kept, what counts as stale, and how claims are judged."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from click.testing import Result
from typer.testing import CliRunner

from slotwise.cli import app
from slotwise.laboratory.finding import find, find_all
from slotwise.laboratory.ground import Ground
from slotwise.laboratory.report import page
from slotwise.laboratory.running import ROWS_FILE, Options, run_experiment
from slotwise.laboratory.values import Case, LaboratoryError, at_least, at_most, near
from slotwise.laboratory.verdict import Verdict, read_verdict
from tests.repo.tree import ROOT

TINY = '''"""Squares, which come out right."""
from pathlib import Path
import msgspec
from slotwise.laboratory.values import Case, Experiment, at_least, near

RUNS = Path(__file__).with_name("runs")

class Row(msgspec.Struct):
    policy: str
    number: int
    square: int

def cases(is_quick):
    return tuple(Case(id=f"square{n}", policy="fifo") for n in (range(2) if is_quick else range(4)))

def run(case):
    with RUNS.open("a") as out:
        out.write(case.id + "\\n")
    number = int(case.id[-1])
    return [Row(case.policy, number, number ** 2)]

def claims(rows):
    return tuple(near(f"square{r.number}", r.square, r.number ** 2, policy=r.policy, tolerance=0.0) for r in rows)

def draw(rows, path):
    path.write_text("<svg/>")

EXPERIMENT = Experiment(name="tiny", title="Squares", row=Row, cases=cases, run=run, claims=claims, draw=draw)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one experiment."""
    (tmp_path / "experiments/tiny").mkdir(parents=True)
    (tmp_path / "experiments/tiny/experiment.py").write_text(TINY)
    return tmp_path / "experiments"


def run_it(folder: Path, *, is_quick: bool = False, jobs: int = 1, is_fresh: bool = False) -> list[str]:
    """Run the tiny experiment; the cases that were run, in their order."""
    runs = folder / "tiny/runs"
    runs.unlink(missing_ok=True)
    options = Options(is_quick=is_quick, jobs=jobs, is_fresh=is_fresh)
    run_experiment(find(folder, "tiny"), options, lambda *_: None)
    return sorted(runs.read_text().split()) if runs.exists() else []


def edit(folder: Path, old: str, new: str) -> None:
    file = folder / "tiny/experiment.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


ALL = ["square0", "square1", "square2", "square3"]


def test_a_case_that_has_been_run_is_not_run_again_unless_that_is_asked_for(folder: Path) -> None:
    assert run_it(folder) == ALL
    assert run_it(folder) == []
    assert run_it(folder, is_fresh=True) == ALL


def test_what_measures_the_machine_runs_alone_and_last_and_anew_every_time(folder: Path) -> None:
    edit(folder, 'policy="fifo")', 'policy="fifo", is_measured=n in (0, 2))')
    run_it(folder, jobs=2)
    assert (folder / "tiny/runs").read_text().split()[-2:] == ["square0", "square2"]
    assert run_it(folder, jobs=2) == ["square0", "square2"]
    verdict = read_verdict(find(folder, "tiny"))
    assert verdict is not None
    assert [claim.id for claim in verdict.claims] == ALL


def test_a_run_that_was_cut_short_goes_on_where_it_was(folder: Path) -> None:
    run_it(folder)
    rows = folder / "tiny/results" / ROWS_FILE
    rows.write_bytes(rows.read_bytes()[:-20])
    assert run_it(folder) == ["square3"], "the last line was no whole one"
    assert len(rows.read_bytes().splitlines()) == 4


@pytest.mark.parametrize(
    ("old", "new", "again"),
    [
        pytest.param("number ** 2)]", "number * number)]", ALL, id="what a run does"),
        pytest.param("    square: int", "    square: float", ALL, id="what a row is"),
        pytest.param('policy="fifo"', 'policy="edf"', ALL, id="a case"),
        pytest.param("range(4)", "range(5)", ["square4"], id="another case"),
        pytest.param("tolerance=0.0", "tolerance=1.0", [], id="a claim"),
        pytest.param("<svg/>", "<svg></svg>", [], id="the figure"),
        pytest.param("def run(case):", "# This says why.\ndef run(case):", [], id="a comment"),
    ],
)
def test_rows_are_stale_once_what_they_come_of_has_changed(folder: Path, old: str, new: str, again: list[str]) -> None:
    run_it(folder)
    edit(folder, old, new)
    assert run_it(folder) == again


def test_rows_stand_on_the_code_of_their_own_policy_and_not_on_that_of_others(tmp_path: Path) -> None:
    file = tmp_path / "experiment.py"
    file.write_text("from slotwise.laboratory import virtual\n")
    closures = {
        policy: Ground(file).modules(Case(id="a", policy=policy)) for policy in ("slotwise", "clockwork", "bounded")
    }
    own = {
        "slotwise": "slotwise.policy.schedulers.slotwise_auction",
        "clockwork": "slotwise.policy.schedulers.clockwork_loads",
        "bounded": "slotwise.policy.schedulers.fifo",
    }
    for policy, modules in closures.items():
        assert {"slotwise.policy.controller", "slotwise.sim.fleet", "slotwise.workload.player"} <= set(modules)
        assert [name for name in own.values() if name in modules] == [own[policy]]


def test_quick_runs_leave_the_kept_results_alone(folder: Path) -> None:
    assert run_it(folder, is_quick=True) == ["square0", "square1"]
    assert read_verdict(find(folder, "tiny")) is None
    verdict = read_verdict(find(folder, "tiny"), is_quick=True)
    assert verdict is not None
    assert (verdict.is_quick, len(verdict.claims)) == (True, 2)
    assert (folder.parent / "build/experiments/tiny/figure.svg").exists()


@pytest.mark.slow
def test_cases_run_in_processes_of_their_own(folder: Path) -> None:
    assert run_it(folder, jobs=2) == ALL
    verdict = read_verdict(find(folder, "tiny"))
    assert verdict is not None
    assert [claim.id for claim in verdict.claims] == ALL, "in the order of the cases, whichever finished first"


def test_a_case_that_fails_keeps_what_was_run_before_it(folder: Path) -> None:
    edit(folder, "    number = int", "    assert case.id != 'square2'\n    number = int")
    with pytest.raises(AssertionError):
        run_it(folder)
    edit(folder, "range(4)", "range(2)")
    assert run_it(folder) == [], "the first two had been kept"


def test_claims_are_judged_by_their_relation_and_tolerance() -> None:
    assert near("a", 174.0, 170.0, policy="p", tolerance=5.0).holds
    assert near("a", 180.0, 170.0, policy="p", tolerance=5.0).shortfall == 5.0
    assert near("a", 160.0, 170.0, policy="p", tolerance=5.0).shortfall == 5.0
    assert at_least("a", 700.0, 600.0, policy="p").holds
    assert at_least("a", 595.0, 600.0, policy="p", tolerance=6.0).holds
    assert at_least("a", 550.0, 600.0, policy="p").shortfall == 50.0
    assert at_most("a", 1.0, 2.0, policy="p").holds
    assert not at_most("a", 2.5, 2.0, policy="p").holds


def test_the_report_has_every_claim_and_how_far_it_falls_short(folder: Path) -> None:
    edit(folder, "r.square, r.number ** 2", "r.square, min(r.number ** 2, 4)")
    run_it(folder)
    text = page(find_all(folder), folder.parent)
    assert "| `square2` | fifo | 4 | 4 | holds |" in text
    assert "| `square3` | fifo | 9 | 4 | falls short by 5 |" in text
    assert "| [tiny](#tiny): Squares | 4 | 3 |" in text


def test_commands_run_list_and_report_an_experiment(folder: Path) -> None:
    told = folder.parent / "told.json"
    ran = invoke("run", "tiny", "--jobs", "1", "--folder", str(folder), "--json", str(told))
    assert (ran.exit_code, "4 of 4 claims hold" in ran.stdout) == (0, True)
    report = msgspec.json.decode(told.read_bytes(), type=Verdict)
    assert report.claims[3] == near("square3", 9.0, 9.0, policy="fifo", tolerance=0.0)
    assert "4 of 4" in invoke("list", "--folder", str(folder)).stdout
    out = folder.parent / "page.md"
    assert invoke("report", "--folder", str(folder), "--out", str(out)).exit_code == 0
    assert "## tiny" in out.read_text()


def test_a_claim_that_fails_ends_the_run_with_a_no(folder: Path) -> None:
    edit(folder, "r.square, r.number ** 2", "r.square, 1")
    assert invoke("run", "tiny", "--jobs", "1", "--folder", str(folder)).exit_code == 1


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("run", "great", "--folder", "FOLDER"), "there is no experiment 'great'; there are tiny"),
        (("list", "--folder", "FOLDER/tiny"), "run this there, or name their folder with --folder"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(folder: Path, words: tuple[str, ...], advice: str) -> None:
    found = invoke(*(word.replace("FOLDER", str(folder)) for word in words))
    assert found.exit_code == 2
    assert advice in " ".join(found.stderr.split())


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("EXPERIMENT =", "OTHER =", "exports no EXPERIMENT"),
        ('name="tiny"', 'name="small"', "calls itself 'small'"),
        ('f"square{n}"', '"square0"', "two cases have the same id"),
    ],
)
def test_an_experiment_that_is_wrong_says_how(folder: Path, old: str, new: str, complaint: str) -> None:
    edit(folder, old, new)
    with pytest.raises(LaboratoryError, match=complaint):
        run_it(folder)


OURS = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/experiment.py"))


@pytest.mark.parametrize("name", OURS)
def test_each_experiment_has_cases_and_its_page_names_its_claims(name: str) -> None:
    """A page names a claim with N for each number in it, as `fig5.sloN.goodput`."""
    found = find(ROOT / "experiments", name)
    for is_quick in (True, False):
        cases = found.experiment.cases(is_quick)
        assert cases
        assert len({case.id for case in cases}) == len(cases)
    text = (found.folder / "README.md").read_text(encoding="utf-8")
    verdict = read_verdict(found)
    families = {family(claim.id) for claim in verdict.claims} if verdict else set()
    assert [one for one in sorted(families) if f"`{one}`" not in text] == []


def family(claim: str) -> str:
    """A claim's name without the numbers behind its first word."""
    first, _, rest = claim.partition(".")
    return f"{first}.{re.sub(r'[0-9]+([.][0-9]+)?', 'N', rest)}"


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, ["experiment", *words])
