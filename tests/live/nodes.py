"""Nodes as processes for tests: started as a user would start them, and ended with the test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO

END_S_MAX = 20


class Program:
    """A command's process, and the line in which it says that it is ready, which is waited for when it is asked for."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @cached_property
    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    @property
    def address(self) -> str:
        """Where it listens; the last word of the line."""
        return self.line.rsplit(maxsplit=1)[-1]


@contextmanager
def program(*words: object, within: Sequence[str] = (), errors: IO[str] | None = None) -> Iterator[Program]:
    """A command that says in a line that it is ready, until the test ends."""
    command = [*within, sys.executable, "-m", "slotwise.cli", *map(str, words), "--stop-at-eof"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Program(process)
    finally:
        process.stdin.close()
        process.wait(END_S_MAX)
        process.stdout.close()


@contextmanager
def hosting(folder: Path, *words: object, listen: str = "127.0.0.1:0", within: Sequence[str] = ()) -> Iterator[Program]:
    """A node with a cache of its own."""
    folder.mkdir(exist_ok=True)
    config = folder / "node.toml"
    config.write_text(f'memory_mib = 256\narena_mib = 32\n[nodes]\ncache = "{folder / "weights"}"\n')
    with program("node", "--listen", listen, "--config", config, *words, within=within) as node:
        yield node
