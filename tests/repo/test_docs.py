"""What README and docs/ say is there, is there: links, files, make verbs, commands and their options."""

from __future__ import annotations

import importlib
import re

import pytest
import typer

from tests.repo.cli import Command, command_fault, read_commands
from tests.repo.documents import broken_links, commands, python_files
from tests.repo.tree import ROOT, File, read_files

PROGRAM = "slotwise"
CLI = ROOT / "src/slotwise/cli.py"
NEEDS_CLI = pytest.mark.skipif(not (CLI.exists() or CLI.with_suffix("").exists()), reason="no command line yet")


@pytest.fixture(scope="module")
def documents() -> list[File]:
    return [file for file in read_files() if file.path.endswith(".md")]


@pytest.fixture(scope="module")
def paths() -> set[str]:
    files = [file.relative_to(ROOT).as_posix() for file in ROOT.rglob("*") if ".venv" not in file.parts]
    return set(files)


def test_every_link_leads_somewhere(documents: list[File], paths: set[str]) -> None:
    assert {"README.md", "docs/index.md", "docs/architecture.md"} <= {document.path for document in documents}
    assert broken_links(documents, paths) == []


def test_every_page_is_reached_from_the_readme(documents: list[File]) -> None:
    text = "".join(document.text for document in documents)
    pages = [document.path.removeprefix("docs/") for document in documents if document.path.startswith("docs/")]
    assert [page for page in pages if f"({page}" not in text and f"(docs/{page}" not in text] == []


@NEEDS_CLI
def test_every_file_that_the_docs_name_exists(documents: list[File], paths: set[str]) -> None:
    mentioned = {name for document in documents if _is_manual(document) for name in python_files(document)}
    assert "policy/controller.py" in mentioned, "the README prints the main path with its files"
    assert [name for name in sorted(mentioned) if not {name, f"src/slotwise/{name}"} & paths] == []


def test_every_make_verb_in_the_docs_exists_and_every_verb_has_help(documents: list[File]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    declared = {verb for line in re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE) for verb in line.split()}
    explained = set(re.findall(r"^([a-z]+):.*## \w", makefile, re.MULTILINE))
    used = {words[1] for document in documents for words in commands(document) if words[0] == "make"}
    assert declared == explained
    assert {"demo", "test"} <= used <= declared


def test_the_readme_starts_with_two_commands() -> None:
    readme = File("README.md", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert list(commands(readme))[:2] == [["make", "demo"], ["make", "test"]]


@NEEDS_CLI
def test_every_command_and_option_has_help() -> None:
    found = our_commands()
    assert found, "the command line has commands"
    assert [fault for command in found for fault in command.faults()] == []


@NEEDS_CLI
def test_every_command_is_documented(documents: list[File]) -> None:
    text = "".join(document.text for document in documents if document.path in ("README.md", "docs/reference.md"))
    assert [command.name for command in our_commands() if f"{PROGRAM} {command.name}".strip() not in text] == []


@NEEDS_CLI
def test_every_command_line_in_the_docs_can_be_run(documents: list[File]) -> None:
    found = our_commands()
    for document in documents:
        for words in commands(document):
            if words[0].rpartition("/")[2] == PROGRAM:
                assert command_fault(words[1:], found) is None, f"{document.path}: {' '.join(words)}"


def test_a_broken_link_is_found() -> None:
    page = File("docs/a.md", "# A b\n[x](b.md) [y](../c.md) [z](#a-b) [u](https://example.org) [v](#nope)")
    assert len(broken_links([page], {"docs/a.md"})) == 3
    assert len(broken_links([page], {"docs/a.md", "docs/b.md", "c.md"})) == 1


def test_commands_are_read_from_shell_blocks_only() -> None:
    page = File("a.md", "```sh\n$ slotwise a \\\n  --b 1  # why\n\n# no\n```\n```text\nslotwise c\n```\n")
    assert list(commands(page)) == [["slotwise", "a", "--b", "1"]]


def test_a_command_line_that_cannot_be_run_is_found() -> None:
    found = read_commands(sample())
    assert command_fault(["zoo", "build", ".zoo", "--size=3"], found) is None
    assert command_fault(["serve", "-p", "3"], found) is None
    assert command_fault(["--help"], found) is None
    assert command_fault(["zoo", "burn"], found) == "no such command"
    assert command_fault(["serve", "--size", "3"], found) == "no such option: --size"


def test_a_command_or_an_option_without_help_is_found() -> None:
    faults = [fault for command in read_commands(sample()) for fault in command.faults()]
    assert faults == ["serve --silent has no help", "zoo build has no help"]


def test_names_of_python_files_are_read() -> None:
    page = File("a.md", "`edges/oip/http.py` and client.py, not https://example.org/x.py")
    assert python_files(page) == {"edges/oip/http.py", "client.py"}


def our_commands() -> list[Command]:
    names = vars(importlib.import_module("slotwise.cli")).values()
    return read_commands(next(value for value in names if isinstance(value, typer.Typer)))


def sample() -> typer.Typer:
    app, zoo = typer.Typer(), typer.Typer()
    app.add_typer(zoo, name="zoo")

    @app.command(help="Serve a folder.")
    def serve(
        port: int = typer.Option(1, "--port", "-p", help="Where."), silent: bool = typer.Option(default=False)
    ) -> None: ...

    @zoo.command()
    def build(path: str = typer.Argument(help="Where to."), size: int = typer.Option(1, help="How big.")) -> None: ...

    @zoo.command(help="Say what is there.")
    def index() -> None: ...

    return app


def _is_manual(document: File) -> bool:
    return document.path == "README.md" or document.path.startswith("docs/")
