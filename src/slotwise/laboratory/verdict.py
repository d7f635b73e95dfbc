"""What came of an experiment: its claims with what was found, kept beside its rows."""

from __future__ import annotations

from pathlib import Path

import msgspec

from slotwise.laboratory.finding import Found
from slotwise.laboratory.machine import Machine
from slotwise.laboratory.values import Claim, LaboratoryError

FILE = "verdict.json"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Every claim of an experiment, judged; and where it ran. A quick run is a first look."""

    name: str
    title: str
    is_quick: bool
    machine: Machine
    """As it was when the last of the cases had been run."""
    claims: tuple[Claim, ...]

    @property
    def held(self) -> int:
        """How many claims hold."""
        return sum(claim.holds for claim in self.claims)


def read_verdict(found: Found, is_quick: bool = False) -> Verdict | None:
    """What came of an experiment the last time; None where it never ran. Raises LaboratoryError."""
    file = found.results(is_quick) / FILE
    if not file.exists():
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=Verdict)
    except msgspec.DecodeError as error:
        raise LaboratoryError(f"{file}: {error}; run the experiment again") from error


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """Keep it for reports."""
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(verdict), indent=2) + b"\n")
