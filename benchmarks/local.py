"""What the local channel adds to a bare call of the runtime, and HTTP beside it: one client, one request at a time.

Two models: a network of 8 us with a row of 256 bytes, and the mean of an image of 602 kB, which costs little more than
reading it. Ways: over the local socket with an array that lies in shared memory, over it with an array of the client's
own (copied once), over HTTP on one kept connection, binary, by a client that only writes and reads the socket (no
arrays are made), and over HTTP by the client of `slotwise.client`.
`added` is the p50 of a way less the p50 of the runtime's own call in this process. The server has one executor.

`bare relay` is what waking three processes one after the other costs here by itself: a byte goes from this program
through a socket to a second process, which has a loop as the server does, by an eventfd to a third, which is bound to
the executor's core, and back the same way. Nothing is read, decided or run.
"""

from __future__ import annotations

import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median as middle

import numpy as np
import onnx
from harness import bare_relay, processes
from harness.models import build_mlp, mlp_row
from harness.report import Report, is_quick, median
from harness.server import Server, serve
from numpy.typing import NDArray
from onnx import TensorProto, helper

from slotwise.client import Client, LocalClient, encode_infer
from slotwise.edges.runtimes import load

IMAGE = (1, 3, 224, 224)
BUDGET_ADDED_MS = 0.08
WARM_UP_CALLS = 300
Way = Callable[[], None]


def main() -> None:
    quick = is_quick(__doc__)
    rounds, calls = (2, 300) if quick else (9, 2000)
    report = Report("local", is_quick=quick)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {"mlp": build_mlp(folder / "models"), "mean": build_mean(folder / "models")}
        inputs = {"mlp": mlp_row(), "mean": np.random.default_rng(2).standard_normal(IMAGE, dtype=np.float32)}
        added_us: dict[str, float] = {}
        settings = {"cores": [1], "local_socket": str(folder / "socket")}
        with (
            serve(folder / "models", folder, settings) as server,
            LocalClient(str(folder / "socket")) as client,
            bare_relay.relay(core=1) as relayed,
        ):
            for model, array in inputs.items():
                bare = load(str(paths[model]), 1)
                ways = ways_to(model, array, client, server)
                ways["bare call"] = lambda bare=bare, array=array: bare.run({"x": array}, 1, ("y",), {})
                ways["bare relay"] = relayed
                added_us[model] = measure(report, server, model, ways, rounds, calls)
    report.print_table(f"Medians of {rounds} rounds of {calls} calls; us")
    print(f"added latency, tiny, in place: {added_us['mlp'] / 1000:.3f} ms (budget {BUDGET_ADDED_MS})")
    report.keep()


def ways_to(model: str, array: NDArray[np.float32], client: LocalClient, server: Server) -> dict[str, Way]:
    """Every way to ask a model the same thing."""
    shared = client.empty(array.shape, array.dtype)
    shared[:] = array
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = encode_infer("localhost", model, {"x": array})
    far = Client(f"http://127.0.0.1:{server.port}")
    expected = client.infer(model, {"x": shared}).outputs["y"].copy()
    np.testing.assert_array_equal(client.infer(model, {"x": array}).outputs["y"], expected)
    if not ask(connection, request).endswith(expected.tobytes()):
        raise SystemExit(f"{model}: the answer over HTTP is not the one over the local channel")
    return {
        "local, in place": lambda: void(client.infer(model, {"x": shared})),
        "local, copied": lambda: void(client.infer(model, {"x": array})),
        "HTTP, bare": lambda: void(ask(connection, request)),
        "HTTP, client": lambda: void(far.infer(model, {"x": array})),
    }


def void(_answer: object) -> None:
    """Let go of an answer."""


def ask(connection: socket.socket, request: bytes) -> bytes:
    """A reply as it comes, as cheaply as a client can have it."""
    connection.sendall(request)
    reply = connection.recv(1 << 16)
    head, _, body = reply.partition(b"\r\n\r\n")
    length = int(head[head.index(b"content-length: ") + 16 :].split(b"\r\n", 1)[0])
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"the server answered {reply!r}")
    while len(body) < length:
        body += connection.recv(1 << 16)
    return body


def measure(report: Report, server: Server, model: str, ways: dict[str, Way], rounds: int, calls: int) -> float:
    """Every way in turn, several rounds, so that a busy moment hits all of them; what the first one adds, p50."""
    took: dict[str, list[list[float]]] = defaultdict(list)
    cpu_us: dict[str, list[float]] = defaultdict(list)
    for way in ways.values():
        for _ in range(WARM_UP_CALLS):
            way()
    for _ in range(rounds):
        for name, way in ways.items():
            before = sum(processes.cpu_s(server.pid).values())
            took[name].append(times_us(way, calls))
            cpu_us[name].append((sum(processes.cpu_s(server.pid).values()) - before) / calls * 1e6)
    p50_us = {name: middle(middle(times) for times in runs) for name, runs in took.items()}
    bare_us = p50_us["bare call"]
    for name, runs in took.items():
        report.add(
            model=model,
            way=name,
            p50_us=median([p50_us[name]]),
            added_us_p50=median([p50_us[name] - bare_us]),
            p99_us=median([sorted(times)[len(times) * 99 // 100] for times in runs]),
            least_us_p50=median([min(middle(times) for times in runs)]),
            server_cpu_us=median(cpu_us[name]),
        )
    return next(iter(p50_us.values())) - bare_us


def times_us(way: Way, calls: int) -> list[float]:
    """How long each of so many calls takes, one after the other."""
    found = []
    for _ in range(calls):
        begin_ns = time.perf_counter_ns()
        way()
        found.append((time.perf_counter_ns() - begin_ns) / 1000)
    return found


def build_mean(repository: Path) -> Path:
    """A model that reads an image and says its mean by channel; the path of its file."""
    node = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *IMAGE[1:]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", IMAGE[1], 1, 1])
    graph = helper.make_graph([node], "mean", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = repository / "mean" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    (repository / "mean" / "slotwise.toml").write_text("slo_ms = 10000\nbatch_max = 8\n")
    return path


if __name__ == "__main__":
    main()
