"""The repository as a list of files: what git tracks, and what it would track if it were added.

Only reading happens here; what is right and wrong stands in `imports`, `tidy` and `documents`.
"""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = "_pb2.py"
"""How files end that nobody has written; test_protocol.py holds them against what they are made from."""


@dataclass(frozen=True)
class File:
    """A text file: its path from the root with forward slashes, and its text."""

    path: str
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)


def read_files(root: Path = ROOT) -> list[File]:
    """Every text file of the repository, in order of path."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    found = (_read(root, path) for path in sorted(set(listing.split("\0"))) if path)
    return [file for file in found if file is not None]


def read_python(root: Path = ROOT) -> list[File]:
    """Every Python file of the repository that somebody has written."""
    return [file for file in read_files(root) if file.path.endswith(".py") and not file.path.endswith(GENERATED)]


def _read(root: Path, path: str) -> File | None:
    try:
        return File(path, (root / path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
        return None  # a picture or a model; or a file deleted since the last commit
