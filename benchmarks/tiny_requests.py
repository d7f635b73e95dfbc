"""What the server costs when models cost nothing: tiny requests over HTTP, in binary and in JSON.

A network of 8 us behind a real server (one executor on core 1), asked by wrk on 1, 16 and 64 connections. The figure
to compare is the processor time of all the server's processes per request: it hardly moves with what else the
machine does. Latencies and rates do, and wrk takes its share of the same cores. What the server adds to a
request, all told, is p50 on one connection less p50 of the bare call to the runtime.

`canned` is a bare HTTP server that answers with the same bytes always: what sockets and wake-ups cost here. It is the
floor under all figures of a machine, and differs a lot between machines; compare what lies above it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median as middle

from harness import bare_door, processes, wrk
from harness.models import Body, binary_body, build_mlp, json_body, mlp_row
from harness.report import Report, is_quick, median
from harness.server import Server, serve

from slotwise.edges.runtimes import load

CONNECTIONS = (1, 16, 64)
WARM_UP_S = 2
BARE_CALLS = 20_000
BUDGET_US = 40
BUDGET_ADDED_MS = 0.15


def main() -> None:
    quick = is_quick(__doc__)
    rounds, seconds = (1, 1) if quick else (5, 3)
    report = Report("tiny_requests", is_quick=quick)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = build_mlp(folder / "models")
        bodies = {"binary": binary_body({"x": mlp_row()}), "JSON": json_body({"x": mlp_row()})}
        with serve(folder / "models", folder, {"cores": [1]}) as server, _bare_door() as door:
            targets = {form: Target(server.pid, server.port, body) for form, body in bodies.items()}
            targets["canned"] = Target(door.pid, door.port, bodies["binary"])
            wrk.run(targets["binary"].url, bodies["binary"], connections=16, seconds=WARM_UP_S, folder=folder)
            # Interleaved, so that a busy moment of the machine hits every row alike.
            runs: dict[tuple[str, int], list[Run]] = defaultdict(list)
            for _ in range(rounds):
                for form, target in targets.items():
                    for connections in CONNECTIONS:
                        runs[form, connections].append(_run(target, connections, seconds, folder))
        bare_us = _bare_us(str(model))
    for (form, connections), found in runs.items():
        _add(report, form, connections, found)
    report.print_table(f"Medians of {rounds} runs of {seconds} s; CPU in us per request")
    added_ms = median([run.load.latency_us_p50 / 1000 for run in runs["binary", 1]]) - bare_us / 1000
    cpu_us = median([run.total_us for run in runs["binary", 16]])
    floor_us = median([run.total_us for run in runs["canned", 16]])
    print(f"CPU per request, binary, 16 connections: {cpu_us:.1f} us (budget {BUDGET_US}; floor {floor_us:.1f})")
    print(
        f"added latency, binary, 1 connection: {added_ms:.3f} ms over {bare_us:.1f} us bare (budget {BUDGET_ADDED_MS})"
    )
    report.add(bare_us_p50=round(bare_us, 2), added_ms_p50=round(added_ms, 4))
    report.keep()


@dataclass(frozen=True)
class Target:
    """A server and what it is sent."""

    pid: int
    port: int
    body: Body

    @property
    def url(self) -> str:
        """Where inferences are asked for."""
        return f"http://127.0.0.1:{self.port}/v2/models/mlp/infer"


class Run:
    """One run of wrk, and what the server took of the processor for it."""

    def __init__(self, found: wrk.Load, cpu_s: dict[str, float]) -> None:
        self.load = found
        self.cpu_us = {role: used_s / found.requests * 1e6 for role, used_s in cpu_s.items()}
        self.total_us = sum(self.cpu_us.values())


def _run(target: Target, connections: int, seconds: int, folder: Path) -> Run:
    before = processes.cpu_s(target.pid)
    found = wrk.run(target.url, target.body, connections=connections, seconds=seconds, folder=folder)
    after = processes.cpu_s(target.pid)
    return Run(found, {role: after[role] - before[role] for role in processes.ROLES})


@contextlib.contextmanager
def _bare_door() -> Iterator[Server]:
    process = subprocess.Popen([sys.executable, bare_door.__file__], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None, "asked for above"
    try:
        yield Server(process, int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()


def _add(report: Report, form: str, connections: int, runs: list[Run]) -> None:
    report.add(
        body=form,
        connections=connections,
        cpu_us=median([run.total_us for run in runs]),
        front_us=median([run.cpu_us["front"] for run in runs]),
        executor_us=median([run.cpu_us["executors"] for run in runs]),
        cpu_us_least=round(min(run.total_us for run in runs), 1),
        per_s=round(middle([run.load.per_s for run in runs])),
        p50_us=median([run.load.latency_us_p50 for run in runs]),
        p99_us=median([run.load.latency_us_p99 for run in runs]),
    )


def _bare_us(path: str) -> float:
    """Median time of the runtime's call alone, in this process."""
    model, feeds = load(path, 1), {"x": mlp_row()}
    took_ns = []
    for _ in range(BARE_CALLS):
        begin_ns = time.perf_counter_ns()
        model.run(feeds, 1, ("y",), {})
        took_ns.append(time.perf_counter_ns() - begin_ns)
    return middle(took_ns) / 1000


if __name__ == "__main__":
    main()
