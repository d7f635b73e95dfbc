"""A live server for experiments: real processes on this machine, asked by a client beside it, and its logs read back.

The server is started as anybody starts one, in a process of its own. Whoever runs an experiment is its client, so both
share the machine's cores with the executors, as in the demo.
"""

from __future__ import annotations

import contextlib
import csv
import shutil
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import get_type_hints

import msgspec

from slotwise.client import HttpClient, encode_infer
from slotwise.demo.load import Plan, calibrated, look_at
from slotwise.demo.mix import Exhibit
from slotwise.demo.server import Command, Server, running, status
from slotwise.edges.logs.rows import INFER, LOAD, OK, ActionRow
from slotwise.engine.timeline import read_moments
from slotwise.facts.events import ModelAdded
from slotwise.facts.types import ModelSpec
from slotwise.facts.units import MS, US, S
from slotwise.facts.value import value
from slotwise.laboratory.values import LaboratoryError
from slotwise.load.http import HttpWay
from slotwise.load.requests import Requests
from slotwise.load.sender import Played, Sender
from slotwise.workload.player import player_of
from slotwise.workload.values import Arrival, Workload

ZOO = Path(".zoo")
"""Where real models are, in the source tree."""
CONNECTIONS = 512
"""More than requests can be under way at once."""
NETWORK_NS = 1 * MS
"""So much of a request's time the server is not told of: the way there and back."""
JOURNAL, LOG, LOGS = "journal.jsonl", "server.log", "logs"
TEXTS = frozenset(name for name, kind in get_type_hints(ActionRow).items() if kind is str)


@value
class Act:
    """A workload as it was played. Instants are the engine's."""

    workload: Workload
    played: Played
    began_ns: int
    ended_ns: int


class Live:
    """A running server and its client."""

    def __init__(self, server: Server, client: HttpClient, exhibits: Sequence[Exhibit], clock_offset_ns: int) -> None:
        self._server = server
        self._client = client
        self._exhibits = list(exhibits)
        self._inputs = {one.model: one.inputs for one in exhibits}
        self._clock_offset_ns = clock_offset_ns

    async def calibrated(self, seconds: float) -> Plan:
        """The rates of a mix that this machine has just sustained. Raises DemoError or ClientError."""
        plan = await look_at(self._client, self._exhibits)
        return await calibrated(self._client, self._server, plan, seconds)

    async def play(self, workload: Workload) -> Act:
        """Ask all that is due, whatever comes back, to the workload's end. Raises ClientError."""
        request = Requests(self._request, len).of
        sender = Sender(HttpWay(self._server.host, self._server.port, request), lines=CONNECTIONS)
        try:
            await sender.open()
            played = await sender.record(player_of(workload), int(workload.duration_s * S))
        finally:
            await sender.close()
        began_ns, ended_ns = (at_ns + self._clock_offset_ns for at_ns in (played.started_ns, played.ended_ns))
        return Act(workload=workload, played=played, began_ns=began_ns, ended_ns=ended_ns)

    def _request(self, arrival: Arrival, _sample: int) -> bytes:
        host = f"{self._server.host}:{self._server.port}"
        told_us = max(1, (arrival.slo_ns - NETWORK_NS) // US)
        return encode_infer(host, arrival.model, self._inputs[arrival.model], timeout_us=told_us)


@contextlib.asynccontextmanager
async def live(
    repository: Path, exhibits: Sequence[Exhibit], folder: Path, options: Sequence[str]
) -> AsyncIterator[Live]:
    """A server of a repository, with these options of `slotwise serve`; its journal and logs are left in the folder.

    Raises DemoError or ClientError.
    """
    command = Command(
        repository=repository,
        journal=folder / JOURNAL,
        log=folder / LOG,
        options=("--logs", str(folder / LOGS), *options),
    )
    async with running(command) as server, HttpClient(server.host, server.port, CONNECTIONS) as client:
        yield Live(server, client, exhibits, (await status(client)).clock_offset_ns)


def some_of(zoo: Path, models: Sequence[str], repository: Path) -> Path:
    """A repository of a few models of a zoo. Raises LaboratoryError where they are not there."""
    for model in models:
        if not (zoo / model).is_dir():
            raise LaboratoryError(f"there is no model {model} in {zoo}; build it there with: slotwise zoo build {zoo}")
        shutil.copytree(zoo / model, repository / model)
    return repository


def read_specs(folder: Path) -> tuple[ModelSpec, ...]:
    """The models with their profiles, as the server that wrote a journal there had measured them."""
    with (folder / JOURNAL).open("rb") as lines:
        moments = read_moments(lines, {ModelAdded.__name__: msgspec.json.Decoder(ModelAdded).decode})
        return tuple(moment.spec for _, moment in moments if isinstance(moment, ModelAdded))


def read_actions(folder: Path) -> list[ActionRow]:
    """All actions that came back to the server that has left its logs there, in the order in which they did."""
    rows = []
    for path in sorted((folder / LOGS).glob("*action*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += [_action(fields) for fields in csv.DictReader(file)]
    return rows


def batches(actions: Iterable[ActionRow], began_ns: int, ended_ns: int) -> list[ActionRow]:
    """Those that ran a batch to its end and were sent within a time."""
    return _carried_out(actions, INFER, began_ns, ended_ns)


def loads(actions: Iterable[ActionRow], began_ns: int, ended_ns: int) -> list[ActionRow]:
    """Those that loaded a model and were sent within a time."""
    return _carried_out(actions, LOAD, began_ns, ended_ns)


def _carried_out(actions: Iterable[ActionRow], kind: int, began_ns: int, ended_ns: int) -> list[ActionRow]:
    return [
        row
        for row in actions
        if row.action_type == kind and row.status == OK and began_ns <= row.t < ended_ns and row.worker_exec_duration
    ]


def _action(fields: dict[str, str]) -> ActionRow:
    plain = [text if text or name in TEXTS else None for name, text in fields.items()]
    return msgspec.convert(plain, ActionRow, strict=False)
