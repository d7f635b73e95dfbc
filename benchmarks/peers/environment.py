"""Scratch environments, one a peer, so that their libraries meet neither ours nor each other's.

Made once, and again only when what a peer asks for has changed. A failed installation leaves its log behind and is an
outcome, not an end: the peer is skipped with the installer's last words.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

INSTALL_S_MAX = 900
FOLDER = Path.home() / ".cache" / "slotwise" / "peers"


class NotHere(Exception):
    """A peer cannot run on this machine; the text says why."""


class Installed(msgspec.Struct, frozen=True):
    """What a finished environment was made of, and what that took."""

    requirements: list[str]
    version: str
    seconds: float
    size_mb: int


class Environment:
    """A folder with an interpreter and a peer's packages."""

    def __init__(self, folder: Path, installed: Installed) -> None:
        self.folder = folder
        self.installed = installed

    def program(self, name: str) -> str:
        """The path of a program that came with the packages."""
        return str(self.folder / "bin" / name)

    @property
    def packages(self) -> Path:
        """The folder of the packages."""
        return next((self.folder / "lib").glob("python3*")) / "site-packages"


def prepare(root: Path, name: str, requirements: Sequence[str], interpreter: str = sys.executable) -> Environment:
    """The environment of a peer, made if it is not there. The first requirement is the peer's own. Raises NotHere."""
    folder = root / name
    note = folder / "installed.json"
    if note.is_file():
        installed = msgspec.json.decode(note.read_bytes(), type=Installed)
        if installed.requirements == list(requirements):
            return Environment(folder, installed)
    if folder.exists():
        shutil.rmtree(folder)
    print(f"{name}: installing {', '.join(requirements)} into {folder}", flush=True)
    began = time.monotonic()
    folder.mkdir(parents=True)
    log = folder / "install.log"
    _run([interpreter, "-m", "venv", "--without-pip", str(folder)], log)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    _run([*pip, "install", "--quiet", "--disable-pip-version-check", *requirements], log)
    own = requirements[0].partition("[")[0].partition("=")[0]
    code = f"import importlib.metadata as m; print(m.version({own!r}))"
    version = _run([str(folder / "bin" / "python"), "-c", code], log).strip()
    installed = Installed(
        requirements=list(requirements),
        version=version,
        seconds=round(time.monotonic() - began, 1),
        size_mb=round(sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6),
    )
    note.write_bytes(msgspec.json.encode(installed))
    print(f"{name}: {version}, {installed.size_mb} MB, {installed.seconds} s", flush=True)
    return Environment(folder, installed)


def _run(command: list[str], log: Path) -> str:
    """What a step prints; it adds to the log what it complains of."""
    with log.open("a") as errors:
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, check=True, timeout=INSTALL_S_MAX
            )
        except FileNotFoundError as error:
            raise NotHere(f"there is no {error.filename}") from error
        except subprocess.TimeoutExpired as error:
            raise NotHere(f"its installation took over {INSTALL_S_MAX} s") from error
        except subprocess.CalledProcessError as error:
            last = (log.read_text().strip().splitlines() or ["without a word"])[-1]
            raise NotHere(f"its installation failed: {last} (all of it in {log})") from error
    return done.stdout
