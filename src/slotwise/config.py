"""What a server is told: one frozen value, read from a TOML file and from options, and printed as it came out.

The tables are the very values that the parts take, so a default stands once, with its part. Only `app` reads it
whole. An unknown key or a value of the wrong kind is an error that names it and says what is right.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from slotwise.edges.fleets.nodes.settings import NODES, Nodes
from slotwise.edges.fleets.settings import FleetLimits
from slotwise.edges.local.limits import LOCAL_LIMITS, LocalLimits
from slotwise.edges.local.listener import ListenError, check_path
from slotwise.edges.logs.files import has_parquet
from slotwise.edges.logs.settings import Logs
from slotwise.edges.oip.grpc.limits import GRPC_LIMITS, GrpcLimits
from slotwise.edges.oip.limits import LIMITS as DOOR_LIMITS
from slotwise.edges.oip.limits import Limits as DoorLimits
from slotwise.edges.oip.tls import Tls
from slotwise.edges.repository.layout import LIMITS as REPOSITORY_LIMITS
from slotwise.edges.repository.layout import Limits as RepositoryLimits
from slotwise.edges.repository.registry import DEFAULTS, Defaults
from slotwise.edges.traces.settings import Traces
from slotwise.pipelines.deadlines import Deadlines
from slotwise.policy.controller import Limits as ControllerLimits

MIB = 1 << 20
GRPC_LIBRARIES = ("grpc", "grpc_health", "grpc_reflection")
PLACE = " - at `$."
"""What the library puts between a complaint and the key that it is about."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the text says where and why."""


Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
Core = Annotated[int, msgspec.Meta(ge=0)]
MEMORY_MIB_MAX = 1 << 30
Span = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that `slotwise serve` can be told. Sizes are in MiB, times as named."""

    repository: str = "models"
    host: str = "127.0.0.1"
    http_port: Port = 8000
    grpc: bool | None = None
    """Serve gRPC as well; left open, where its libraries are installed."""
    grpc_port: Port = 8001
    local_socket: str = ""
    """Path of a socket for clients on this machine, which share memory with the server; none when empty."""
    cores: tuple[Core, ...] = ()
    """Cores that executors are bound to, one executor each; none named means all that this process may use."""
    policy: str = "slotwise"
    policy_settings: Mapping[str, object] = {}
    """Changes to the policy's settings, by their names."""
    memory_mib: Annotated[int, msgspec.Meta(ge=0, le=MEMORY_MIB_MAX)] = 0
    """For the models of all executors together; 0 takes half of the machine's memory."""
    arena_mib: Annotated[int, msgspec.Meta(ge=1, le=MEMORY_MIB_MAX)] = 256
    """Shared memory for what clients send."""
    late_answers: bool = False
    """Deliver an answer that is late as 200, marked so, rather than as 504."""
    pipeline_deadlines: Deadlines = Deadlines.EFFECTIVE
    """By which rule a pipeline's steps share its time."""
    watch_s: Span = 0.0
    """Look at the repository for changes so often; 0 leaves that to the load and unload routes."""
    settle_s: Span = 60.0
    """How long first loads are waited for before the door opens; those that take longer go on behind it."""
    drain_s: Span = 30.0
    """How long requests under way are waited for at the end."""
    summary_s: Span = 0.0
    """Tell in a line on standard error what was done, so often; 0 never does."""
    journal: str = ""
    """File to write the journal to; none when empty."""
    cache: str = ""
    """Folder for measured profiles; `~/.cache/slotwise/profiles` when empty."""
    tokens: str = ""
    """File of tokens, and what each may do; everybody may do everything when empty."""
    management_port: Port | None = None
    """Port for the routes of management, apart from inference; none named leaves them together. 0 takes a free one."""
    tls: Tls = Tls()
    """Certificate and key; the door speaks plain HTTP without."""
    defaults: Defaults = DEFAULTS
    """What holds for a model that says nothing else."""
    door: DoorLimits = DOOR_LIMITS
    grpc_door: GrpcLimits = GRPC_LIMITS
    local: LocalLimits = LOCAL_LIMITS
    controller: ControllerLimits = ControllerLimits()
    fleet: FleetLimits = FleetLimits()
    nodes: Nodes = NODES
    """Executors on other machines."""
    models: RepositoryLimits = REPOSITORY_LIMITS
    logs: Logs = Logs()
    """Files with a row for each request and each action; none while no folder is named."""
    traces: Traces = Traces()
    """Spans of some requests for OpenTelemetry; none while no endpoint is named."""


def read(path: Path | None, changes: Mapping[str, object]) -> Config:
    """The file's settings with `changes` (those that are not None) over them, tables key by key. Raises ConfigError."""
    options = {name: given for name, given in changes.items() if given is not None}
    plain = _over(options, {} if path is None else _read_file(path))
    try:
        _check_keys(plain)
        return msgspec.convert(plain, Config)
    except msgspec.ValidationError as error:
        complaint, _, key = str(error).removesuffix("`").partition(PLACE)
        where = "options" if path is None or key.partition(".")[0] in options else str(path)
        raise ConfigError(f"{where}: {f'`{key}`: ' if key else ''}{complaint}") from error


def _read_file(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _over(upper: Mapping[str, object], lower: Mapping[str, object]) -> dict[str, object]:
    both = {**lower, **upper}
    for name, given in upper.items():
        below = lower.get(name)
        if isinstance(given, Mapping) and isinstance(below, Mapping):
            both[name] = {**below, **given}
    return both


def _check_keys(plain: Mapping[str, object]) -> None:
    """Raise ValidationError for a key that there is not, at the top or in a table."""
    fields = {field.name: field for field in msgspec.structs.fields(Config)}
    _check_known(plain, list(fields), "")
    for name, given in plain.items():
        if isinstance(given, Mapping) and hasattr(fields[name].type, "__dataclass_fields__"):
            _check_known(given, list(fields[name].type.__dataclass_fields__), f"{name}.")


def _check_known(given: Mapping[str, object], known: list[str], table: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            right = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
            raise msgspec.ValidationError(f"there is no such key; {right}{PLACE}{table}{name}`")


def printed(config: Config) -> str:
    """The configuration in effect, as one line of JSON."""
    return msgspec.json.encode(config).decode()


def serves_grpc(config: Config) -> bool:
    """Whether there is to be a gRPC door. Raises ConfigError when one is asked for and its libraries are missing."""
    if config.grpc is False:
        return False
    is_there = all(importlib.util.find_spec(name) is not None for name in GRPC_LIBRARIES)
    if config.grpc and not is_there:
        raise ConfigError("gRPC needs libraries that are not installed: pip install 'slotwise[grpc]'; or use --no-grpc")
    return is_there


def memory_bytes(config: Config) -> int:
    """What models may hold in all."""
    if config.memory_mib:
        return config.memory_mib * MIB
    return machine_bytes() // 2


def machine_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cache_folder(config: Config) -> Path:
    """Where measured profiles are kept. Raises ConfigError when nothing can be kept there."""
    folder = Path(config.cache) if config.cache else Path.home() / ".cache" / "slotwise" / "profiles"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"profiles cannot be kept in {folder}: {error.strerror}; name another `cache`") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"profiles cannot be kept in {folder}: it is read-only; name another `cache`")
    return folder


def check_memory(config: Config) -> None:
    """Shared memory is taken as it is used, but more than there is cannot even be asked for. Raises ConfigError."""
    asked = {
        "arena_mib": config.arena_mib * MIB,
        "grpc_door.memory_bytes": config.grpc_door.memory_bytes,
        "grpc_door.outputs_bytes": config.grpc_door.outputs_bytes,
        "fleet.outputs_bytes": config.fleet.outputs_bytes,
        "fleet.ring_bytes": config.fleet.ring_bytes,
    }
    for name, nbytes in asked.items():
        if nbytes > machine_bytes():
            there_mib = machine_bytes() // MIB
            raise ConfigError(f"`{name}` asks for {nbytes // MIB} MiB of shared memory; the machine has {there_mib}")


def check_logs(logs: Logs) -> Logs:
    """The same, if they can be written. Raises ConfigError."""
    if logs.format == "parquet" and not has_parquet():
        raise ConfigError("logs in Parquet need pyarrow: pip install 'slotwise[parquet]'; or set `logs.format` to csv")
    try:
        Path(logs.folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"logs cannot be kept in {logs.folder}: {error.strerror}; name another folder") from error
    if not os.access(logs.folder, os.W_OK | os.X_OK):
        raise ConfigError(f"logs cannot be kept in {logs.folder}: it is read-only; name another folder")
    return logs


def check_address(config: Config) -> None:
    """Raise ConfigError for an address that cannot be listened at."""
    _check_port(config.host, config.http_port, "--http-port")
    if serves_grpc(config):
        _check_port(config.host, config.grpc_port, "--grpc-port")
    if config.local_socket:
        try:
            check_path(config.local_socket)
        except ListenError as error:
            raise ConfigError(f"`local_socket`: {error}") from error


def _check_port(host: str, port: int, option: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, UnicodeError) as error:
        why = str(error.strerror).partition(" (while")[0] if isinstance(error, OSError) else "no such address"
        raise ConfigError(
            f"cannot listen on {host} port {port}: {why}; name another with --host or {option}"
        ) from error
