"""What the owner of a model asks for: `slotwise.toml` beside its versions.

Here live the form of that file and how two sources are laid over each other. Reading a Triton
configuration is in `pbtxt`; turning wishes into a `ModelSpec` is in `registry`. A key that is not known is
an error, because a misspelt wish that is passed over in silence is found out under load.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from slotwise.engine.ports import ModelError
from slotwise.facts.profile import ROWS_MAX
from slotwise.facts.types import PRIORITY_HIGHEST, PRIORITY_LOWEST

SETTINGS_FILE = "slotwise.toml"

SLO_MS_MAX = 86_400_000
"""A day."""
WEIGHT_MAX = 1_000_000

Milliseconds = Annotated[float, msgspec.Meta(gt=0, le=SLO_MS_MAX)]
Weight = Annotated[float, msgspec.Meta(gt=0, le=WEIGHT_MAX)]
Count = Annotated[int, msgspec.Meta(ge=1, le=(1 << 62) - 1)]
Rows = Annotated[int, msgspec.Meta(ge=1, le=ROWS_MAX)]
Priority = Annotated[int, msgspec.Meta(ge=PRIORITY_HIGHEST, le=PRIORITY_LOWEST)]
Accuracy = Annotated[float, msgspec.Meta(ge=0, le=1)]
Shape = tuple[Count, ...]
COPIES_MAX = 10_000
Copies = Annotated[int, msgspec.Meta(ge=1, le=COPIES_MAX)]


class Latest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Offer the so many highest versions."""

    latest: Count


Versions = Literal["all"] | tuple[Count, ...] | Latest
"""Which versions to offer: all, these, or the latest few."""


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another way to the same answer: a sibling model, or a file of the version's folder, and how good it is."""

    accuracy: Accuracy
    model: str | None = None
    file: str | None = None


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model's wishes. None means that nothing was said, and a default holds."""

    slo_ms: Milliseconds | None = None
    batch_max: Rows | None = None
    batchable: bool | None = None
    """Overrules what a trial has shown of whether rows may be put together."""
    priority: Priority | None = None
    weight: Weight | None = None
    versions: Versions | None = None
    accuracy: Accuracy | None = None
    """How good the model itself is, on the scale of its variants."""
    variants: tuple[Variant, ...] = ()
    copies: Copies | None = None
    """Offer the model under so many names instead, NAME_0 and so on."""
    examples: dict[str, Shape] = {}
    """Whole shapes, by input and with 1 for the batch, to measure with where the model leaves a dimension open."""

    def over(self, lower: Settings) -> Settings:
        """These wishes, and those of `lower` where these say nothing."""
        return Settings(
            slo_ms=lower.slo_ms if self.slo_ms is None else self.slo_ms,
            batch_max=lower.batch_max if self.batch_max is None else self.batch_max,
            batchable=lower.batchable if self.batchable is None else self.batchable,
            priority=lower.priority if self.priority is None else self.priority,
            weight=lower.weight if self.weight is None else self.weight,
            versions=lower.versions if self.versions is None else self.versions,
            accuracy=lower.accuracy if self.accuracy is None else self.accuracy,
            variants=self.variants or lower.variants,
            copies=lower.copies if self.copies is None else self.copies,
            examples=self.examples or lower.examples,
        )

    def pick(self, versions: list[int], otherwise: Versions) -> list[int]:
        """The versions of `versions` to offer, ascending."""
        wanted = otherwise if self.versions is None else self.versions
        if wanted == "all":
            return sorted(versions)
        if isinstance(wanted, Latest):
            return sorted(versions)[-wanted.latest :]
        return sorted(set(versions).intersection(wanted))


def read(path: Path) -> Settings:
    """The settings in a file. Raises ModelError, which names the file and the key at fault."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        settings = msgspec.convert(found, Settings)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, msgspec.ValidationError) as error:
        raise ModelError(f"{path}: {error}") from error
    for variant in settings.variants:
        if (variant.model is None) == (variant.file is None):
            raise ModelError(f"{path}: each of `variants` names either a `model` or a `file`, and not both")
    return settings
