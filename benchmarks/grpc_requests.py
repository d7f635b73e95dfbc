"""What the gRPC door adds to a bare call of the runtime, and what it takes: tiny requests on 1 and 16 connections.

A network of 8 us behind a real server (one executor on core 1), asked by gRPC's own client, which sends and takes bytes
that are messages already: none is made or read on its side. Closed loop, one request under way on each connection.
The processor time is that of the server alone, by process: `door` is the gRPC door's. What the door adds is p50 on one
connection less p50 of the bare call. With 16 connections the client is as busy as the door, on the same two cores, and
the latency says more about both than about either.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median as middle

import grpc
from harness import processes
from harness.models import build_mlp, mlp_row
from harness.report import Report, is_quick, median
from harness.server import Server, serve

from slotwise.edges.oip.grpc import inference_pb2 as pb
from slotwise.edges.runtimes import load

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CONNECTIONS = (1, 16)
WARM_UP_S = 1.0
BARE_CALLS = 20_000
BUDGET_ADDED_MS = 0.6


@dataclass(frozen=True)
class Run:
    """One stretch of load: how long each request took, and what each process took for all of them."""

    took_us: list[float]
    cpu_us: dict[str, float]
    seconds: float

    @property
    def total_us(self) -> float:
        """Of all processes together."""
        return sum(self.cpu_us.values())


def main() -> None:
    quick = is_quick(__doc__)
    rounds, seconds = (2, 1.0) if quick else (7, 3.0)
    report = Report("grpc_requests", is_quick=quick)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = build_mlp(folder / "models")
        with serve(folder / "models", folder, {"cores": [1], "grpc": True, "grpc_port": 0}) as server:
            runs = asyncio.run(_play(server, _address(server), rounds, seconds))
        bare_us = _bare_us(str(model))
    for connections, found in runs.items():
        _add(report, connections, found)
    report.print_table(f"Medians of {rounds} runs of {seconds:g} s; us, CPU per request")
    added_ms = (middle(middle(run.took_us) for run in runs[1]) - bare_us) / 1000
    print(f"added latency, one connection: {added_ms:.3f} ms over {bare_us:.1f} us bare (budget {BUDGET_ADDED_MS})")
    report.keep()


def _address(server: Server) -> str:
    return f"127.0.0.1:{server.line('gRPC on ').rpartition(':')[2]}"


async def _play(server: Server, address: str, rounds: int, seconds: float) -> dict[int, list[Run]]:
    """Every number of connections in turn, several rounds, so that a busy moment of the machine hits all alike."""
    request = _request().SerializeToString()
    channels = [
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(max(CONNECTIONS))
    ]
    calls = [channel.unary_unary(METHOD) for channel in channels]
    answer = pb.ModelInferResponse.FromString(await calls[0](request))
    if answer.outputs[0].name != "y" or len(answer.raw_output_contents[0]) != 40:
        raise SystemExit(f"the server answered {answer}")
    runs: dict[int, list[Run]] = defaultdict(list)
    for connections in CONNECTIONS:
        await _run(server, calls[:connections], request, WARM_UP_S)
    for _ in range(rounds):
        for connections in CONNECTIONS:
            runs[connections].append(await _run(server, calls[:connections], request, seconds))
    for channel in channels:
        await channel.close()
    return runs


async def _run(server: Server, calls: list[grpc.aio.UnaryUnaryMultiCallable], request: bytes, seconds: float) -> Run:
    took_us: list[float] = []
    end_s = time.perf_counter() + seconds

    async def ask(call: grpc.aio.UnaryUnaryMultiCallable) -> None:
        while (begin_s := time.perf_counter()) < end_s:
            await call(request)
            took_us.append((time.perf_counter() - begin_s) * 1e6)

    before = processes.cpu_s(server.pid)
    await asyncio.gather(*map(ask, calls))
    after = processes.cpu_s(server.pid)
    cpu_us = {
        role: (after[role] - before[role]) / len(took_us) * 1e6 for role in (*processes.ROLES, processes.GRPC_DOOR)
    }
    return Run(took_us, cpu_us, seconds)


def _request() -> pb.ModelInferRequest:
    row = mlp_row()
    request = pb.ModelInferRequest(model_name="mlp", raw_input_contents=[row.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=row.shape)
    return request


def _add(report: Report, connections: int, runs: list[Run]) -> None:
    report.add(
        connections=connections,
        cpu_us=median([run.total_us for run in runs]),
        door_us=median([run.cpu_us[processes.GRPC_DOOR] for run in runs]),
        front_us=median([run.cpu_us["front"] for run in runs]),
        executor_us=median([run.cpu_us["executors"] for run in runs]),
        per_s=round(middle([len(run.took_us) / run.seconds for run in runs])),
        p50_us=median([middle(run.took_us) for run in runs]),
        p99_us=median([sorted(run.took_us)[len(run.took_us) * 99 // 100] for run in runs]),
    )


def _bare_us(path: str) -> float:
    """Median time of the runtime's call alone, in this process."""
    model, feeds = load(path, 1), {"x": mlp_row()}
    took_us = []
    for _ in range(BARE_CALLS):
        begin_s = time.perf_counter()
        model.run(feeds, 1, ("y",), {})
        took_us.append((time.perf_counter() - begin_s) * 1e6)
    return middle(took_us)


if __name__ == "__main__":
    main()
