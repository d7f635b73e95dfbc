"""The command line as a table: every command that can be run, its options, and their help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import typer
from typer.main import get_command

ALWAYS_KNOWN = {"--help", "--version"}


@dataclass(frozen=True)
class Command:
    """A command by its words, such as `zoo build`; the help of each option or argument stands under its names."""

    name: str
    help: str
    options: dict[tuple[str, ...], str]

    def faults(self) -> list[str]:
        """What lacks help."""
        own = [] if self.help else [f"{self.name} has no help"]
        return own + [f"{self.name} {names[0]} has no help" for names, text in self.options.items() if not text]


def read_commands(app: typer.Typer) -> list[Command]:
    """Every command of an application, in order of name."""
    return sorted(_below("", get_command(app)), key=lambda command: command.name)


def command_fault(words: list[str], commands: list[Command]) -> str | None:
    """Why the words after the program's name cannot be run as they stand; None when they can."""
    plain = [word for word in words if not word.startswith("-")]
    meant = [command for command in commands if plain[: command.name.count(" ") + 1] == command.name.split()]
    if plain and not meant:
        return "no such command"
    known = {name for command in meant for names in command.options for name in names} | ALWAYS_KNOWN
    unknown = [word.partition("=")[0] for word in words if word.startswith("-") and word.partition("=")[0] not in known]
    return f"no such option: {unknown[0]}" if unknown else None


def _below(prefix: str, command: object) -> Iterator[Command]:
    # Click's classes, which typer may carry inside itself: so by their attributes, not by their type.
    inner = getattr(command, "commands", None)
    if inner is None:
        params = getattr(command, "params", [])
        options = {(*item.opts, *item.secondary_opts): getattr(item, "help", "") or "" for item in params}
        yield Command(prefix, getattr(command, "help", "") or "", options)
    for name, child in (inner or {}).items():
        yield from _below(f"{prefix} {name}".strip(), child)
