"""Live overload: real models, real requests over HTTP at 1.5 and 3 times what the machine can do, policy by policy.

Five models of the zoo with different costs and deadlines, asked equally often by an open-loop client, on one executor
per core. What the machine can do is calibrated first. Then each policy gets the same arrivals in turn, on a server of
its own, so that a busy moment of the machine hits all alike. `bounded` is tried with several bounds: its best one is
the best that a server without deadlines can be tuned to.

Beside each stands its share of the best possible: the most that any scheduler could answer in time of these
arrivals, at the costs measured in that round over all policies (means, by batch size). A request counts if its whole
answer is there before its deadline, counted from when it was due to be sent; the server is told of one millisecond
less.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.models import zoo_example, zoo_slo_ns
from harness.report import Report, is_quick
from harness.server import Server, serve

from slotwise.client.wire import encode_infer
from slotwise.edges.slices import cores
from slotwise.facts.profile import Profile
from slotwise.facts.types import Request
from slotwise.facts.units import MS, S
from slotwise.load.ending import Ending, Sending
from slotwise.load.http import HttpWay
from slotwise.load.sender import Played, Sender
from slotwise.oracle.bound import Bound, best_possible
from slotwise.workload.arrivals import arrivals
from slotwise.workload.mixes import Share, mix
from slotwise.workload.player import Player, player_of
from slotwise.workload.values import Arrival, Phase, Workload

ZOO = Path(".zoo")
MODELS = ("ocr-angle", "pitch", "file-type", "sentence-embed", "ocr-read-128")
LOADS = (1.5, 3.0)
CALIBRATION_LOADS = (0.3, 0.5)
NETWORK_NS = 1 * MS
WARM_UP_S = 2.0
CONNECTIONS = 900
ANSWER_S_MAX = 10.0
RUNS_MIN = 20
"""A batch size that ran less often has no say in the best possible."""
BUDGET_SHARES = {1.5: 0.97, 3.0: 0.95}
BUDGET_REFUSAL_MS = 2


@dataclass(frozen=True)
class Contestant:
    """A policy with its settings."""

    name: str
    policy: str
    settings: Mapping[str, object]


CONTESTANTS = (
    Contestant("slotwise", "slotwise", {}),
    Contestant("clockwork", "clockwork", {}),
    *(Contestant(f"bounded, {bound}", "bounded", {"queue_max": bound}) for bound in (1, 2, 4, 8)),
    Contestant("fifo", "fifo", {}),
)

Ran = Counter[tuple[str, int]]
"""A count by model and batch size."""


@dataclass(frozen=True)
class Turn:
    """What became of one contestant's turn: the client's view, and what the executors ran."""

    played: Played
    counts: Ran
    took_ns: Ran


def main() -> None:
    quick = is_quick(__doc__)
    rounds, duration_s = (1, 4.0) if quick else (2, 8.0)
    contestants = [CONTESTANTS[0], CONTESTANTS[3]] if quick else CONTESTANTS
    if not ZOO.is_dir():
        raise SystemExit("there is no folder .zoo here: run `make zoo` first")
    report = Report("overload", is_quick=quick)
    executors = len(cores.available())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = _repository(folder)
        costs_ns = _calibrated(repository, folder)
        print("costs alone, in ms:", ", ".join(f"{model} {ns / MS:.1f}" for model, ns in costs_ns.items()), "\n")
        for load in LOADS:
            first = len(report)
            for seed in range(rounds):
                workload = _workload(costs_ns, load, executors, duration_s, seed)
                turns = {one.name: _turn(one, workload, repository, folder) for one in contestants}
                bound = _bound(workload, list(turns.values()), costs_ns, executors)
                for contestant, turn in turns.items():
                    report.add(load=load, round=seed + 1, policy=contestant, **_figures(turn.played, bound))
            share = BUDGET_SHARES[load]
            budgets = f"budgets of slotwise: {share:.0%} of the best possible, refusals within {BUDGET_REFUSAL_MS} ms"
            report.print_table(f"{load} times capacity, {duration_s:g} s a turn ({budgets})", first)
    report.keep()


def _repository(folder: Path) -> Path:
    """The models of this benchmark alone."""
    repository = folder / "models"
    for model in MODELS:
        shutil.copytree(ZOO / model, repository / model)
    return repository


def _calibrated(repository: Path, folder: Path) -> dict[str, int]:
    """What one row of each model costs while all executors are half busy; the first guess is far too high."""
    costs_ns = dict.fromkeys(MODELS, 50 * MS)
    executors = len(cores.available())
    for seed, load in enumerate(CALIBRATION_LOADS):
        # Deadlines far away, so that everything runs; well below capacity, so that rows run alone.
        workload = _workload(costs_ns, load, executors, 3.0, seed, slo_ns=10 * S)
        turn = _turn(Contestant("calibration", "fifo", {}), workload, repository, folder)
        costs_ns = {model: turn.took_ns[model, 1] // turn.counts[model, 1] for model in MODELS}
    return costs_ns


def _workload(
    costs_ns: Mapping[str, int], load: float, executors: int, duration_s: float, seed: int, slo_ns: int | None = None
) -> Workload:
    profiles = {model: Profile(rows=(1,), run_ns=(ns,), load_ns=0, memory_bytes=0) for model, ns in costs_ns.items()}
    slos_ns = {model: slo_ns or zoo_slo_ns(ZOO, model) for model in costs_ns}
    streams = mix(profiles, slos_ns, share=Share.RATE, utilisation=load, executors=executors)
    return Workload(streams=streams, phases=(Phase(duration_s=duration_s),), seed=seed)


def _turn(contestant: Contestant, workload: Workload, repository: Path, folder: Path) -> Turn:
    """Serve under a policy, warm up, and play."""
    settings: dict[str, object] = {"policy": contestant.policy, "policy_settings": contestant.settings}
    limits = {"late_answers": True, "drain_s": 0.0, "arena_mib": 1024}
    with serve(repository, folder, {**settings, **limits}) as server:
        return asyncio.run(_play(server, workload))


async def _play(server: Server, workload: Workload) -> Turn:
    timeouts_us = {stream.model: (stream.slo_ns - NETWORK_NS) // 1000 for stream in workload.streams}
    host = f"127.0.0.1:{server.port}"
    requests = {
        model: encode_infer(host, model, zoo_example(ZOO, model), timeout_us=timeout_us)
        for model, timeout_us in timeouts_us.items()
    }
    way = HttpWay("127.0.0.1", server.port, lambda arrival: requests[arrival.model])
    client = Sender(way, lines=CONNECTIONS, drain_s_max=ANSWER_S_MAX)
    await client.open()
    await client.record(Player(_evenly(workload, WARM_UP_S)), int(WARM_UP_S * S))
    await client.open()
    counts, took_ns = _ran(server)
    played = await client.record(player_of(workload), int(workload.phases[0].duration_s * S))
    counts_after, took_ns_after = _ran(server)
    await client.close()
    return Turn(played=played, counts=counts_after - counts, took_ns=took_ns_after - took_ns)


def _evenly(workload: Workload, duration_s: float) -> list[Arrival]:
    """A gentle start: every model in turn, twenty a second."""
    streams = workload.streams
    return [
        Arrival(at_ns=number * S // 20, model=stream.model, slo_ns=stream.slo_ns, rows=1, priority=stream.priority)
        for number in range(int(duration_s * 20))
        for stream in [streams[number % len(streams)]]
    ]


def _ran(server: Server) -> tuple[Ran, Ran]:
    """How often each model ran in each batch size so far, and for how long in all."""
    counts, took_ns = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for model in server.statistics():
        for batch in model.batch_stats:
            counts[model.name, batch.batch_size] += batch.compute_infer.count
            took_ns[model.name, batch.batch_size] += batch.compute_infer.ns
    return counts, took_ns


def _bound(workload: Workload, turns: Sequence[Turn], costs_ns: Mapping[str, int], executors: int) -> Bound:
    """The best possible for these arrivals at the mean costs of this round."""
    counts: Ran = sum((turn.counts for turn in turns), Counter())
    took_ns: Ran = sum((turn.took_ns for turn in turns), Counter())
    profiles = {}
    for model, cost_ns in costs_ns.items():
        rows = sorted(size for name, size in counts if name == model and counts[name, size] >= RUNS_MIN)
        runs_ns = {size: took_ns[model, size] // counts[model, size] for size in rows}
        runs_ns = {1: cost_ns, **runs_ns}
        sizes = tuple(sorted(runs_ns))
        profiles[model] = Profile(rows=sizes, run_ns=tuple(runs_ns[size] for size in sizes), load_ns=0, memory_bytes=0)
    requests = [
        Request(
            id=number,
            model=arrival.model,
            arrival_ns=arrival.at_ns,
            deadline_ns=arrival.at_ns + arrival.slo_ns,
            rows=1,
        )
        for number, arrival in enumerate(arrivals(workload))
    ]
    batch_max = {model: max(profile.rows) for model, profile in profiles.items()}
    return best_possible(requests, profiles, batch_max, executors)


def _figures(played: Played, bound: Bound) -> dict[str, float | int | None]:
    endings = Counter(sending.ending for sending in played.sendings)
    in_time = endings[Ending.IN_TIME]
    answers_ms = [_took_ms(sending) for sending in played.sendings if sending.status == 200]
    refusals_ms = [_took_ms(sending) for sending in played.sendings if sending.ending is Ending.REFUSED]
    lags_ms = [sending.lag_ns / MS for sending in played.sendings]
    return {
        "offered": len(played.sendings),
        "in_time": in_time,
        "best": round(bound.answers),
        "share": round(in_time / bound.answers, 3),
        "late": endings[Ending.LATE],
        "refused": endings[Ending.REFUSED],
        "other": endings[Ending.FAILED] + endings[Ending.UNANSWERED],
        "p50_ms": _at(answers_ms, 0.5),
        "p99_ms": _at(answers_ms, 0.99),
        "refusal_ms_p50": _at(refusals_ms, 0.5),
        "client_lag_ms_p99": _at(lags_ms, 0.99),
    }


def _took_ms(sending: Sending) -> float:
    """From when a request was due until its answer was there."""
    return (sending.ended_ns - sending.due_ns) / MS


def _at(figures: list[float], share: float) -> float | None:
    return float(f"{sorted(figures)[min(len(figures) - 1, int(share * len(figures)))]:.3g}") if figures else None


if __name__ == "__main__":
    main()
