"""What a target is: seeds to begin from, one input at a time, and what must hold whatever was sent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

CORPUS = Path(__file__).parent / "corpus"
RESULTS = Path(__file__).parent / "results"


class Fault(AssertionError):
    """Something that the product must never do; `data` is the input to blame, where it is not the present one."""

    def __init__(self, words: str, data: bytes | None = None) -> None:
        super().__init__(words)
        self.data = data


class Target(Protocol):
    """One way into the product."""

    def seeds(self) -> Sequence[bytes]:
        """Inputs that are right, or nearly so."""

    def run(self, data: bytes) -> None:
        """One input. Whatever it raises is a fault; errors that are declared are not raised."""

    def check(self) -> None:
        """What must hold between inputs: nothing is kept, and a good request is answered right. Raises Fault."""

    def close(self) -> None:
        """The end; raises Fault for what has leaked."""


def kept(name: str) -> list[bytes]:
    """Inputs that found a fault in a target once."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*.bin"))]


def keep(name: str, data: bytes) -> Path:
    """Keep an input that has found a fault."""
    path = CORPUS / name / f"{hashlib.sha256(data).hexdigest()[:12]}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
