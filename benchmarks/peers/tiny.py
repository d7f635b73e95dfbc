"""Part a: what a request costs when the model costs nothing.

A network of 8 us behind each server, one worker, asked by wrk on 1, 16 and 64 connections. To compare: the processor
time of all the server's processes per request. Peers run with batches of 32, and without batching.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from harness import wrk
from harness.models import build_mlp
from harness.report import median

from peers.comparison import Comparison, input_row
from peers.environment import NotHere
from peers.peer import Peer, Running, Served, Settings

CONNECTIONS = (1, 16, 64)
WARM_UP_S = 1
BATCHING = Settings(batch_max=32)
ALONE = Settings(batch_max=1)


@dataclass(frozen=True)
class Contestant:
    """A peer with its settings."""

    peer: Peer
    settings: Settings

    @property
    def words(self) -> tuple[str, str, str]:
        """What tells it from others."""
        settings = self.settings.described() if self.peer.knobs.batch else "as it comes"
        return self.peer.name, self.settings.form.value, settings


@dataclass(frozen=True)
class Run:
    """One run of wrk, and the processor time that the server took for it."""

    load: wrk.Load
    cpu_s: float


def compare(comparison: Comparison) -> None:
    """Measure and add a row for each contestant and number of connections."""
    rounds, seconds = (1, 1) if comparison.is_quick else (5, 3)
    path = build_mlp(comparison.folder / "tiny")
    models = {"mlp": Served(width=64, outputs=10, onnx=str(path))}
    runs: dict[tuple[Contestant, int], list[Run]] = defaultdict(list)
    contestants = _contestants(comparison)
    for _ in range(rounds):
        for contestant in list(contestants):
            try:
                with comparison.serving(contestant.peer, models, contestant.settings) as running:
                    for connections, run in _turn(comparison, contestant, running, seconds).items():
                        runs[contestant, connections].append(run)
            except NotHere as reason:
                comparison.leave_out(contestant.peer, f"a ({', '.join(contestant.words[1:])})", reason)
                contestants.remove(contestant)
    first = len(comparison.report)
    for (contestant, connections), found in runs.items():
        _add(comparison, contestant, connections, found)
    comparison.report.print_table(
        f"a: tiny requests, medians of {rounds} runs of {seconds} s; CPU in us/request", first
    )


def _contestants(comparison: Comparison) -> list[Contestant]:
    return [
        Contestant(peer, Settings(form=form, batch_max=settings.batch_max))
        for peer in comparison.peers
        for form in peer.forms
        for settings in ((BATCHING, ALONE) if peer.knobs.batch else (BATCHING,))
    ]


def _turn(comparison: Comparison, contestant: Contestant, running: Running, seconds: int) -> dict[int, Run]:
    question = contestant.peer.question("mlp", input_row(), contestant.settings.form, None)
    url, folder = f"http://127.0.0.1:{running.port}{question.path}", comparison.folder
    wrk.ask(url, question.body, connections=CONNECTIONS[1], seconds=WARM_UP_S, folder=folder)
    found = {}
    for connections in CONNECTIONS:
        before_s = running.cpu_s()
        load = wrk.ask(url, question.body, connections=connections, seconds=seconds, folder=folder)
        if not load.requests:
            raise NotHere(f"no answer in {seconds} s on {connections} connections")
        found[connections] = Run(load, running.cpu_s() - before_s)
    return found


def _add(comparison: Comparison, contestant: Contestant, connections: int, runs: list[Run]) -> None:
    name, form, settings = contestant.words
    comparison.report.add(
        part="a",
        server=name,
        body=form,
        settings=settings,
        connections=connections,
        per_s=round(median([run.load.per_s for run in runs])),
        cpu_us=median([run.cpu_s / run.load.requests * 1e6 for run in runs]),
        p50_us=median([run.load.latency_us_p50 for run in runs]),
        p99_us=median([run.load.latency_us_p99 for run in runs]),
        errors=sum(run.load.errors for run in runs),
    )
