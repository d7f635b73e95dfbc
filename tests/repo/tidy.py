"""Checks that a linter does not make: sizes, banned calls with their replacement, words left behind.

A check is a function from files to faults, a sentence each. Limits stand at the top: to raise one is a
question of design, asked in review, and never a matter of formatting.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.repo.tree import File

LINE_LEN_MAX = 120
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
FUNCTION_LINES_MEDIAN_MAX = 10
CORE_LINES_MAX = 6400
CORE = ("src/slotwise/facts/", "src/slotwise/policy/", "src/slotwise/engine/", "src/slotwise/sim/")
NOT_CORE = ("src/slotwise/policy/schedulers/",)
"""Each scheduler is an addition that the others do without, and has the limit of a file."""

MARKERS = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X]|HA[C]K)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.~/-])/(work|root|opt/wheels|opt/pypi)\b|/tmp/(bash|clone)")
SILENCERS = re.compile(r"#\s*(type:\s*ignore(\[[\w, -]+\])?|noqa(:\s*[A-Z0-9, ]+)?)(?P<rest>.*)")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Ban:
    """A call that must not be made under some folders, what to write instead, and the places that are free of it."""

    names: str
    instead: str
    within: tuple[str, ...] = ("src/", "tests/", "examples/", "benchmarks/", "experiments/", "fuzz/")
    except_in: tuple[str, ...] = ()

    def matches(self, path: str, name: str) -> bool:
        """Whether the ban forbids to call `name`, dotted in full, in the file at `path`."""
        is_here = path.startswith(self.within) and not (self.except_in and path.startswith(self.except_in))
        return is_here and re.fullmatch(self.names, name) is not None


BANS = (
    Ban("print", "let an observer record it, or return it; cli.py prints", ("src/",), ("src/slotwise/cli",)),
    Ban(
        r"time\.time(_ns)?",
        "the engine's clock, or time.monotonic_ns where an edge measures",
        except_in=("src/slotwise/app.py",),
    ),
    Ban(
        r"time\.sleep",
        "clock.call_at, or in a test the fixture wait_until",
        except_in=(
            "tests/conftest.py",
            "examples/",
            "benchmarks/",
            "experiments/",
            "src/slotwise/client/client.py",  # it waits as whoever asks would
            "src/slotwise/client/tries.py",  # and this is its half for streams
            "src/slotwise/edges/runtimes/emulated.py",
            "src/slotwise/worker/",
        ),
    ),
    Ban(
        r"datetime\.datetime\.(now|utcnow|today)",
        "the engine's clock",
        ("src/",),
        except_in=("src/slotwise/laboratory/machine.py",),  # the date of a measurement
    ),
    Ban(r"random\.(?!Random$|SystemRandom$)\w+", "a random.Random(seed) that is handed in"),
    Ban(r"numpy\.random\.(?!default_rng$|Generator$|SeedSequence$)\w+", "numpy.random.default_rng(seed)"),
    Ban(r"eval|exec", "plain code: nothing that was read is run"),
    Ban(r"(pickle|marshal|shelve|dill|cloudpickle)(\.\w+)*", "msgspec, into a declared type"),
    Ban(r"os\.system|subprocess\.getoutput", "subprocess.run with a list of words"),
    Ban(r"__import__|importlib\.import_module", "an import statement inside the function that needs it", ("src/",)),
)


def line_faults(files: Iterable[File]) -> list[str]:
    """Lines that are too long, of Python files; a silenced rule and its reason at the end do not count."""
    return [
        f"{file.path}:{number} has {len(line)} characters, {LINE_LEN_MAX} are the limit"
        for file in files
        for number, line in enumerate(file.lines, start=1)
        if len(SILENCERS.sub("", line).rstrip()) > LINE_LEN_MAX
    ]


def file_faults(files: Iterable[File]) -> list[str]:
    """Files that are too long."""
    return [
        f"{file.path} has {len(file.lines)} lines, {FILE_LINES_MAX} are the limit: find the two things it does"
        for file in files
        if len(file.lines) > FILE_LINES_MAX
    ]


def function_faults(files: Iterable[File]) -> list[str]:
    """Functions that are too long."""
    return [
        f"{file.path}:{node.lineno} {node.name} has {_length(node)} lines, {FUNCTION_LINES_MAX} are the limit"
        for file in files
        for node in _functions(file)
        if _length(node) > FUNCTION_LINES_MAX
    ]


def median_faults(files: Iterable[File]) -> list[str]:
    """The usual length of a function, over all files together."""
    median = statistics.median([_length(node) for file in files for node in _functions(file)])
    if median <= FUNCTION_LINES_MEDIAN_MAX:
        return []
    return [f"half of all functions have over {median:.0f} lines, {FUNCTION_LINES_MEDIAN_MAX} are the limit"]


def docstring_faults(files: Iterable[File]) -> list[str]:
    """Modules that do not say what lives in them."""
    return [f"{file.path} opens without a docstring" for file in files if not ast.get_docstring(file.tree)]


def call_faults(files: Iterable[File]) -> list[str]:
    """Banned names that are used, each with what to write instead."""
    return [
        f"{file.path}:{line} uses {name}: {ban.instead}"
        for file in files
        for line, name in _names_used(file.tree)
        for ban in BANS
        if ban.matches(file.path, name)
    ]


def except_faults(files: Iterable[File]) -> list[str]:
    """Handlers that catch everything without a name, or catch any error only to go on."""
    return [
        f"{file.path}:{node.lineno} hides every error: name the ones expected here, and make an outcome of them"
        for file in files
        for node in ast.walk(file.tree)
        if isinstance(node, ast.ExceptHandler) and _is_silent(node)
    ]


def marker_faults(files: Iterable[File]) -> list[str]:
    """Marks of work that was not finished."""
    return _matches(files, MARKERS, "finish it, or leave it out")


def machine_faults(files: Iterable[File]) -> list[str]:
    """Paths that exist on one machine only."""
    return _matches(files, MACHINE_PATHS, "no machine but one has that path")


def silencer_faults(files: Iterable[File]) -> list[str]:
    """Rules silenced on a line without saying which, or why, beside it."""
    return [
        f"{file.path}:{line} silences a rule: name the rule, then `# why`"
        for file in files
        for line, comment in _comments(file)
        for match in [SILENCERS.match(comment)]
        if match and not ((match[2] or match[3]) and re.match(r"\s*#\s*\w", match["rest"]))
    ]


def core_faults(files: Iterable[File]) -> list[str]:
    """The size of the core, which stays small enough to be read in an afternoon."""
    lines = sum(len(file.lines) for file in files if file.path.startswith(CORE) and not file.path.startswith(NOT_CORE))
    return [f"the core has {lines} lines, {CORE_LINES_MAX} are the limit"] if lines > CORE_LINES_MAX else []


def _functions(file: File) -> Iterator[FunctionNode]:
    return (node for node in ast.walk(file.tree) if isinstance(node, FunctionNode))


def _length(node: FunctionNode) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _names_used(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every imported or built-in name that is used, dotted in full, whatever it is called here."""
    origins = dict(_origins(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            first, _, rest = ast.unparse(node).partition(".")
            full = ".".join(part for part in (origins.get(first, first), rest) if part)
            if first in origins or not rest:
                yield node.lineno, full


def _origins(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What each imported name stands for, in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (root, root)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _is_silent(node: ast.ExceptHandler) -> bool:
    if node.type is None:
        return True
    names = {child.id for child in ast.walk(node.type) if isinstance(child, ast.Name)}
    return bool(names & {"BaseException", "Exception"}) and all(_does_nothing(statement) for statement in node.body)


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Pass | ast.Continue):
        return True
    is_call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    return isinstance(statement, ast.Expr) and (
        not is_call or bool(re.search(r"log|print|warn", ast.unparse(statement)))
    )


def _comments(file: File) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(file.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _matches(files: Iterable[File], pattern: re.Pattern[str], advice: str) -> list[str]:
    return [
        f"{file.path}:{number} says {match[0]}: {advice}"
        for file in files
        for number, line in enumerate(file.lines, start=1)
        for match in [pattern.search(line)]
        if match
    ]
