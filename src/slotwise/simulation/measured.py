"""Profiles that were measured: reads what `slotwise profile --json` has written.

A run takes its processor time (`run_ms`), which is what a core that nobody else uses needs by the wall. An entry that
could not be measured is passed over; nobody can name it.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from slotwise.config import MIB, ConfigError
from slotwise.facts.profile import Profile, problems
from slotwise.facts.units import MS
from slotwise.measuring import ModelReport
from slotwise.simulation.places import json_places, line_of

_AT_BYTE = re.compile(r"\(byte (\d+)\)")


def read_measured(path: Path) -> dict[str, Profile]:
    """Every profile of a file, by its id, as `ocr/1`, and by its name alone. Raises ConfigError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    return measured_in(content, str(path))


def measured_in(content: bytes, called: str) -> dict[str, Profile]:
    """The same of a file's content. Of several versions the last gets the name."""
    found: dict[str, Profile] = {}
    for index, report in enumerate(_decoded(content, called)):
        if report.error:
            continue
        profile = _profile(report)
        wrong = problems(profile)
        if wrong:
            field = "rows" if "rows" in wrong[0] else "run_ms"
            line = line_of(json_places(content.decode()), f"$[{index}].{field}")
            raise ConfigError(f"{called}, line {line}: `[{index}].{field}`: {wrong[0]}")
        found[report.model] = found[report.model.partition("/")[0]] = profile
    return found


def _decoded(content: bytes, called: str) -> list[ModelReport]:
    """All of it is read before it is judged, so that places are looked for in what is JSON to its end."""
    try:
        return msgspec.convert(msgspec.json.decode(content), list[ModelReport])
    except msgspec.ValidationError as error:
        complaint, _, path = str(error).partition(" - at `")
        path = path.removesuffix("`") or "$"
        line = line_of(json_places(content.decode()), path)
        raise ConfigError(
            f"{called}, line {line}: `{path.removeprefix('$').removeprefix('.')}`: {complaint}"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        at = _AT_BYTE.search(str(error))
        line = content.count(b"\n", 0, int(at[1])) + 1 if at else 1
        raise ConfigError(f"{called}, line {line}: {error}; is it what `slotwise profile --json` wrote?") from error


def _profile(report: ModelReport) -> Profile:
    return Profile(
        rows=report.rows,
        run_ns=tuple(round(ms * MS) for ms in report.run_ms),
        load_ns=round(report.load_ms * MS),
        memory_bytes=round(report.memory_mib * MIB),
    )
