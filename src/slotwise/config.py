"""What a server is told: one frozen value, read from a TOML file and from options, and printed as it came out.

Only `app` reads it whole. An unknown key or a value of the wrong kind is an error that names it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

MIB = 1 << 20


class ConfigError(ValueError):
    """A configuration that cannot be used; the text says where and why."""


Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Amount = Annotated[int, msgspec.Meta(ge=0)]
Span = Annotated[float, msgspec.Meta(ge=0)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that `slotwise serve` can be told. Sizes are in MiB, times as named."""

    repository: str = "models"
    host: str = "127.0.0.1"
    http_port: Port = 8000
    cores: tuple[Amount, ...] = ()
    """Cores that executors are bound to, one executor each; none named means all that this process may use."""
    policy: str = "slotwise"
    policy_settings: Mapping[str, object] = {}
    """Changes to the policy's settings, by their names."""
    memory_mib: Amount = 0
    """For the models of all executors together; 0 takes half of the machine's memory."""
    arena_mib: Count = 256
    """Shared memory for what clients send."""
    outputs_mib: Count = 64
    """Shared memory for what each executor answers."""
    late_answers: bool = False
    """Deliver an answer that is late as 200, marked so, rather than as 504."""
    watch_s: Span = 0.0
    """Look at the repository for changes so often; 0 leaves that to the load and unload routes."""
    drain_s: Span = 30.0
    """How long requests under way are waited for at the end."""
    restart_s_max: Span = 5.0
    """The longest pause before an executor that keeps dying is started again."""
    journal: str = ""
    """File to write the journal to; none when empty."""
    cache: str = ""
    """Folder for measured profiles; `~/.cache/slotwise/profiles` when empty."""
    slo_ms: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """The allowance of a model that names none; else a multiple of its measured time."""
    batch_max: Count = 16


def read(path: Path | None, changes: Mapping[str, object]) -> Config:
    """The file's settings with `changes` (those that are not None) over them. Raises ConfigError."""
    plain: dict[str, object] = {}
    if path is not None:
        try:
            plain = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from error
    plain |= {name: given for name, given in changes.items() if given is not None}
    try:
        return msgspec.convert(plain, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path or 'options'}: {error}") from error


def printed(config: Config) -> str:
    """The configuration in effect, as one line of JSON."""
    return msgspec.json.encode(config).decode()


def memory_bytes(config: Config) -> int:
    """What models may hold in all."""
    if config.memory_mib:
        return config.memory_mib * MIB
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def cache_folder(config: Config) -> Path:
    """Where measured profiles are kept."""
    return Path(config.cache) if config.cache else Path.home() / ".cache" / "slotwise" / "profiles"
