"""Reads a simulation's file: an error names the file, the line and the key.

The form is checked first, then what its parts must agree on, then the scenario is built: whoever has read a file can
run it. Files that it names are looked for beside it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec

from slotwise.config import ConfigError
from slotwise.facts.profile import Profile
from slotwise.facts.value import value
from slotwise.simulation.agreement import Finding, findings
from slotwise.simulation.building import scenario_of, with_wanted_models, workload_of
from slotwise.simulation.form import Spec
from slotwise.simulation.measured import read_measured
from slotwise.simulation.places import line_of, toml_places
from slotwise.simulation.profiles import shipped_profiles
from slotwise.simulation.scenario import Scenario
from slotwise.workload.form import Lines
from slotwise.workload.values import WorkloadError

WORKLOAD = "$.workload"
_UNKNOWN_KEY = re.compile(r"^Object contains unknown field `(.*)`$", re.DOTALL)


@value
class Read:
    """A file that has been read, and the profiles that can be named in it."""

    path: Path
    text: str
    spec: Spec
    profiles: dict[str, Profile]


def read_scenario(path: Path) -> Scenario:
    """What a file says is to be simulated. Raises ConfigError."""
    read = read_spec(path)
    if read.spec.kinds and not read.spec.nodes:
        message = "no node has such devices: describe one in [[nodes]]; or let `slotwise capacity` count them"
        raise _told(path, read.text, Finding(path="$.kinds", message=message))
    return scenario_in(read)


def scenario_in(read: Read) -> Scenario:
    """The same of one that was read. Raises ConfigError."""
    lines = partial(_lines, read.path.parent)
    try:
        return scenario_of(read.spec, read.profiles, lines)
    except WorkloadError as error:
        path = _blamed(read.spec, lines, str(error))
        raise _told(read.path, read.text, Finding(path=path, message=str(error))) from error


def _blamed(spec: Spec, lines: Lines, message: str) -> str:
    """The part of a workload that is wrong in the same way by itself; the whole table, where none is."""
    form = spec.workload
    if form is None:
        return "$"
    alone = msgspec.structs.replace
    parts = {
        **{f".streams[{at}]": alone(form, streams=(part,), clients=()) for at, part in enumerate(form.streams)},
        **{f".clients[{at}]": alone(form, streams=(), clients=(part,)) for at, part in enumerate(form.clients)},
        **{f".parameters.{key}": alone(form, parameters={key: given}) for key, given in form.parameters.items()},
    }
    for path, part in parts.items():
        try:
            workload_of(alone(spec, workload=part), lines)
        except WorkloadError as error:
            if str(error) == message:
                return WORKLOAD + path
    return WORKLOAD


def _lines(folder: Path, name: str) -> Iterator[str]:
    """The lines of a file that a workload is replayed from. Raises ConfigError."""
    try:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            yield from file
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{folder / name} cannot be read: {why}") from error


def read_spec(path: Path) -> Read:
    """A file that agrees with itself. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
        plain = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        spec = with_wanted_models(msgspec.convert(plain, Spec))
    except msgspec.ValidationError as error:
        raise _told(path, text, _finding(str(error))) from error
    except WorkloadError as error:
        raise _told(path, text, Finding(path=WORKLOAD, message=str(error))) from error
    except RecursionError as error:
        raise ConfigError(f"{path}: {error}") from error
    read = Read(path=path, text=text, spec=spec, profiles=_profiles(spec, path.parent))
    for found in findings(spec, read.profiles):
        raise _told(path, text, found)
    return read


def _profiles(spec: Spec, folder: Path) -> dict[str, Profile]:
    """All that can be named; what a file has takes precedence over what is shipped."""
    found = {name: shipped.profile for name, shipped in shipped_profiles().items()}
    for file in spec.profiles:
        found |= read_measured(folder / file)
    return found


def _finding(complaint: str) -> Finding:
    """What msgspec says, apart from where; an unknown key is itself the place."""
    message, _, path = complaint.partition(" - at `")
    path = path.removesuffix("`") or "$"
    unknown = _UNKNOWN_KEY.match(message)
    if unknown:
        return Finding(path=f"{path}.{unknown[1]}", message="there is no such key")
    return Finding(path=path, message=message)


def _told(path: Path, text: str, found: Finding) -> ConfigError:
    line = line_of(toml_places(text), found.path)
    key = found.path.removeprefix("$").removeprefix(".")
    where = f"{path}, line {line}: `{key}`" if key else f"{path}"
    return ConfigError(f"{where}: {found.message}")
