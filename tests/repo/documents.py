"""Readers of Markdown: links, headings, commands in fenced blocks, and names of files.

They return what they found; `test_docs` says what must be true of it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from tests.repo.tree import File

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.+)$", re.MULTILINE)
PYTHON_FILE = re.compile(r"(?<![\w/.:-])[\w./-]+\.py\b")
FAR = re.compile(r"^[a-z]+:")
SHELLS = ("sh", "bash", "console")


def broken_links(documents: Iterable[File], paths: set[str]) -> list[str]:
    """Relative links that lead to no file, or to no heading of it. `paths` holds files and folders."""
    headings = {document.path: set(_anchors(document.text)) for document in documents}
    return [
        f"{document.path} links to {target}, which is not there"
        for document in documents
        for target in LINK.findall(FENCE.sub("", document.text))
        if not FAR.match(target) and not _leads_somewhere(document.path, target, paths, headings)
    ]


def commands(document: File) -> Iterator[list[str]]:
    """The words of every command line in the document's shell blocks, without prompts and comments."""
    for language, block in FENCE.findall(document.text):
        if language in SHELLS:
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words:
                    yield words


def python_files(document: File) -> set[str]:
    """Every name of a Python file that the document mentions."""
    return set(PYTHON_FILE.findall(document.text))


def _leads_somewhere(document: str, target: str, paths: set[str], headings: dict[str, set[str]]) -> bool:
    name, _, anchor = target.partition("#")
    path = _normal(PurePosixPath(document).parent / name) if name else document
    return path in paths and (not anchor or anchor in headings.get(path, set()))


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts[-1:] = []
        else:
            parts.append(part)
    return "/".join(parts)


def _anchors(text: str) -> Iterator[str]:
    """Headings as a forge turns them into anchors."""
    for heading in HEADING.findall(FENCE.sub("", text)):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
