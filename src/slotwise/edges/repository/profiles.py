"""Remembers what inspecting a model has shown, so that a second start need not measure again.

An entry is one JSON file, named by a digest of all that the measurement depends on: the model's files, what was
asked, the runtime's version and the processor. Entries are written whole or not at all; one that cannot be read
is as good as none.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import msgspec

from slotwise.engine.ports import Inspection, ModelError
from slotwise.facts.profile import problems

FORMAT = 2
"""Part of every key; raised when `Inspection` or the way of measuring changes."""
CPU_FIELDS = ("model name", "flags", "CPU implementer", "CPU part", "Features")


class Profiles:
    """A folder of inspections. The oldest go when there are more than `entries_max`."""

    def __init__(self, folder: Path, *, entries_max: int) -> None:
        self._folder = folder
        self._entries_max = entries_max
        self._machine = machine()

    def key(self, fingerprint: str, batch_max: int, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """The name of a measurement made here and now."""
        parts = msgspec.json.encode((FORMAT, self._machine, fingerprint, batch_max, sorted(shapes.items())))
        return hashlib.sha256(parts).hexdigest()

    def get(self, key: str) -> Inspection | None:
        """What is remembered; None when there is nothing or nothing sound."""
        try:
            found = msgspec.json.decode(self._path(key).read_bytes(), type=Inspection)
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return None if problems(found.profile) else found

    def put(self, key: str, inspection: Inspection) -> None:
        """Remember. Raises ModelError when the folder cannot be written."""
        path = self._path(key)
        draft = path.with_suffix(f".{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.encode(inspection))
            draft.replace(path)
            self._prune()
        except OSError as error:
            raise ModelError(
                f"what was measured cannot be kept: {error.strerror}; give the folder of the setting `cache` room,"
                " or name another"
            ) from error

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"

    def _prune(self) -> None:
        entries = list(self._folder.glob("*.json"))
        if len(entries) > self._entries_max:
            entries.sort(key=lambda path: path.stat().st_mtime_ns)
            for path in entries[: len(entries) - self._entries_max]:
                path.unlink(missing_ok=True)


def machine() -> str:
    """What a measurement depends on beside the model: the runtime's version and the processor."""
    try:
        runtime = importlib.metadata.version("onnxruntime")
    except importlib.metadata.PackageNotFoundError:
        runtime = "none"
    return "\n".join([runtime, platform.machine(), str(os.cpu_count()), *_processor_lines()])


def _processor_lines() -> list[str]:
    source = Path("/proc/cpuinfo")
    if not source.exists():
        return [platform.processor()]
    lines = source.read_text().partition("\n\n")[0].splitlines()
    return [line for line in lines if line.partition("\t")[0].strip() in CPU_FIELDS]
