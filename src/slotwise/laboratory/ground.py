"""What a case's rows stand on, as a digest: the case, and every line of code that may have had a part in them.

Of the experiment's file that is what its `run` and its `row` reach; how it judges and draws may change and leaves rows
as they are. Of ours it is every module that these import, and so on, as syntax trees without comments, and the
tables of data beside them. Where policies are chosen by name only the case's own counts: another one's may change.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import slotwise
from slotwise.facts.value import value
from slotwise.laboratory.values import Case
from slotwise.policy.schedulers import SCHEDULERS

PACKAGE = "slotwise"
SOURCES = Path(slotwise.__file__).parent
POLICIES = "slotwise.policy.schedulers"
"""The table of policies, in whose place the case's own is looked at."""
NO_PART = (POLICIES, "slotwise.laboratory.values", "slotwise.config")
"""What is imported, for its types or its errors, and has no part in rows."""
ROOTS = ("run", "row")
"""What of an experiment makes its rows."""
DIGEST_LEN = 16
DATA = ("*.csv", "*.toml")


@value
class _Source:
    """What one module adds to the ground."""

    text: str
    imports: tuple[str, ...]


class Ground:
    """What the cases of one experiment stand on. It reads each module once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._sources: dict[str, _Source] = {}

    def digest(self, case: Case) -> str:
        """The same as long as nothing has changed that the case's rows depend on."""
        preset = SCHEDULERS.get(case.policy)
        settings = f"{preset.settings} {preset.estimates}" if preset else ""
        found = hashlib.sha256(f"{case} {settings} {self._own.text}".encode())
        for name in self.modules(case):
            found.update(f"{name} {self._source(name).text}".encode())
        return found.hexdigest()[:DIGEST_LEN]

    def modules(self, case: Case) -> list[str]:
        """The modules of ours that a case's rows depend on, by name."""
        preset = SCHEDULERS.get(case.policy)
        return sorted(self._closure((*self._own.imports, *((preset.build.__module__,) if preset else ()))))

    @cached_property
    def _own(self) -> _Source:
        """The experiment's file, as far as its rows come of it."""
        tree = ast.parse(self._file.read_text(encoding="utf-8"))
        nodes = list(_reached(tree))
        return _Source(
            text="".join([*map(ast.dump, nodes), *_data(self._file.parent)]), imports=tuple(_imported(nodes))
        )

    def _source(self, name: str) -> _Source:
        if name not in self._sources:
            file = _file_of(name)
            tree = ast.parse(file.read_text(encoding="utf-8"))
            self._sources[name] = _Source(
                text="".join([ast.dump(tree), *_data(file.parent)]), imports=tuple(_imported([tree]))
            )
        return self._sources[name]

    def _closure(self, roots: Iterable[str]) -> set[str]:
        reached: set[str] = set()
        ahead = list(roots)
        while ahead:
            name = ahead.pop()
            if name not in reached and name not in NO_PART:
                reached.add(name)
                ahead += self._source(name).imports
        return reached


def _reached(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements of an experiment's file that its rows come of; all of them where that cannot be told."""
    statements = {name: node for node in tree.body for name in _names_made(node)}
    call = getattr(statements.get("EXPERIMENT"), "value", None)
    if not isinstance(call, ast.Call):
        return iter(tree.body)
    ahead = [name for keyword in call.keywords if keyword.arg in ROOTS for name in _names_used(keyword.value)]
    reached: dict[int, ast.stmt] = {}
    while ahead:
        node = statements.get(ahead.pop())
        if node is not None and node.lineno not in reached:
            reached[node.lineno] = node
            ahead += _names_used(node)
    return (reached[line] for line in sorted(reached))


def _names_made(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    else:
        yield from (part.id for part in ast.walk(node) if isinstance(part, ast.Name) and type(part.ctx) is ast.Store)


def _names_used(node: ast.AST) -> Iterator[str]:
    return (part.id for part in ast.walk(node) if isinstance(part, ast.Name))


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The modules of ours that are imported in these, wherever it is."""
    for node in (part for root in nodes for part in ast.walk(root)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module is not None and _is_ours(node.module):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if _file_of(whole).exists() else node.module


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


def _file_of(module: str) -> Path:
    """The source of a module of ours; a folder's is its first file. Compiled modules have their source beside them."""
    path = SOURCES.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _data(folder: Path) -> Iterator[str]:
    """The tables of data beside a module."""
    for pattern in DATA:
        yield from (path.read_text(encoding="utf-8") for path in sorted(folder.glob(pattern)))
