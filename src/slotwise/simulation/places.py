"""On which line of a file each of its keys stands, so that an error can name it. Pure; nothing here judges a value.

Paths are written as msgspec writes them, `$.models[1].rows`. The text is one that has been read without an error, so
TOML is cut into its statements by trying where each ends, and JSON is walked by its tokens.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

import msgspec

LINES_PER_VALUE_MAX = 200
"""A value that goes on for longer stands on the line on which it begins, and so does all that follows it."""
ROOT = "$"

_JSON_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]|[^\s\[\]{},:"]+')
_PARENT = re.compile(r"(\.[^.\[]*|\[[^\]]*\])$")


def line_of(places: dict[str, int], path: str) -> int:
    """The line of a path, or of the nearest part above it that has one; the first, where none has."""
    while path not in places and path != ROOT:
        shorter = _PARENT.sub("", path)
        path = shorter if shorter != path else ROOT
    return places.get(path, 1)


def toml_places(text: str) -> dict[str, int]:
    """Path -> line of every key and table of a TOML file, counted from 1."""
    places: dict[str, int] = {}
    arrays: dict[str, int] = {}
    table = ROOT
    for number, chunk in _statements(text.replace("\r\n", "\n").split("\n")):
        parsed = tomllib.loads(chunk)
        if chunk.lstrip().startswith("["):
            table = _table_path(parsed, chunk.lstrip().startswith("[["), arrays)
            places.setdefault(table, number)
            places.setdefault(_PARENT.sub("", table) if table.endswith("]") else table, number)
        else:
            _enter(places, parsed, table, number)
    return places


def json_places(text: str) -> dict[str, int]:
    """Path -> line of every key and item of a JSON file, counted from 1."""
    places: dict[str, int] = {}
    above: list[_Level] = []
    line, seen = 1, 0
    for token in _JSON_TOKENS.finditer(text):
        line += text.count("\n", seen, token.start())
        seen = token.start()
        word = token.group()
        level = above[-1] if above else None
        if word in "]}":
            above.pop()
        elif word == ",":
            assert level is not None, "a comma stands in a list or an object"
            level.goes_on()
        elif level is not None and level.wants_key:
            level.take_key(msgspec.json.decode(word))
            places.setdefault(level.path_of_next(), line)
        else:
            path = ROOT if level is None else level.path_of_next()
            places.setdefault(path, line)
            if word in "[{":
                above.append(_Level(path, is_list=word == "["))
    return places


class _Level:
    """A list or an object that is being walked: which of its items comes next."""

    def __init__(self, path: str, *, is_list: bool) -> None:
        self._path = path
        self._is_list = is_list
        self._at = 0
        self._key = ""
        self.wants_key = not is_list

    def take_key(self, key: str) -> None:
        """The value of this key comes next."""
        self._key, self.wants_key = key, False

    def goes_on(self) -> None:
        """A comma was read."""
        self._at += 1
        self.wants_key = not self._is_list

    def path_of_next(self) -> str:
        """The path of the item that is read now."""
        return f"{self._path}[{self._at}]" if self._is_list else f"{self._path}.{self._key}"


def _statements(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Every key with its value, and every header, with its first line; the rest of the file, if one is too long."""
    at = 0
    while at < len(lines):
        if not lines[at].strip() or lines[at].lstrip().startswith("#"):
            at += 1
            continue
        end = at + 1
        while not _is_whole(lines[at:end]):
            end += 1
            if end > len(lines) or end - at > LINES_PER_VALUE_MAX:
                return
        yield at + 1, "\n".join(lines[at:end])
        at = end


def _is_whole(lines: list[str]) -> bool:
    try:
        tomllib.loads("\n".join(lines))
    except (tomllib.TOMLDecodeError, RecursionError):
        return False
    return True


def _table_path(parsed: dict[str, object], is_array: bool, arrays: dict[str, int]) -> str:
    """The path of a header, where tables of an array are counted as they come."""
    path, inner = ROOT, parsed
    while inner:
        (name, below), *_ = inner.items()
        path = f"{path}.{name}"
        below = below[0] if isinstance(below, list) else below
        assert isinstance(below, dict), "a header names tables only"
        inner = below
        if inner and path in arrays:
            path = f"{path}[{arrays[path]}]"
    if not is_array:
        return path
    arrays[path] = arrays.get(path, -1) + 1
    return f"{path}[{arrays[path]}]"


def _enter(places: dict[str, int], found: object, path: str, number: int) -> None:
    """Every path within a value stands where the value begins."""
    below: Iterator[tuple[str, object]]
    if isinstance(found, dict):
        below = ((f"{path}.{name}", inner) for name, inner in found.items())
    elif isinstance(found, list):
        below = ((f"{path}[{index}]", inner) for index, inner in enumerate(found))
    else:
        return
    for inner_path, inner in below:
        places.setdefault(inner_path, number)
        _enter(places, inner, inner_path, number)
