"""What is asked: a model of the zoo with its example, a deadline, and now and then a flaw. Drawn from a seed."""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slotwise.client import Array
from slotwise.demo.mix import Exhibit

MODELS = ("file-type", "ocr-angle", "page-orientation", "pitch", "sentence-embed", "voice-activity")
JSON_BYTES_MAX = 16 << 10
"""Larger inputs are not asked about in JSON, which would take the machine for itself."""
FLAWED = 0.03
WIDE_US = 10_000_000
TIGHT, OWN, WIDE = 0.35, 0.35, 0.3
"""Shares of deadlines: shorter than the model's own, its own, and far away."""


class Flaw(enum.Enum):
    """What is wrong with a request."""

    UNKNOWN_MODEL = enum.auto()
    UNKNOWN_INPUT = enum.auto()
    GARBAGE = enum.auto()


@dataclass(frozen=True)
class Asked:
    """One request."""

    exhibit: Exhibit
    timeout_us: int | None = None
    flaw: Flaw | None = None

    @property
    def model(self) -> str:
        """The model's name as it is asked for."""
        return "nobody" if self.flaw is Flaw.UNKNOWN_MODEL else self.exhibit.model

    @property
    def inputs(self) -> dict[str, Array]:
        """The inputs as they are sent."""
        if self.flaw in {Flaw.UNKNOWN_INPUT, Flaw.GARBAGE}:
            return {"no-such-input": np.zeros((1, 4), np.float32)}
        return self.exhibit.inputs

    def fits_json(self) -> bool:
        """Whether it is small enough to be asked in JSON."""
        return sum(array.nbytes for array in self.exhibit.inputs.values()) <= JSON_BYTES_MAX


def draw(rng: random.Random, exhibits: Sequence[Exhibit]) -> Asked:
    """Some request."""
    exhibit = rng.choice(exhibits)
    slo_us = exhibit.slo_ns // 1000
    (timeout_us,) = rng.choices((int(slo_us * rng.uniform(0.1, 0.8)), None, WIDE_US), (TIGHT, OWN, WIDE))
    flaw = rng.choice(list(Flaw)) if rng.random() < FLAWED else None
    return Asked(exhibit=exhibit, timeout_us=timeout_us, flaw=flaw)
