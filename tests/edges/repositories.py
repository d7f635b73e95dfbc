"""A repository in a temporary folder, tiny models to put there, and an inspector that runs them in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidProtobuf

from slotwise.edges.repository.layout import LIMITS, Limits
from slotwise.edges.repository.registry import DEFAULTS, Defaults, Progress, Registry
from slotwise.engine.ports import NO_SHAPES, Inspection, ModelError, Models, ModelStatus
from slotwise.facts.events import Event, ModelAdded
from slotwise.facts.profile import Profile
from slotwise.facts.types import TensorSpec

WAIT_S_MAX = 60.0
DATATYPES = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
}
NUMPY_TYPES = {"FP32": np.float32, "FP64": np.float64, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8}


class RuntimeInspector:
    """Runs models in this process. Counts, so that a test can tell what was measured and what was remembered."""

    def __init__(self) -> None:
        self.inspected: list[str] = []
        self.shapes: list[Mapping[str, tuple[int, ...]]] = []
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def inspect(
        self, path: str, batch_max: int, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES, pack_into: str = ""
    ) -> Inspection:
        self.inspected.append(path)
        self.shapes.append(shapes)
        self.reached.set()
        await self.gate.wait()
        try:
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except (InvalidProtobuf, Fail) as error:
            raise ModelError(f"the runtime cannot read it: {error}") from error
        inputs = tuple(spec(tensor) for tensor in session.get_inputs())
        batchable = all(tensor.shape[0] == -1 for tensor in inputs)
        sizes = tuple(size for size in (1, 2, 4) if size <= batch_max) if batchable else (1,)
        times = []
        for size in sizes:
            feeds = {tensor.name: zeros(tensor, size) for tensor in inputs}
            start_ns = time.perf_counter_ns()
            session.run(None, feeds)
            times.append(time.perf_counter_ns() - start_ns)
        return Inspection(
            inputs=inputs,
            outputs=tuple(spec(tensor) for tensor in session.get_outputs()),
            batchable=batchable,
            profile=Profile(rows=sizes, run_ns=tuple(times), load_ns=1, memory_bytes=1),
        )


def spec(tensor: onnxruntime.NodeArg) -> TensorSpec:
    shape = tuple(dim if isinstance(dim, int) else -1 for dim in tensor.shape)
    return TensorSpec(name=tensor.name, datatype=DATATYPES[tensor.type], shape=shape)


def zeros(tensor: TensorSpec, rows: int) -> NDArray[np.generic]:
    return np.zeros([rows if dim == -1 else dim for dim in tensor.shape], NUMPY_TYPES[tensor.datatype])


class Repository:
    """A root folder, what was posted, and registries over them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "models"
        self.root.mkdir()
        self.cache = folder / "cache"
        self.inspector = RuntimeInspector()
        self.posted: list[Event] = []

    def put(
        self, name: str, version: object = 1, *, factor: float = 2, batch: int | str = "batch", toml: str = ""
    ) -> Path:
        """A model that multiplies; written whole, as a careful owner does."""
        path = self.root / name / str(version) / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_bytes(multiplier(factor, batch))
        draft.replace(path)
        if toml:
            (self.root / name / "slotwise.toml").write_text(toml)
        return path

    def registry(
        self, *, defaults: Defaults = DEFAULTS, limits: Limits = LIMITS, progress: Progress | None = None
    ) -> Registry:
        """A registry over the folder, not yet open."""
        return Registry(
            root=self.root,
            inspector=self.inspector,
            post=self.posted.append,
            cache=self.cache,
            defaults=defaults,
            limits=limits,
            progress=progress,
        )

    def names_posted(self) -> list[str]:
        """What was posted since the last call: + and - with the id."""
        found = [f"+{event.spec.id}" if isinstance(event, ModelAdded) else f"-{event.model}" for event in self.posted]
        self.posted.clear()
        return found


def multiplier(factor: float, batch: int | str) -> bytes:
    """A model whose output is its input, so many times."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])
    weight = numpy_helper.from_array(np.array([factor], np.float32), "weight")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "weight"], ["y"])], "multiplier", [x], [y], [weight])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    return model.SerializeToString()


def opened(
    repository: Repository,
    *,
    defaults: Defaults = DEFAULTS,
    limits: Limits = LIMITS,
    progress: Progress | None = None,
) -> Registry:
    """A registry that has read the folder."""
    registry = repository.registry(defaults=defaults, limits=limits, progress=progress)
    asyncio.run(registry.open())
    return registry


def found(registry: Models, name: str, version: str = "") -> ModelStatus:
    status = registry.find(name, version)
    assert status is not None
    return status


async def settle(registry: Registry) -> None:
    """A change counts when two polls have seen it."""
    await registry.poll()
    await registry.poll()
