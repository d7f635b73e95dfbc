"""The manual names everything that can be set, asked and answered, and its drawings are those of the code."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import msgspec

from slotwise.cli import app
from slotwise.config import Config
from slotwise.edges.logs.rows import ActionRow, RefusedRow, RequestRow
from slotwise.edges.oip.answers import STATUSES, AnswerParameters
from slotwise.edges.oip.tls import Tls
from slotwise.edges.repository.settings import Settings
from slotwise.facts.types import Reason
from slotwise.policy.schedulers import SCHEDULERS
from slotwise.policy.view import TRANSITIONS, TicketState
from slotwise.simulation import FleetPart, ModelPart, PipelinePart, Spec
from slotwise.workload.form import ClientsPart, PhasePart, RampPart, StreamPart, WorkloadPart
from slotwise.workload.named import NAMED, wants_of
from tests.repo.cli import read_commands
from tests.repo.tree import ROOT

STEP = re.compile(r"`([\w/]+\.py): ([\w.]+)`")
FILE_ONLY = {"models", "pipelines", "fleet"}
"""Keys of a simulation's file that stand as the names of tables."""


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def section(name: str, heading: str) -> str:
    """A page from one heading to the next of its level or above."""
    _, _, rest = page(name).partition(f"\n{heading}\n")
    assert rest, f"docs/{name} has no heading {heading!r}"
    level = heading.partition(" ")[0]
    return re.split(rf"\n#{{1,{len(level)}}} ", rest)[0]


def unnamed(names: list[str], text: str) -> list[str]:
    return [name for name in names if f"`{name}`" not in text]


def test_every_option_of_every_command_stands_under_its_command() -> None:
    for command in read_commands(app):
        part = re.split(r"\n#{2,3} ", page("reference.md").partition(f"\n### slotwise {command.name}")[2])[0]
        options = [name for names in command.options for name in names if name.startswith("--")]
        assert unnamed(options, part) == [], command.name


def test_every_setting_of_a_server_stands_with_its_default() -> None:
    rows = section("operating.md", "## Settings")
    for field in msgspec.structs.fields(Config):
        default = default_of(field)
        if is_dataclass(default):
            assert f"`[{field.name}]`" in rows
        else:
            assert f"| `{field.name}` | {told(default)} |" in rows
    assert unnamed(list(Config.__struct_fields__), section("reference.md", "## Settings of a server")) == []


def test_every_limit_stands_in_its_table_with_its_default_in_the_order_of_the_code() -> None:
    for field in msgspec.structs.fields(Config):
        table = default_of(field)
        if is_dataclass(table) and not isinstance(table, Tls):
            rows = section("reference.md", f"### [{field.name}]")
            expected = [(key.name, told(getattr(table, key.name))) for key in fields(table)]
            assert re.findall(r"^\| `(\w+)` \| ([^|]+) \|", rows, re.MULTILINE) == expected


def default_of(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def told(default: object) -> str:
    return "none" if default is None else f"`{msgspec.json.encode(default).decode()}`"


def test_every_key_of_a_model_stands_in_the_reference() -> None:
    assert unnamed(list(Settings.__struct_fields__), section("reference.md", "## slotwise.toml beside a model")) == []


def test_every_key_of_a_simulation_stands_in_the_reference() -> None:
    names = [
        name
        for part in (Spec, FleetPart, ModelPart, PipelinePart)
        for name in part.__struct_fields__
        if name not in FILE_ONLY
    ]
    assert unnamed(names, section("reference.md", "## The file of a simulation")) == []


def test_every_workload_by_name_stands_with_the_models_that_it_wants() -> None:
    rows = section("workloads.md", "## By name")
    for name in NAMED:
        wanted = f"{sum(want.copies for want in wants_of(name)):,}"
        assert re.search(rf"^\| .*`{re.escape(name)}`.* \| .*\b{wanted}\b.* \|$", rows, re.MULTILINE), name


def test_every_key_of_a_workload_in_a_file_stands_in_its_page() -> None:
    parts = (WorkloadPart, StreamPart, ClientsPart, PhasePart, RampPart)
    names = [name for part in parts for name in part.__struct_fields__]
    assert unnamed(names, section("workloads.md", "## In a file")) == []


def test_every_parameter_of_an_answer_stands_in_the_reference() -> None:
    assert unnamed(list(AnswerParameters.__struct_fields__), section("reference.md", "## Inference")) == []


def test_every_column_of_the_logs_stands_in_the_reference() -> None:
    columns = [*RequestRow._fields, *ActionRow._fields, *RefusedRow._fields]
    assert unnamed(columns, section("reference.md", "## The logs")) == []


def test_every_reason_stands_with_its_status() -> None:
    rows = [line for line in section("operating.md", "## Statuses").splitlines() if line.startswith("| ")]
    for reason, status in STATUSES.items():
        if reason is not Reason.NONE:
            assert any(row.startswith(f"| {status.value} |") and f"`{reason.value}`" in row for row in rows), reason


def test_every_policy_stands_in_the_manual() -> None:
    assert unnamed(list(SCHEDULERS), section("operating.md", "## Policies and their settings")) == []


def test_the_drawing_of_a_ticket_is_that_of_the_table() -> None:
    states = {state.value for state in TicketState}
    drawn = {tuple(pair) for pair in re.findall(r"^    (\w+) --> (\w+)$", page("architecture.md"), re.MULTILINE)}
    assert drawn == {(state.value, then.value) for state, then in TRANSITIONS}
    assert {state for pair in drawn for state in pair} == states


def test_every_step_of_the_tour_is_in_its_file() -> None:
    steps = STEP.findall(page("tour.md"))
    assert len(steps) > 30
    missing = [f"{path}: {name}" for path, name in steps if not is_defined(ROOT / "src/slotwise" / path, name)]
    assert missing == []


def is_defined(path: Path, name: str) -> bool:
    """Whether a file defines each part of a dotted name."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return all(re.search(rf"^\s*(class|def|async def) {part}\b", text, re.MULTILINE) for part in name.split("."))
