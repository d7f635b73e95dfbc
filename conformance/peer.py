"""Asks both servers the same, one after the other, and keeps both answers."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import msgspec

from conformance import grpc_cases, http_cases
from conformance.comparison import Row, row_of
from conformance.exchange import Answer, Case
from conformance.servers import Server, ours, triton


class Comparison(msgspec.Struct, frozen=True):
    """All that was asked of two servers."""

    versions: dict[str, str]
    rows: list[Row]


PROTOCOLS: Mapping[str, Mapping[str, Sequence[Case]]] = {"HTTP": http_cases.SECTIONS, "gRPC": grpc_cases.SECTIONS}


def compare() -> Comparison:
    """Ask everything. Raises NotHere when Triton cannot be had."""
    with tempfile.TemporaryDirectory() as name, _region():
        with ours(_folder(name, "ours")) as server:
            versions, our_answers = {server.name: server.version}, _asked(server)
        with triton(_folder(name, "triton")) as server:
            versions[server.name] = server.version
            their_answers = _asked(server)
    rows = [
        row_of(protocol, section, case, our_answers[protocol, case.name], their_answers[protocol, case.name])
        for protocol, section, case in _cases()
    ]
    return Comparison(versions, rows)


def _cases() -> Iterator[tuple[str, str, Case]]:
    for protocol, sections in PROTOCOLS.items():
        for section, cases in sections.items():
            for case in cases:
                yield protocol, section, case


def _asked(server: Server) -> dict[tuple[str, str], Answer]:
    answers: dict[tuple[str, str], Answer] = {}
    for protocol, _, case in _cases():
        assert (protocol, case.name) not in answers, f"two requests are called {case.name!r}"
        answers[protocol, case.name] = case.ask(server)
    return answers


def _folder(name: str, server: str) -> Path:
    folder = Path(name) / server
    folder.mkdir()
    return folder


@contextlib.contextmanager
def _region() -> Iterator[None]:
    """A shared memory object whose first bytes are a row of input."""
    memory = SharedMemory(http_cases.KEY, create=True, size=http_cases.KEY_BYTES)
    try:
        memory.buf[: len(http_cases.ROW)] = http_cases.ROW
        yield
    finally:
        memory.close()
        memory.unlink()
