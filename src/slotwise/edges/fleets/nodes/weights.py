"""Files of models, by their digests: what a front has to give, and what a node keeps on its disk.

A model is the files of one folder; its digest is made of their names and SHA-256. A node asks for what it does not
have, piece by piece, checks each file, and only then gives the folder its name: whoever dies meanwhile leaves
nothing half written in view. A node keeps what it has for the next start.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from slotwise.edges.fleets.nodes.messages import Weights, WeightsFile
from slotwise.engine.ports import ModelError
from slotwise.facts.value import value

DRAFT_PREFIX = ".draft-"
Signature = tuple[tuple[str, int, int, int], ...]


@value
class Piece:
    """A part of a file."""

    sha256: str
    offset: int
    nbytes: int


class Library:
    """The front's side: what models consist of, and pieces of their files. It gives what it has described, only."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Signature, Weights]] = {}
        self._paths: dict[str, Path] = {}

    async def weights(self, path: str) -> Weights:
        """What the model at a path consists of; digested in a thread, once. Raises ModelError."""
        try:
            signature = _signature(Path(path))
            known = self._known.get(path)
            if known is not None and known[0] == signature:
                return known[1]
            weights = await asyncio.to_thread(_describe, Path(path))
        except OSError as error:
            raise ModelError(f"{error.filename} cannot be read: {error.strerror}") from error
        self._known[path] = (signature, weights)
        self._paths.update({file.sha256: Path(path).parent / file.name for file in weights.files})
        return weights

    async def read(self, sha256: str, offset: int, nbytes: int) -> bytes:
        """A piece of a file. Raises ModelError for a file that was never described or cannot be read."""
        path = self._paths.get(sha256)
        if path is None:
            raise ModelError(f"there is no file {sha256} to give")
        try:
            return await asyncio.to_thread(_read, path, offset, nbytes)
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}") from error


class Cache:
    """The node's side: whole models in folders named by their digests. Several nodes of a machine may share one."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._bytes_max = bytes_max
        for draft in folder.glob(f"{DRAFT_PREFIX}*"):
            if not Path("/proc", draft.name.removeprefix(DRAFT_PREFIX).partition("-")[0]).exists():
                shutil.rmtree(draft, ignore_errors=True)  # whoever began it is gone

    def find(self, weights: Weights) -> Path | None:
        """The file to load, if the model is here; it counts as used now."""
        folder = self._folder / weights.digest
        if not folder.is_dir():
            return None
        folder.touch()
        return folder / weights.main

    def begin(self, weights: Weights) -> Draft:
        """Make room for a model, and begin to take it in. Raises ModelError."""
        if _digest_of(weights.files) != weights.digest:
            raise ModelError(f"the files of {weights.digest} do not make that digest")
        if any(Path(file.name).name != file.name or file.name.startswith(".") for file in weights.files):
            raise ModelError("a file of a model lies in its own folder")
        nbytes = sum(file.nbytes for file in weights.files)
        if nbytes > self._bytes_max:
            raise ModelError(f"a model of {nbytes} bytes is over the cache's limit of {self._bytes_max}")
        self._make_room(nbytes)
        return Draft(self._make_draft(), self._folder / weights.digest, weights)

    def put(self, digest: str, name: str, content: bytes) -> Path:
        """Keep a small file that was sent whole; where it is."""
        folder = self._folder / digest
        if not folder.is_dir():
            draft = self._make_draft()
            (draft / name).write_bytes(content)
            _publish(draft, folder)
        return folder / name

    def _make_draft(self) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{DRAFT_PREFIX}{os.getpid()}-", dir=self._folder))

    def _make_room(self, nbytes: int) -> None:
        """Remove those longest unused until there is room. Whoever has one mapped keeps what it has mapped."""
        folders = sorted(self._kept(), key=lambda folder: folder.stat().st_mtime_ns)
        sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in folders]
        excess = sum(sizes) + nbytes - self._bytes_max
        for folder, size in zip(folders, sizes, strict=True):
            if excess <= 0:
                return
            shutil.rmtree(folder)
            excess -= size

    def _kept(self) -> Iterator[Path]:
        return (path for path in self._folder.iterdir() if path.is_dir() and not path.name.startswith("."))


class Draft:
    """A model that is coming in. Pieces come in order, file after file."""

    def __init__(self, folder: Path, final: Path, weights: Weights) -> None:
        self._folder = folder
        self._final = final
        self._weights = weights
        self._at = 0
        self._hash = hashlib.sha256()
        self._has_bytes = 0
        self._skip_empty()

    def pieces(self, nbytes: int) -> Iterator[Piece]:
        """All pieces to ask for, in order."""
        for file in self._weights.files:
            for offset in range(0, file.nbytes, nbytes):
                yield Piece(sha256=file.sha256, offset=offset, nbytes=min(nbytes, file.nbytes - offset))

    def add(self, sha256: str, offset: int, piece: memoryview) -> None:
        """Take the next piece in. Raises ModelError."""
        if self._at == len(self._weights.files):
            raise ModelError("a piece came when all had come")
        file = self._weights.files[self._at]
        if (sha256, offset) != (file.sha256, self._has_bytes) or len(piece) > file.nbytes - offset or not len(piece):
            raise ModelError(f"a piece of {file.name} came that was not the next one")
        with (self._folder / file.name).open("ab") as out:
            out.write(piece)
        self._hash.update(piece)
        self._has_bytes += len(piece)
        if self._has_bytes == file.nbytes:
            self._end_file(file)

    def drop(self) -> None:
        """Forget it."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def publish(self) -> None:
        """Give the whole model its name; nothing if another has it already."""
        _publish(self._folder, self._final)

    def _end_file(self, file: WeightsFile) -> None:
        if self._hash.hexdigest() != file.sha256:
            raise ModelError(f"{file.name} changed while it was sent: its digest is not {file.sha256}")
        self._at += 1
        self._hash, self._has_bytes = hashlib.sha256(), 0
        self._skip_empty()

    def _skip_empty(self) -> None:
        files = self._weights.files
        while self._at < len(files) and not files[self._at].nbytes:
            (self._folder / files[self._at].name).touch()
            self._at += 1


def _publish(draft: Path, final: Path) -> None:
    """Give a whole folder its name; nothing if another has it already, which is the same."""
    try:
        draft.rename(final)
    except OSError:
        if not final.is_dir():
            raise
        shutil.rmtree(draft)


def _describe(path: Path) -> Weights:
    files = tuple(
        WeightsFile(file.name, file.stat().st_size, _sha256(file))
        for file in sorted(path.parent.iterdir())
        if file.is_file() and not file.name.startswith(".")
    )
    return Weights(_digest_of(files), path.name, files)


def _signature(path: Path) -> Signature:
    files = [file for file in path.parent.iterdir() if file.is_file()]
    stats = [(file.name, file.stat()) for file in files]
    return tuple(sorted((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


def _digest_of(files: tuple[WeightsFile, ...]) -> str:
    lines = "".join(f"{file.name} {file.sha256}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, offset: int, nbytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(nbytes)
