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


@value
class Replayed:
    """What a replay has shown: how many turns were decided the same, and what it stopped at before the end."""

    turns: int
    difference: Difference | None = None
    torn_line: int | None = None
    """The last line, if its end is missing: the server was killed while it wrote. It was left out."""


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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise JournalError(
            f"line 1: not a journal's header ({error}); name a file that --journal has written"
        ) from error
    if header.get("journal") != JOURNAL_VERSION:
        raise JournalError(f"line 1: this reads journals of version {JOURNAL_VERSION}, not {header.get('journal')!r}")
    return header


def replay(lines: Iterable[bytes], controller: Controller) -> Replayed:
    """Feed the turns that follow a header to a fresh controller, up to the first difference.

    Lines come with their line ends. Raises JournalError, which names the line, for one that cannot be replayed.
    """
    turns = 0
    for number, line in enumerate(lines, start=2):
        try:
            now_ns, events, recorded = _read_turn(number, line)
        except JournalError:
            if line.endswith(b"\n"):
                raise
            return Replayed(turns=turns, torn_line=number)
        replayed = _encoder.encode(_plain_actions(_handled(number, controller, events, now_ns)))
        if replayed != bytes(recorded):
            difference = Difference(line=number, recorded=bytes(recorded).decode(), replayed=replayed.decode())
            return Replayed(turns=turns, difference=difference)
        turns += 1
    return Replayed(turns=turns)


def _handled(number: int, controller: Controller, events: Sequence[Event], now_ns: int) -> Sequence[Action]:
    try:
        return controller.handle(events, now_ns)
    except Exception as error:
        raise JournalError(
            f"line {number}: the controller fails there with {error!r}; is a line before it missing or changed?"
        ) from error


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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise JournalError(f"line {number} is damaged: {error}") from error
