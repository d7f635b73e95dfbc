"""One folder offered under many names: `copies = 50` in `slotwise.toml` of NAME offers NAME_0 to NAME_49.

Copies share the file, its digest and its profile; they differ in their names, and are loaded each for itself. Which
names there are and which folder each is in is said here, and what a folder's file digests to, once for all its copies.
"""

from __future__ import annotations

from pathlib import Path

from slotwise.edges.repository import layout, settings
from slotwise.edges.repository.layout import Limits, ModelFile, Signature
from slotwise.engine.ports import ModelError

KEY = b"copies"
"""A file without it is not read any further for its copies."""


def names(root: Path, limits: Limits) -> dict[str, str]:
    """The folder of every model by its name, in the order of folders; one that has copies is no model itself."""
    found: dict[str, str] = {}
    for folder in layout.names(root):
        copies = count(root / folder, limits)
        own = [f"{folder}_{number}" for number in range(copies)] if copies else [folder]
        found.update(dict.fromkeys(own, folder))
    return found


def folder_of(root: Path, name: str, limits: Limits) -> str:
    """The folder that a model is in; whether there is one is still to be seen. Raises ModelError for a name of none."""
    layout.check_name(name, limits)
    folder, _, number = name.rpartition("_")
    if folder and not (root / name).is_dir() and number.isdecimal() and str(int(number)) == number:
        return folder if int(number) < count(root / folder, limits) else name
    copies = count(root / name, limits)
    if copies:
        raise ModelError(f"{name!r} has copies: they are {name}_0 to {name}_{copies - 1}")
    return name


def count(folder: Path, limits: Limits) -> int:
    """How many copies a folder's owner wants; 0 for the model itself, and where the settings cannot be read."""
    path = folder / settings.SETTINGS_FILE
    try:
        if path.stat().st_size > limits.settings_bytes_max or KEY not in path.read_bytes():
            return 0
        return settings.read(path).copies or 0
    except (OSError, ModelError):
        return 0  # whoever reads the model is told why


class Files:
    """Model files of folders that have copies, digested once as long as nothing in them changes."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Signature, ModelFile]] = {}

    def find(self, path: Path, root: Path, limits: Limits) -> ModelFile:
        """The one model in a version's folder. Raises ModelError."""
        signature = layout.signature(path.parent)
        known = self._known.get(path)
        if known is not None and known[0] == signature:
            return known[1]
        file = layout.model_file(path, root, limits)
        self._known[path] = (signature, file)
        return file
