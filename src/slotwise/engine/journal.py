"""The journal: every turn as one line, and the proof that a controller decides the same again.

A line is JSON, `[now_ns, events, actions]`, each event and action as `[type, fields]`. The first line is
a header that says how to build the controller. A batch's requests stand as their ids, for their
arrivals hold the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO

import msgspec

from slotwise.engine.ports import Controller
from slotwise.facts.actions import Action, RunBatch
from slotwise.facts.events import EVENT_TYPES, Event
from slotwise.facts.value import value

JOURNAL_VERSION = 1
_EVENTS_BY_NAME = {kind.__name__: kind for kind in EVENT_TYPES}
_Line = tuple[int, list[tuple[str, dict[str, object]]], msgspec.Raw]
_encoder = msgspec.json.Encoder()


class JournalError(ValueError):
    """A journal that cannot be read; says which line and why."""


@value
class Difference:
    """Where a replay left the journal."""

    line: int
    recorded: str
    replayed: str


class Journal:
    """Writes turns to a binary file; a `Recorder`."""

    def __init__(self, file: IO[bytes], header: dict[str, object]) -> None:
        self._file = file
        file.write(_encoder.encode({"journal": JOURNAL_VERSION, **header}) + b"\n")

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Append one turn."""
        line = [now_ns, [[type(event).__name__, event] for event in events], _plain_actions(actions)]
        self._file.write(_encoder.encode(line) + b"\n")


def read_header(line: bytes) -> dict[str, object]:
    """The first line's fields. Raises JournalError when it is none or of another version."""
    try:
        header = msgspec.json.decode(line, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise JournalError(f"line 1: not a journal's header: {error}") from error
    if header.get("journal") != JOURNAL_VERSION:
        raise JournalError(f"line 1: this reads journals of version {JOURNAL_VERSION}, not {header.get('journal')!r}")
    return header


def replay(lines: Iterable[bytes], controller: Controller) -> tuple[int, Difference | None]:
    """Feed the turns that follow a header to a fresh controller; the number of turns, and the first difference."""
    turns = 0
    for number, line in enumerate(lines, start=2):
        now_ns, events, recorded = _read_turn(number, line)
        replayed = _encoder.encode(_plain_actions(controller.handle(events, now_ns)))
        turns += 1
        if replayed != bytes(recorded):
            return turns, Difference(line=number, recorded=bytes(recorded).decode(), replayed=replayed.decode())
    return turns, None


def _plain_actions(actions: Sequence[Action]) -> list[list[object]]:
    return [[type(action).__name__, _plain(action)] for action in actions]


def _plain(action: Action) -> object:
    if type(action) is not RunBatch:
        return action
    fields = {name: getattr(action, name) for name in RunBatch.__dataclass_fields__}
    return {**fields, "requests": [request.id for request in action.requests]}


def _read_turn(number: int, line: bytes) -> tuple[int, list[Event], msgspec.Raw]:
    try:
        now_ns, pairs, actions = msgspec.json.decode(line, type=_Line)
        return now_ns, [msgspec.convert(fields, _EVENTS_BY_NAME[name]) for name, fields in pairs], actions
    except KeyError as error:
        raise JournalError(f"line {number}: unknown event {error}") from error
    except msgspec.MsgspecError as error:
        raise JournalError(f"line {number}: {error}") from error
