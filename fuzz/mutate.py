"""Inputs out of inputs: bytes, words, numbers, and trees of JSON are changed, and two inputs are joined.

Everything is drawn from a generator that is handed in, so a case is named by a seed and a number.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence

LENGTH_MAX = 1 << 16
CHANGES_MEAN = 1.5
NUMBERS = (
    *(0, -1, 1, 2, 3, 4, 7, 8, 15, 16, 63, 64, 65, 127, 128, 255, 256, 1023, 1024, 4095, 4096, 65_535, 65_536, 1 << 20),
    *((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, 1 << 64, 10**30),
    *(-(1 << 31), -(1 << 63)),
)
VALUES: tuple[object, ...] = (
    *(None, True, False, 0.5, -0.0, 1e308, 1e-320, "", "a", "\x00", "\r\n", "\u00e4", "\ud7ff", "=1+1", "../x", "%s{}"),
    *([], {}, [[]], [None], {"": None}, [0] * 300),
)
_NUMBER = re.compile(rb"-?\d{1,40}")
Change = Callable[[bytes, random.Random], bytes]


class Mutator:
    """Changes inputs of one target; `words` are what means something there."""

    def __init__(self, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
        self._seeds = list(seeds)
        self._words = list(words)
        self._changes: tuple[Change, ...] = (
            *(_flip, _set, _cut, _repeat, _swap, _renumber, _renumber, _retree, _retree),
            *(self._insert, self._join),
        )

    def draw(self, source: random.Random) -> bytes:
        """An input out of the seeds."""
        return self.change(source.choice(self._seeds), source)

    def change(self, data: bytes, source: random.Random) -> bytes:
        """An input out of another."""
        for _ in range(1 + int(source.expovariate(1 / CHANGES_MEAN))):
            data = source.choice(self._changes)(data, source)
        return data[:LENGTH_MAX]

    def _insert(self, data: bytes, source: random.Random) -> bytes:
        at = source.randint(0, len(data))
        return data[:at] + (source.choice(self._words) if self._words else source.randbytes(4)) + data[at:]

    def _join(self, data: bytes, source: random.Random) -> bytes:
        other = source.choice(self._seeds)
        return data[: source.randint(0, len(data))] + other[source.randint(0, len(other)) :]


def _flip(data: bytes, source: random.Random) -> bytes:
    return _put(data, source, lambda old: old ^ (1 << source.randrange(8)))


def _set(data: bytes, source: random.Random) -> bytes:
    return _put(data, source, lambda _: source.choice(b'\x00\x01\x7f\x80\xff\r\n \t"[]{}:,0-'))


def _put(data: bytes, source: random.Random, change: Callable[[int], int]) -> bytes:
    if not data:
        return source.randbytes(1)
    at = source.randrange(len(data))
    return data[:at] + bytes([change(data[at])]) + data[at + 1 :]


def _span(data: bytes, source: random.Random) -> tuple[int, int]:
    start = source.randint(0, len(data))
    return start, min(len(data), start + int(source.expovariate(1 / 8)) + 1)


def _cut(data: bytes, source: random.Random) -> bytes:
    start, end = _span(data, source)
    return data[:start] + data[end:]


def _repeat(data: bytes, source: random.Random) -> bytes:
    start, end = _span(data, source)
    return data[:start] + data[start:end] * source.choice((2, 3, 100)) + data[end:]


def _swap(data: bytes, source: random.Random) -> bytes:
    start, end = _span(data, source)
    at = source.randint(0, len(data))
    return data[:start] + data[end:] + data[start:end] if at < start else data[:at] + data[start:end] + data[at:]


def _renumber(data: bytes, source: random.Random) -> bytes:
    found = list(_NUMBER.finditer(data))
    if not found:
        return _set(data, source)
    match = source.choice(found)
    return data[: match.start()] + b"%d" % source.choice(NUMBERS) + data[match.end() :]


def _retree(data: bytes, source: random.Random) -> bytes:
    """Change a value somewhere in the first JSON object."""
    start = data.find(b"{")
    text = data[start:].decode("latin-1") if start >= 0 else ""
    try:
        tree, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return _flip(data, source)
    changed = json.dumps(_changed(tree, source)).encode()
    return data[:start] + changed + data[start + end :]


def _changed(tree: object, source: random.Random) -> object:
    if isinstance(tree, dict) and tree and source.random() < 0.8:
        name = source.choice(sorted(tree))
        if source.random() < 0.2:
            return {key: inner for key, inner in tree.items() if key != name}
        return {**tree, name: _changed(tree[name], source)}
    if isinstance(tree, list) and tree and source.random() < 0.8:
        at = source.randrange(len(tree))
        if source.random() < 0.3:
            return [*tree[:at], tree[at], *tree[at:]] if source.random() < 0.5 else tree[:at] + tree[at + 1 :]
        return [*tree[:at], _changed(tree[at], source), *tree[at + 1 :]]
    return source.choice((*VALUES, *NUMBERS, [tree], {"a": tree}, [tree] * 3))
