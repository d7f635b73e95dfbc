"""Harnesses of the contract for a fleet of processes: one with emulated models, one with real ones."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slotwise.edges.fleets.processes import ProcessFleet
from slotwise.edges.fleets.settings import CoreSlice, FleetLimits
from slotwise.edges.slices import cores
from slotwise.edges.store.files import SharedArena
from slotwise.engine.clock import RealClock
from slotwise.engine.ports import Fleet
from slotwise.facts.actions import ReplaceExecutor
from slotwise.facts.events import Event, ExecutorUp
from slotwise.facts.types import ModelSpec, Request, TensorRef
from tests.contracts.harness import EXECUTORS, LARGE, LEFT, MEMORY_BYTES, MS, PAGE_BYTES, QUICK, RIGHT, SLOW, make_spec

WAIT_S_MAX = 60.0
ARENA_BYTES = 64 << 20
SLOW_RUN_NS = 250 * MS
QUICK_RUN_NS = MS // 5
SLOW_WIDTH = 512
SLOW_LAYERS = 60
"""Sixty products of 512 x 512 matrices take about a quarter of a second on one core."""
MLP_WIDTHS = (64, 128, 128, 10)
LIMITS = FleetLimits(restart_s_min=0.01, restart_s_max=0.05)


class LiveHarness:
    """A fleet of two executors in an asyncio loop of its own, which runs only while something is waited for."""

    def __init__(
        self, specs: Mapping[str, ModelSpec], inputs: Mapping[str, np.ndarray], limits: FleetLimits = LIMITS
    ) -> None:
        self.specs = specs
        self.loop = asyncio.new_event_loop()
        self.arena = SharedArena(ARENA_BYTES)
        self.events: list[Event] = []
        self.ends_turns = True
        self.clock = RealClock(self.loop)
        self._inputs = inputs
        self._changed = asyncio.Event()
        self._regions: dict[str, int] = {}
        self._serial = 0
        self.loop.run_until_complete(self._start(limits))

    async def _start(self, limits: FleetLimits) -> None:
        self.processes = ProcessFleet(
            slices=make_slices(),
            post=self._post,
            clock=self.clock,
            arena=self.arena,
            specs=self.specs,
            limits=limits,
        )
        await self.processes.start()

    async def _close(self) -> None:
        await self.processes.close()

    @property
    def fleet(self) -> Fleet:
        return self.processes

    def renew(self) -> None:
        """Fresh executors for the next test."""
        self.events.clear()
        for name in EXECUTORS:
            self.fleet.send(ReplaceExecutor(executor=name, message="for the next test"))
        self.fleet.flush()
        self.wait_until(lambda: sum(isinstance(event, ExecutorUp) for event in self.events) == len(EXECUTORS))
        assert self.arena.regions == len(self._regions), "the fleet keeps regions of batches that have ended"
        self.events.clear()

    def close(self) -> None:
        self.loop.run_until_complete(self._close())
        assert self.arena.regions == len(self._regions), "the fleet keeps regions of batches that have ended"
        self.arena.check()
        self.arena.close()
        self.loop.close()

    def now_ns(self) -> int:
        return self.clock.now_ns()

    def request(self, model: str) -> Request:
        array = self._inputs[model]
        if model not in self._regions:
            region = self.arena.allocate(array.nbytes)
            assert region is not None
            self.arena.view(region, array.nbytes)[:] = array.tobytes()
            self._regions[model] = region
        offset = self._regions[model]
        ref = TensorRef(
            name="x", datatype="FP32", shape=array.shape, segment=self.arena.segment, offset=offset, nbytes=array.nbytes
        )
        self._serial += 1
        return Request(
            id=self._serial,
            model=model,
            arrival_ns=self.now_ns(),
            deadline_ns=self.now_ns() + self.specs[model].slo_ns,
            rows=array.shape[0],
            inputs=(ref,),
            regions=(offset,),
        )

    def wait_until(self, condition: Callable[[], object]) -> None:
        self.loop.run_until_complete(asyncio.wait_for(self._wait_until(condition), WAIT_S_MAX))

    def kill(self, executor: str) -> None:
        self.processes.kill(executor)

    def hang(self, executor: str) -> None:
        self.processes.kill(executor, signal.SIGSTOP)

    async def _wait_until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()
            if self.ends_turns:
                self.fleet.flush()

    def _post(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()


def make_slices() -> list[CoreSlice]:
    """The two executors, each on its share of the cores."""
    own = cores.split(cores.available(), len(EXECUTORS))
    return [
        CoreSlice(executor=name, cores=own[at], memory_bytes=MEMORY_BYTES, page_bytes=PAGE_BYTES, threads=1)
        for at, name in enumerate(EXECUTORS)
    ]


def make_emulated(folder: Path) -> LiveHarness:
    """Executors that wait out the models' profiles."""
    return LiveHarness(*put_emulated(folder))


def put_emulated(folder: Path) -> tuple[dict[str, ModelSpec], dict[str, np.ndarray]]:
    """The models as emulated ones, and an input for each."""
    specs = {}
    for model in (QUICK, SLOW, LEFT, RIGHT, LARGE):
        run_ns = SLOW_RUN_NS if model == SLOW else QUICK_RUN_NS
        path = folder / f"{model.replace('/', '-')}.emulated.json"
        tensor = {"datatype": "FP32", "shape": [-1, 4]}
        profile = {"rows": [1], "run_ns": [run_ns], "load_ns": 2 * MS, "memory_bytes": 1}
        content = {"inputs": [{"name": "x", **tensor}], "outputs": [{"name": "y", **tensor}], "profile": profile}
        path.write_text(json.dumps(content))
        specs[model] = make_spec(model, run_ns=run_ns, path=str(path))
    return specs, {model: np.zeros((1, 4), np.float32) for model in specs}


def make_onnx(folder: Path) -> LiveHarness:
    """Executors that run a small perceptron, and a chain of large products for the slow model."""
    build_mlp(folder / "mlp.onnx", MLP_WIDTHS)
    build_chain(folder / "chain.onnx", SLOW_WIDTH, SLOW_LAYERS)
    source = np.random.default_rng(0)
    specs, inputs = {}, {}
    for model in (QUICK, SLOW, LEFT, RIGHT, LARGE):
        is_slow = model == SLOW
        path = folder / ("chain.onnx" if is_slow else "mlp.onnx")
        specs[model] = make_spec(model, run_ns=SLOW_RUN_NS if is_slow else QUICK_RUN_NS, path=str(path))
        shape = (SLOW_WIDTH, SLOW_WIDTH) if is_slow else (1, MLP_WIDTHS[0])
        inputs[model] = source.standard_normal(shape).astype(np.float32)
    return LiveHarness(specs, inputs)


def build_mlp(path: Path, widths: tuple[int, ...]) -> None:
    """A perceptron whose first dimension is the batch."""
    source = np.random.default_rng(1)
    nodes, weights, at = [], [], "x"
    for layer, (width, following) in enumerate(itertools.pairwise(widths)):
        is_last = layer == len(widths) - 2
        matrix = source.standard_normal((width, following)).astype(np.float32) / np.float32(width**0.5)
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        weights.append(numpy_helper.from_array(np.zeros(following, np.float32), f"b{layer}"))
        product = "y" if is_last else f"g{layer}"
        nodes.append(helper.make_node("Gemm", [at, f"w{layer}", f"b{layer}"], [product]))
        if not is_last:
            nodes.append(helper.make_node("Relu", [product], [f"h{layer}"]))
            at = f"h{layer}"
    save(path, nodes, weights, widths[0], widths[-1])


def build_chain(path: Path, width: int, layers: int) -> None:
    """The same square matrix multiplied by many times over."""
    matrix = np.linalg.qr(np.random.default_rng(2).standard_normal((width, width)))[0].astype(np.float32)
    names = ["x", *(f"h{layer}" for layer in range(layers - 1)), "y"]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in itertools.pairwise(names)]
    save(path, nodes, [numpy_helper.from_array(matrix, "w")], width, width)


def save(path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], width: int, out_width: int) -> None:
    """Write a model from FP32 [batch, width] x to FP32 [batch, out_width] y."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", out_width])
    graph = helper.make_graph(nodes, path.stem, [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
