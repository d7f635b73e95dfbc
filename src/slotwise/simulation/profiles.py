"""The profiles that Slotwise ships: what other people's devices need for known models, to simulate with.

The numbers lie beside this file: those of Clockwork's models, which are not served here, and what `slotwise profile`
has measured of the zoo. Each names the table that it is from; `SOURCES` says what each table is.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

from slotwise.config import ConfigError
from slotwise.facts.profile import Profile
from slotwise.facts.units import MS
from slotwise.facts.value import value
from slotwise.simulation.measured import measured_in

TABLE, MEASURED = "clockwork.csv", "measured.json"
BATCHES = (1, 2, 4, 8, 16)
"""The batch sizes that its columns are for."""
MB, KB = 1_000_000, 1_000

SOURCES = {
    "table-1": "Clockwork (OSDI 2020), table 1: TVM on an NVIDIA V100; exact",
    "full-table": "Clockwork, the full table of its preprint, as a public simulator has it; whole numbers are rounded",
    "seeds": "Clockwork's published code: times that its controller starts from, on an NVIDIA V100",
    "measured": "`slotwise profile` of what `slotwise zoo build` makes: processor time of one core of an Intel Xeon,"
    " on a machine shared with others, 2026-11-22",
}


@value
class ShippedProfile:
    """One line of a shipped table; `source` is a key of SOURCES. A request's bytes are None where it has none."""

    name: str
    source: str
    profile: Profile
    input_bytes: int | None = None
    output_bytes: int | None = None


@cache
def shipped_profiles() -> dict[str, ShippedProfile]:
    """Every shipped profile by its name, in the order of the tables."""
    folder = files("slotwise.simulation")
    lines = folder.joinpath(TABLE).read_text(encoding="utf-8").splitlines()
    rows = [_row(fields) for fields in csv.DictReader(lines)]
    for name, profile in measured_in(folder.joinpath(MEASURED).read_bytes(), MEASURED).items():
        if "/" not in name:
            rows.append(ShippedProfile(name=name, source="measured", profile=profile))
    return {row.name: row for row in rows}


def shipped_profile(name: str) -> Profile:
    """The shipped profile of that name, as `resnet50` of Clockwork's table 1. Raises ConfigError."""
    known = shipped_profiles()
    if name not in known:
        raise ConfigError(f"there is no shipped profile {name!r}; `slotwise simulate --profiles` lists them")
    return known[name].profile


def _row(fields: dict[str, str]) -> ShippedProfile:
    """On these devices nothing that runs can be stopped, so a stop takes as long as the longest batch."""
    run_ns = tuple(round(float(fields[f"b{rows}_ms"]) * MS) for rows in BATCHES)
    return ShippedProfile(
        name=fields["name"],
        source=fields["table"],
        profile=Profile(
            rows=BATCHES,
            run_ns=run_ns,
            load_ns=round(float(fields["load_ms"]) * MS),
            memory_bytes=round(float(fields["weights_mb"]) * MB),
            stop_ns=run_ns[-1],
        ),
        input_bytes=round(float(fields["input_kb"]) * KB),
        output_bytes=round(float(fields["output_kb"]) * KB),
    )
