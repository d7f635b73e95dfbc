"""Packed models: the form in which weights are mapped by every executor, kept from start to start.

A pack is a folder named by a digest of what it was made of and for: the model's files, the runtime's version and the
processor. It is filled under another name and published by one rename, so that nothing half written is ever in view;
before its first use it is held against the digests that were written with it. Everything blocks and is meant for a
thread. How a model is packed is its runtime's business.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from slotwise.edges.repository.layout import digest
from slotwise.edges.repository.profiles import machine

FORMAT = 1
"""Part of every key; raised when the way of packing changes."""
DIGESTS_FILE = "digests.json"
DRAFT_PREFIX = ".draft-"
DRAFT_AGE_S_MAX = 86_400.0
"""A draft older than that was left behind by a process that died."""


class Packs:
    """A folder of packs. Those that this process has not asked for go, oldest first, beyond `bytes_max` in all."""

    def __init__(self, folder: Path, *, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._machine = machine()
        self._sound: set[str] = set()

    def key(self, fingerprint: str) -> str:
        """The name of the pack of a model here and now."""
        return hashlib.sha256(f"{FORMAT}\n{self._machine}\n{fingerprint}".encode()).hexdigest()

    def find(self, key: str) -> Path | None:
        """A pack's folder, if it is there and sound. One that is not sound is removed."""
        folder = self._folder / key
        if key not in self._sound:
            if not folder.is_dir():
                return None
            if not _is_sound(folder):
                shutil.rmtree(folder, ignore_errors=True)
                return None
            self._sound.add(key)
        with contextlib.suppress(OSError):  # how long ago it was used decides only who goes first
            os.utime(folder)
        return folder if folder.is_dir() else None

    def draft(self) -> Path | None:
        """An empty folder to pack into; None where nothing can be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=DRAFT_PREFIX, dir=self._folder))
            self._sweep(draft.stat().st_mtime)
            return draft
        except OSError:
            return None

    def publish(self, draft: Path, key: str) -> Path | None:
        """Make a draft the pack of that name, and return it; None when that cannot be, and then the draft is gone."""
        try:
            digests = {file.name: digest(file) for file in sorted(draft.iterdir())}
            (draft / DIGESTS_FILE).write_text(json.dumps(digests), encoding="ascii")
            draft.chmod(0o755)
            with contextlib.suppress(FileExistsError):
                _rename(draft, self._folder / key)
            self._prune(key)
        except OSError:
            self.discard(draft)
            return None
        self.discard(draft)
        return self.find(key)

    def discard(self, draft: Path) -> None:
        """Remove a draft, whatever is in it."""
        shutil.rmtree(draft, ignore_errors=True)

    def _prune(self, newest: str) -> None:
        sizes = {path: _bytes(path) for path in self._folder.iterdir() if not path.name.startswith(".")}
        spare_bytes = sum(sizes.values()) - self._bytes_max
        for path in sorted(sizes, key=lambda path: path.stat().st_mtime_ns):
            if spare_bytes <= 0:
                return
            if path.name not in self._sound and path.name != newest:
                shutil.rmtree(path, ignore_errors=True)
                spare_bytes -= sizes[path]

    def _sweep(self, now_s: float) -> None:
        for path in self._folder.glob(f"{DRAFT_PREFIX}*"):
            if now_s - path.stat().st_mtime > DRAFT_AGE_S_MAX:
                self.discard(path)


def _rename(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError as error:
        if folder.is_dir():  # another server was first, and its pack is as good
            raise FileExistsError(folder) from error
        raise


def _is_sound(folder: Path) -> bool:
    try:
        digests = json.loads((folder / DIGESTS_FILE).read_bytes())
        return bool(digests) and all(digest(folder / name) == text for name, text in digests.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
