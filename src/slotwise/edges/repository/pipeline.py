"""A pipeline as its owner writes it: `pipeline.yaml` in the folder of its name. Here live its form and its reading.

What the steps mean together, and whether they fit, is in `graph`; a Triton ensemble comes to the same form by way of
`pbtxt`. The file is plain data: YAML's tags are not followed and aliases are refused, so that a short file stays short.
Errors name the line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import yaml

from slotwise.edges.repository.settings import Milliseconds, Priority, Settings, Weight
from slotwise.engine.ports import ModelError

PIPELINE_FILE = "pipeline.yaml"
ROOT = "$"
PLACE = " - at `"
"""What the library puts between a complaint and the place that it is about."""


class StepText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A step: the model's own names on the left, tensors of the pipeline on the right."""

    model: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    version: int | None = None
    """None takes the newest that is on offer, and goes on with newer ones."""


class PipelineText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole pipeline."""

    steps: tuple[StepText, ...]
    inputs: tuple[str, ...]
    """Tensors that clients send."""
    outputs: tuple[str, ...]
    """Tensors that clients get."""
    slo_ms: Milliseconds | None = None
    priority: Priority | None = None
    weight: Weight | None = None

    def settings(self) -> Settings:
        """What it says that other models say in their own settings."""
        return Settings(slo_ms=self.slo_ms, priority=self.priority, weight=self.weight)


def read(path: Path) -> PipelineText:
    """The pipeline in a file. Raises ModelError, which names the file, the line and what is at fault."""
    lines: dict[str, int] = {}
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if root is None:
            raise ModelError(f"{path} is empty; it needs `steps`, `inputs` and `outputs`")
        return msgspec.convert(_plain(root, ROOT, lines, set()), PipelineText)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{path}: {' '.join(str(error).split())}") from error
    except _Fault as fault:
        raise ModelError(f"{path}: line {fault.line}: {fault}") from fault
    except msgspec.ValidationError as error:
        complaint, _, place = str(error).partition(PLACE)
        place = place.removesuffix("`") or ROOT
        key = f"{place}.{complaint.split('`')[1]}" if "`" in complaint else place  # a field that is not known
        line = next(lines[part] for part in (key, *_prefixes(place)) if part in lines)
        where = f"{place.removeprefix(f'{ROOT}.')}: " if place != ROOT else ""
        raise ModelError(f"{path}: line {line}: {where}{complaint}") from error


class _Fault(Exception):
    """What no pipeline may have, whatever it means."""

    def __init__(self, node: yaml.Node, text: str) -> None:
        super().__init__(text)
        self.line = node.start_mark.line + 1


def _plain(node: yaml.Node, place: str, lines: dict[str, int], seen: set[int]) -> object:
    """A node as lists, dicts and scalars; notes the line of every place on the way."""
    if id(node) in seen:
        raise _Fault(node, "aliases are not taken; write it out")
    seen.add(id(node))
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, f"{place}[{at}]", lines, seen) for at, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, object] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Fault(key, "a key must be a plain word")
            if key.value in found:
                raise _Fault(key, f"`{key.value}` stands twice")
            found[key.value] = _plain(child, f"{place}.{key.value}", lines, seen)
        return found
    return yaml.SafeLoader("").construct_object(node)


def _prefixes(place: str) -> Iterator[str]:
    """A place and those around it, from the inside out."""
    while place:
        yield place
        place = place[: max(place.rfind("."), place.rfind("["))] if place != ROOT else ""
