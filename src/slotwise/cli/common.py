"""What the verbs share: options that several take, and which errors are told as wrong input or as failures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slotwise import config as configs
from slotwise import top as tops
from slotwise.client import ClientError
from slotwise.edges.fleets.processes import FleetError
from slotwise.edges.oip.access import AccessError
from slotwise.edges.oip.grpc.keeper import GrpcDoorError
from slotwise.edges.oip.tls import TlsError
from slotwise.edges.zoo.build import ZooError
from slotwise.engine.journal import JournalError
from slotwise.engine.ports import ModelError
from slotwise.policy.presets import PresetError
from slotwise.policy.schedulers import SCHEDULERS
from slotwise.terminal import (
    writable,
)
from slotwise.workload.values import WorkloadError

WRONG = (configs.ConfigError, PresetError, TlsError, AccessError, ModelError, ZooError, JournalError, OSError)
FAILED = (FleetError, GrpcDoorError, ClientError, tops.NoServer)
SUMMARY = "Tell in a line what was done, so often, in seconds. [never]"
POLICIES = f"Name of the policy: {', '.join(SCHEDULERS)}."

Json = Annotated[Path | None, typer.Option("--json", callback=writable, help="Write the report to this file as well.")]
JournalFile = Annotated[
    Path | None, typer.Option("--journal", callback=writable, help="Write every turn of the engine to this file.")
]

LogFolder = Annotated[Path | None, typer.Option("--logs", help="Write a row for each request and action here.")]


def cores_of(text: str | None) -> tuple[int, ...] | None:
    """The cores that an option names."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of cores; write them as 0,1,2") from error


def parameter_of(text: str) -> tuple[str, str]:
    """What `--set` gives: a name, and what it is set to. Raises WorkloadError."""
    name, sign, given = text.partition("=")
    if not sign:
        raise WorkloadError(f"--set {text} is no parameter; write name=value")
    return name, given


def nodes_of(token_file: Path | None, addresses: list[str] | None, only: bool) -> dict[str, object] | None:
    """What options say of nodes; None for nothing."""
    given = {"addresses": addresses, "only": only or None, "token_file": str(token_file) if token_file else None}
    return {name: told for name, told in given.items() if told} or None
