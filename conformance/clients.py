"""Runs standard clients against our server, each in an environment of its own, and reads what they say."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from peers.environment import Environment, NotHere, prepare

from conformance.page import Run
from conformance.servers import CLIENTS, Server, ours

SCRIPTS = Path(__file__).resolve().parent / "scripts"
RUN_S_MAX = 300
WORDS_LEN = 200
PATH = "/usr/bin:/bin"
PERF_ANALYZER = ("tritonclient==2.49.0", "nvidia-cuda-runtime-cu12")
"""The last wheels with the program that run on this machine's C library; it wants CUDA's, and Debian's libb64-0d."""
THROUGHPUT = re.compile(r"Throughput: ([\d.]+) infer/sec")
CONCURRENT = ("--concurrency-range", "4")
ANALYSED: Mapping[str, Sequence[str]] = {
    "HTTP, binary": ("-i", "http", *CONCURRENT),
    "HTTP, JSON": ("-i", "http", *CONCURRENT, "--input-tensor-format", "json", "--output-tensor-format", "json"),
    "HTTP, batches of 4": ("-i", "http", *CONCURRENT, "-b", "4"),
    "HTTP, system shared memory": ("-i", "http", *CONCURRENT, "--shared-memory", "system"),
    "HTTP, Poisson arrivals": ("-i", "http", "--request-rate-range", "100", "--request-distribution", "poisson"),
    "HTTP, trace settings": ("-i", "http", *CONCURRENT, "--trace-level", "TIMESTAMPS", "--trace-rate", "50"),
    "gRPC": ("-i", "grpc", *CONCURRENT),
    "gRPC, asynchronously": ("-i", "grpc", *CONCURRENT, "--async"),
    "gRPC, system shared memory": ("-i", "grpc", *CONCURRENT, "--shared-memory", "system"),
    "gRPC, a stream": ("-i", "grpc", *CONCURRENT, "--streaming"),
    "gRPC, Poisson arrivals in a stream": (
        *("-i", "grpc", "--streaming"),
        *("--request-rate-range", "100", "--request-distribution", "poisson"),
    ),
}
WINDOW = ("--request-count", "300")
"""This is about understanding each other, not about speed."""


class Ran(msgspec.Struct, frozen=True):
    """What was run, of which versions."""

    versions: dict[str, str]
    runs: list[Run]


class _Step(msgspec.Struct, frozen=True):
    """A line that a script says."""

    what: str
    outcome: str
    is_well: bool


def run() -> Ran:
    """Install and run all of them. Raises NotHere when one cannot be had."""
    triton = prepare(CLIENTS, "tritonclient", ("tritonclient[grpc,http]==2.73.0",))
    kserve = prepare(CLIENTS, "kserve", ("kserve==0.21.0",))
    analyzer = prepare(CLIENTS, "perf_analyzer", PERF_ANALYZER)
    with tempfile.TemporaryDirectory() as folder, ours(Path(folder)) as server:
        runs = _script("tritonclient", triton, "use_tritonclient.py", server)
        runs += _script("kserve", kserve, "use_kserve.py", server)
        runs += [_analysed(analyzer, what, words, server) for what, words in ANALYSED.items()]
    versions = {
        server.name: server.version,
        "tritonclient": triton.installed.version,
        "kserve": kserve.installed.version,
        "perf_analyzer": f"of tritonclient {analyzer.installed.version}",
    }
    return Ran(versions, runs)


def _script(client: str, environment: Environment, script: str, server: Server) -> list[Run]:
    """The steps that a script has taken; it fails as a whole where it ends before its time."""
    command = [environment.program("python"), str(SCRIPTS / script), str(server.http_port), str(server.grpc_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S_MAX, env={"PATH": PATH}, check=False)
    steps = [msgspec.json.decode(line, type=_Step) for line in done.stdout.splitlines() if line.startswith("{")]
    runs = [Run(client, step.what, step.outcome, step.is_well) for step in steps]
    if done.returncode:
        runs.append(Run(client, "the script", _end(done.stderr), is_well=False))
    return runs


def _analysed(environment: Environment, what: str, words: Sequence[str], server: Server) -> Run:
    """One run of perf_analyzer; its figure is no measurement, since the machine is shared."""
    port = server.grpc_port if "grpc" in words else server.http_port
    libraries = next(environment.packages.glob("nvidia/cuda_runtime/lib"), None)
    if libraries is None:
        raise NotHere(f"{environment.folder} has no CUDA runtime, which perf_analyzer asks for")
    command = [environment.program("perf_analyzer"), "-m", "echo", "-u", f"127.0.0.1:{port}", *words, *WINDOW]
    variables = {"PATH": PATH, "LD_LIBRARY_PATH": str(libraries)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S_MAX, env=variables, check=False)
    found = THROUGHPUT.search(done.stdout)
    is_well = done.returncode == 0 and found is not None and float(found[1]) > 0
    return Run("perf_analyzer", what, "done" if is_well else _end(done.stderr + done.stdout), is_well)


def _end(text: str) -> str:
    return text.strip()[-WORDS_LEN:]
