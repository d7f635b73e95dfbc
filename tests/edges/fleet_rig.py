"""A live fleet for tests of the edges: models made on the spot, tensors in the arena, answers as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from slotwise.edges.fleets.settings import FleetLimits
from slotwise.edges.runtimes.tensors import DATATYPES, read_tensor, texts_to_bytes
from slotwise.facts.actions import Load, RunBatch
from slotwise.facts.events import BatchDone, BatchFailed, Loaded, LoadFailed
from slotwise.facts.profile import Profile
from slotwise.facts.types import FOREVER_NS, ModelSpec, Request, TensorRef
from tests.contracts.live import LIMITS, LiveHarness, build_chain, build_mlp

PROFILE = Profile(rows=(1,), run_ns=(1_000_000,), load_ns=1_000_000, memory_bytes=1000)
Array = np.ndarray


class Rig(LiveHarness):
    """A live fleet and the models of one test; everything goes to executor `a`."""

    def __init__(self, models: dict[str, Path], limits: FleetLimits = LIMITS) -> None:
        specs = {name: make_spec(name, path) for name, path in models.items()}
        super().__init__(specs, {}, limits)
        self._batches = 0

    def load(self, model: str) -> Loaded | LoadFailed:
        self._batches += 1
        load_id = self._batches
        self.fleet.send(Load(executor="a", model=model, load_id=load_id))
        self.fleet.flush()

        def find() -> list[Loaded | LoadFailed]:
            found = [event for event in self.events if isinstance(event, Loaded | LoadFailed)]
            return [event for event in found if event.load_id == load_id]

        self.wait_until(find)
        return find()[0]

    def send(
        self, model: str, *questions: dict[str, Array], outputs: Sequence[str] = (), latest_ns: int = FOREVER_NS
    ) -> int:
        self._batches += 1
        requests = tuple(self._make_request(model, arrays, tuple(outputs)) for arrays in questions)
        self.fleet.send(
            RunBatch(
                executor="a",
                batch_id=self._batches,
                model=model,
                requests=requests,
                rows=sum(request.rows for request in requests),
                earliest_ns=0,
                latest_ns=latest_ns,
                expected_ns=0,
            )
        )
        for request in requests:  # the door lets go; the fleet holds the tensors now
            for region in request.regions:
                self.arena.release(region)
        return self._batches

    def wait_for(self, batch_id: int, *, is_turn_over: bool = True) -> BatchDone | BatchFailed:
        if is_turn_over:
            self.fleet.flush()

        def find() -> list[BatchDone | BatchFailed]:
            found = [event for event in self.events if isinstance(event, BatchDone | BatchFailed)]
            return [event for event in found if event.batch_id == batch_id]

        self.wait_until(find)
        return find()[0]

    def run(self, model: str, *questions: dict[str, Array], outputs: Sequence[str] = ()) -> list[dict[str, Array]]:
        """The answers of a batch that must succeed."""
        result = self.wait_for(self.send(model, *questions, outputs=outputs))
        assert isinstance(result, BatchDone), result
        answers = [{ref.name: self.read(ref) for ref in refs} for refs in result.outputs]
        self.fleet.flush()
        return answers

    def read(self, ref: TensorRef) -> Array:
        return read_tensor(self.processes.read(ref), ref.datatype, ref.shape, 0, ref.nbytes).copy()

    def _make_request(self, model: str, arrays: dict[str, Array], outputs: tuple[str, ...]) -> Request:
        data = {name: texts_to_bytes(a) if a.dtype == np.object_ else a.tobytes() for name, a in arrays.items()}
        sizes = [-(-len(part) // 64) * 64 for part in data.values()]
        region = self.arena.allocate(sum(sizes))
        assert region is not None
        refs = []
        offset = region
        for (name, part), size in zip(data.items(), sizes, strict=True):
            self.arena.view(offset, len(part))[:] = part
            array = arrays[name]
            refs.append(
                TensorRef(
                    name=name,
                    datatype=DATATYPES[array.dtype],
                    shape=array.shape,
                    segment=0,
                    offset=offset,
                    nbytes=len(part),
                )
            )
            offset += size
        rows = next((array.shape[0] for array in arrays.values() if array.ndim), 1)
        return Request(
            id=self._batches,
            model=model,
            arrival_ns=0,
            deadline_ns=0,
            rows=rows,
            inputs=tuple(refs),
            regions=(region,),
            outputs=outputs,
        )


def make_spec(name: str, path: Path) -> ModelSpec:
    return ModelSpec(
        id=name, name=name, version="1", profile=PROFILE, slo_ns=1, batch_max=8, path=str(path), batchable=True
    )


Start = Callable[..., Rig]


@contextmanager
def rigs(folder: Path) -> Iterator[Start]:
    """Gives a function that starts a fleet with the models of these names, which `build` can make, loaded."""
    started: list[Rig] = []

    def start(*names: str, limits: FleetLimits = LIMITS) -> Rig:
        for name in names:
            build(folder, name)
        started.append(Rig({name: folder / f"{name}.onnx" for name in names}, limits))
        for name in names:
            assert isinstance(started[-1].load(name), Loaded)
        return started[-1]

    try:
        yield start
    finally:
        for rig in started:
            rig.close()


def build(folder: Path, name: str) -> None:
    path = folder / f"{name}.onnx"
    n4 = ["n", 4]
    match name:
        case "mlp":
            build_mlp(path, (64, 128, 128, 10))
        case "wide":
            build_chain(path, 512, 2)
        case "texts":
            save(
                path,
                helper.make_node("Identity", ["s"], ["t"]),
                {"s": (TensorProto.STRING, n4)},
                {"t": (TensorProto.STRING, n4)},
            )
        case "two":
            node = helper.make_node("Split", ["x"], ["low", "high"], axis=1, num_outputs=2)
            halves = {"low": (TensorProto.FLOAT, ["n", 2]), "high": (TensorProto.FLOAT, ["n", 2])}
            save(path, node, {"x": (TensorProto.FLOAT, n4)}, halves)
        case "liar":
            node = helper.make_node("Tile", ["x", "times"], ["y"])
            inputs = {"x": (TensorProto.FLOAT, ["n", 100]), "times": (TensorProto.INT64, [2])}
            save(path, node, inputs, {"y": (TensorProto.FLOAT, ["n", 50_000])})
        case "sums":
            node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
            save(path, node, {"x": (TensorProto.FLOAT, ["n", 4])}, {"y": (TensorProto.FLOAT, [])})


def save(path: Path, node: onnx.NodeProto, inputs: dict, outputs: dict) -> None:
    ends = [[helper.make_tensor_value_info(name, *kind) for name, kind in end.items()] for end in (inputs, outputs)]
    graph = helper.make_graph([node], path.stem, *ends)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(path))


def numbers(rows: int, width: int, seed: int = 0) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)}


def direct(rig: Rig, model: str, feeds: dict[str, Array]) -> list[Array]:
    return onnxruntime.InferenceSession(rig.specs[model].path).run(None, feeds)
