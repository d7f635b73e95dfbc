"""One soak from its start to its verdict: a server, the load, the faults, a sample now and then, and the end."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.processes import own_pss_bytes
from harness.server import Server, serve

from slotwise.demo.mix import Exhibit, exhibits
from slotwise.demo.server import session_pids
from slotwise.edges.slices import cores
from slotwise.edges.zoo.build import build
from soak.clients import RudeClients
from soak.faults import PAGES, Faults
from soak.journal import Journal
from soak.load import Load, Way
from soak.questions import MODELS, WIDE_US, Asked
from soak.report import text
from soak.samples import MIB, Sample, named_segments, own_segments, processes_of
from soak.status import status
from soak.tally import End, Outcome, Stray, Tally
from soak.verdict import Leftovers, Verdict, complaints, remarks, slopes
from soak.ways import GrpcWay, LocalWay
from soak.web import HOST, BinaryWay, Connections, JsonWay

EXECUTORS = 2
SAMPLE_EVERY_S = 30.0
DRAIN_S = 15.0
END_S_MAX = 60.0
LAST_REQUESTS = 20
"""Under way when the server is told to end."""
IDLE_AT_END = 5
"""Connections that say nothing when the server is told to end."""


@dataclass(frozen=True)
class Options:
    """What the program is told."""

    minutes: float
    rate_per_s: float
    seed: int
    zoo: Path


def main(about: str | None) -> None:
    options = _options(about)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by way of every `finally`
    if not options.zoo.is_dir():
        build(options.zoo, only=list(MODELS))
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as name,
        Journal(options.minutes, options.rate_per_s, options.seed, MODELS) as journal,
    ):
        verdict = _soaked(options, Path(name), journal)
        journal.write(verdict)
    print(text(verdict))
    raise SystemExit(bool(verdict.complaints))


def _options(about: str | None) -> Options:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0, help="how long to ask")
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second, over all ways together")
    parser.add_argument("--seed", type=int, default=1, help="what all instants and choices are drawn from")
    parser.add_argument("--zoo", type=Path, default=Path(".zoo"), help="folder of models; built where it is missing")
    given = parser.parse_args()
    return Options(minutes=given.minutes, rate_per_s=given.rate, seed=given.seed, zoo=given.zoo)


def _soaked(options: Options, folder: Path, journal: Journal) -> Verdict:
    repository, scratch = folder / "models", folder / "tmp"
    scratch.mkdir()
    for model in MODELS:
        shutil.copytree(options.zoo / model, repository / model)
    settings: dict[str, object] = {
        "grpc": True,
        "grpc_port": 0,
        "local_socket": str(folder / "socket"),
        "cores": cores.available()[:EXECUTORS],
        "drain_s": DRAIN_S,
        "logs": {"folder": str(folder / "logs")},
    }
    with serve(repository, folder, settings, {"TMPDIR": str(scratch)}) as server:
        soak = Soak(options, server, repository, folder, journal)
        return asyncio.run(soak.run())


class Soak:
    """One run against one server."""

    def __init__(self, options: Options, server: Server, repository: Path, folder: Path, journal: Journal) -> None:
        self._options = options
        self._server = server
        self._repository = repository
        self._folder = folder
        self._journal = journal
        self._samples: list[Sample] = []
        self._tally = Tally(self._on_stray)
        self._exhibits: list[Exhibit] = exhibits(repository)
        self._stop = asyncio.Event()

    async def run(self) -> Verdict:
        """Ask for as long as was said, then end the server; what came of it."""
        connections = Connections(self._server.port, lambda: self._tally.add("http", "", Outcome(End.SURPLUS)))
        grpc = GrpcWay((await status(connections)).grpc.address)
        local = LocalWay(str(self._folder / "socket"))
        ways: dict[str, Way] = {
            "http": BinaryWay(connections),
            "json": JsonWay(connections),
            "grpc": grpc,
            "local": local,
        }
        load = Load(ways, self._exhibits, self._tally, self._options.rate_per_s, self._options.seed)
        rng = random.Random(f"{self._options.seed} clients")
        clients = RudeClients(self._server.port, grpc, local, self._exhibits, self._tally, rng)
        faults = Faults(self._server.pid, self._repository, connections, grpc, clients, self._tally, self._options.seed)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(self._stop))
            group.create_task(faults.run(self._stop))
            await self._watch(load)
            self._stop.set()
        await load.answered()
        missing = await faults.mended()
        self._sample(load)
        exit_status = await self._ended(load, connections)
        await grpc.close()
        local.close()
        connections.close()
        gc.collect()  # what clients shared goes with the last of them
        return self._verdict(exit_status, sorted(missing))

    async def _watch(self, load: Load) -> None:
        """A sample now and then until time is up."""
        end_s = self._options.minutes * 60
        while (left_s := end_s - self._tally.now_s()) > 0:
            self._sample(load)
            await asyncio.sleep(min(SAMPLE_EVERY_S, left_s))

    async def _ended(self, load: Load, connections: Connections) -> int | None:
        """Tell the server to end while requests are under way and clients idle; its exit status."""
        idle = [await asyncio.open_connection(HOST, self._server.port) for _ in range(IDLE_AT_END)]
        for number in range(LAST_REQUESTS):
            exhibit = self._exhibits[number % len(self._exhibits)]
            load.begin(Asked(exhibit=exhibit, timeout_us=WIDE_US), ("http", "local")[number % 2])
        await status(connections)  # by the second page the server has read what was sent before the first
        await status(connections)
        exit_status = await asyncio.to_thread(self._server.end, END_S_MAX)
        await load.answered()
        for _, writer in idle:
            writer.transport.abort()
        return exit_status

    def _sample(self, load: Load) -> None:
        now_s, answered = self._tally.now_s(), _answered(self._tally.told())
        before = self._samples[-1] if self._samples else None
        answered_before = _answered(before.counts) if before else 0
        span_s = now_s - before.at_s if before else now_s
        sample = Sample(
            at_s=round(now_s, 1),
            load=round(os.getloadavg()[0], 2),
            goodput_per_s=round((answered - answered_before) / span_s, 2) if span_s else 0.0,
            under_way=load.under_way,
            processes=processes_of(self._server.pid),
            counts=self._tally.told(),
            faults=dict(sorted(self._tally.faults.items())),
            named_segments=named_segments(),
            client_mib=round((own_pss_bytes(os.getpid()) or 0) / MIB, 1),
        )
        self._samples.append(sample)
        self._journal.write(sample)
        shown = "  ".join(f"{one.role} {one.pss_mib:.0f}/{one.descriptors}" for one in sample.processes)
        print(
            f"{now_s:7.0f} s  {sample.goodput_per_s:5.1f}/s  strays {self._tally.strays}  load {sample.load}  {shown}",
            flush=True,
        )

    def _on_stray(self, stray: Stray) -> None:
        self._journal.write(stray)
        print(f"{stray.at_s:7.0f} s  {stray.way} {stray.model}: {stray.end}: {stray.told}", flush=True)

    def _verdict(self, exit_status: int | None, missing: list[str]) -> Verdict:
        left = Leftovers(
            exit_status=exit_status,
            orphans=len(session_pids(self._server.pid)),
            files=sorted(str(path.relative_to(self._folder)) for path in self._left_files()),
            segments=own_segments(),
            models_missing=missing,
        )
        tally, found = self._tally, slopes(self._samples)
        bad = {end.value: tally.total(end) for end in (End.UNANSWERED, End.WRONG, End.SURPLUS)}
        return Verdict(
            minutes=round(tally.now_s() / 60, 1),
            requests=tally.counts.total(),
            unanswered=tally.total(End.UNANSWERED),
            wrong=tally.total(End.WRONG),
            surplus=tally.total(End.SURPLUS),
            door_killed=tally.total(End.DOOR_KILLED),
            counts=tally.told(),
            faults=dict(sorted(tally.faults.items())),
            slopes=found,
            leftovers=left,
            complaints=complaints(bad, left),
            remarks=remarks(found),
        )

    def _left_files(self) -> list[Path]:
        socket = self._folder / "socket"
        return [*(self._folder / "tmp").iterdir(), *([socket] if socket.exists() else [])]


def _answered(counts: dict[str, int]) -> int:
    return sum(count for name, count in counts.items() if name.endswith(f" {End.OK}") and not name.startswith(PAGES))
