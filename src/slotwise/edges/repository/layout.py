"""The folders of a repository: `<root>/<model>/<version>/model.onnx`, and what may not be in them.

Here live names, limits, digests and signatures of files; everything blocks and is meant for a thread. Nothing is
opened that lies, or that a link leads, outside the root. What the files mean is none of this module's business.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from slotwise.engine.ports import ModelError
from slotwise.facts.limits import check_limits
from slotwise.facts.value import value

MODEL_FILES = ("model.onnx", "model.emulated.json")
NAME_CHARS_SHOWN = 100
"""Of a name that is refused."""
NEVER_IN_NAMES = frozenset("/\0")
NO_NAMES = ("", ".", "..")
"""Whatever the pattern for names says: a name is one component of a path."""
VERSION_PATTERN = re.compile(r"[1-9][0-9]{0,17}")


@value
class Limits:
    """What a repository may hold. Beyond it, a model is refused in words and the others are served."""

    name_pattern: str = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
    models_max: int = 10_000
    versions_max: int = 1_000
    """Folders of versions looked at in one model."""
    model_bytes_max: int = 16 << 30
    """Of all files of one version together."""
    settings_bytes_max: int = 1 << 20
    """Of `slotwise.toml`, `pipeline.yaml` and `config.pbtxt` each."""
    steps_max: int = 16
    """Of a pipeline."""
    profiles_max: int = 10_000
    """Measurements that are remembered; beyond it the oldest are forgotten."""
    packs_bytes_max: int = 64 << 30
    """Of packed models; beyond it, those go first that were not used for longest, but none in use."""

    def __post_init__(self) -> None:
        """Raise ValueError, which names the limit, for a value that none can have."""
        check_limits(self)
        try:
            re.compile(self.name_pattern)
        except re.error as error:
            raise ValueError(f"`name_pattern` is {self.name_pattern!r}, no regular expression: {error}") from error


LIMITS = Limits()


@value
class ModelFile:
    """One version's model. `fingerprint` also covers the files beside it, where large weights are kept."""

    path: Path
    digest: str
    fingerprint: str


Signature = tuple[tuple[str, int, int, int], ...]
"""Of each file of a model: path, inode, size, and time of change. Differs when a file may have changed."""


def check_name(name: str, limits: Limits) -> None:
    """Raise ModelError unless the name may be one; those that pass are one plain path component."""
    if re.fullmatch(limits.name_pattern, name) is None or name in NO_NAMES or not NEVER_IN_NAMES.isdisjoint(name):
        raise ModelError(f"{name[:NAME_CHARS_SHOWN]!r} is no name for a model; names match {limits.name_pattern}")


def names(root: Path) -> list[str]:
    """All folders of the root that are not hidden, in order; their names are still to be checked.

    A name that is no UTF-8 has its odd bytes escaped: it can be told then, and is no folder's.
    """
    try:
        return sorted(
            path.name.encode(errors="backslashreplace").decode()
            for path in root.iterdir()
            if path.is_dir() and not path.name.startswith(".")
        )
    except OSError as error:
        raise ModelError(f"{root} cannot be read as a folder of models: {error.strerror}") from error


def folder(root: Path, name: str, limits: Limits) -> Path:
    """The folder of a model. Raises ModelError when there is none or it is elsewhere in truth."""
    check_name(name, limits)
    path = root / name
    if not path.is_dir():
        raise ModelError(f"there is no model {name!r} in {root}")
    return _inside(path, root)


def versions(path: Path, limits: Limits) -> list[int]:
    """The versions of a model's folder, ascending; folders that are no whole number are passed over."""
    found = sorted(
        int(child.name) for child in path.iterdir() if VERSION_PATTERN.fullmatch(child.name) and child.is_dir()
    )
    if len(found) > limits.versions_max:
        raise ModelError(f"{path} holds {len(found)} versions; the limit is {limits.versions_max}: remove old ones")
    return found


def optional_file(path: Path, root: Path, limits: Limits) -> Path | None:
    """A settings file, if it is there. Raises ModelError for one outside the root or beyond the limit."""
    if not path.is_file():
        return None
    size = _inside(path, root).stat().st_size
    if size > limits.settings_bytes_max:
        raise ModelError(f"{path} has {size} bytes; the limit is {limits.settings_bytes_max}")
    return path


def model_file(path: Path, root: Path, limits: Limits) -> ModelFile:
    """The one model in a version's folder, digested. Raises ModelError with what to do."""
    found = [path / name for name in MODEL_FILES if (path / name).is_file()]
    if len(found) != 1:
        names_found = " and ".join(file.name for file in found) or "none of them"
        raise ModelError(f"{path} must hold one of {', '.join(MODEL_FILES)}; it holds {names_found}")
    files = sorted(file for file in path.iterdir() if file.is_file())
    size = sum(_inside(file, root).stat().st_size for file in files)
    if size > limits.model_bytes_max:
        raise ModelError(f"{path} has {size} bytes; the limit is {limits.model_bytes_max}")
    digests = {file.name: digest(file) for file in files}
    lines = "".join(f"{name} {text}\n" for name, text in digests.items())
    return ModelFile(
        path=found[0], digest=digests[found[0].name], fingerprint=hashlib.sha256(lines.encode()).hexdigest()
    )


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def signature(path: Path) -> Signature:
    """The signature of a model's folder: its own files and those of its versions."""
    folders = [path, *(child for child in path.iterdir() if VERSION_PATTERN.fullmatch(child.name) and child.is_dir())]
    lines = []
    for parent in folders:
        for file in parent.iterdir():
            if file.is_file():
                stat = file.stat()
                lines.append((f"{parent.name}/{file.name}", stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(lines))


def _inside(path: Path, root: Path) -> Path:
    if not path.resolve().is_relative_to(root.resolve()):
        raise ModelError(f"{path} leads out of the repository; copy the file instead of linking it")
    return path
