"""Measuring every model of a repository anew, for a report: a server's parts without its doors."""

from __future__ import annotations

import tempfile

import msgspec

from slotwise.app import LiveSystem
from slotwise.config import MIB, Config
from slotwise.edges.logs.settings import Logs
from slotwise.edges.oip.tls import Tls
from slotwise.edges.repository.registry import Progress
from slotwise.edges.traces.settings import Traces
from slotwise.engine.ports import ModelStatus
from slotwise.facts.types import TensorSpec
from slotwise.facts.units import MS

HERE = "127.0.0.1"
"""Where whatever is for nobody else would listen."""


class ModelReport(msgspec.Struct, frozen=True):
    """What measuring one version of a model has shown, or why it could not be measured."""

    model: str
    error: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batchable: bool = False
    batch_max: int = 1
    memory_mib: float = 0.0
    load_ms: float = 0.0
    slo_ms: float = 0.0
    rows: tuple[int, ...] = ()
    run_ms: tuple[float, ...] = ()
    """Processor time of a batch of `rows[i]`."""
    wall_ms: tuple[float, ...] = ()


async def measured(config: Config, progress: Progress | None = None) -> list[ModelReport]:
    """Measure every model of a repository, whatever was measured before. Raises as `LiveSystem` does."""
    with tempfile.TemporaryDirectory(prefix="slotwise-") as cache:
        apart = msgspec.structs.replace(
            config,
            cache=cache,
            journal="",
            tls=Tls(),
            logs=Logs(),
            traces=Traces(),
            host=HERE,
            http_port=0,
            grpc=False,
            local_socket="",
        )
        system = LiveSystem(apart, progress=progress)
        try:
            await system.fleet.start()
            await system.registry.open()
            return [_model_report(status) for status in system.registry.index()]
        finally:
            await system.close()


def _model_report(status: ModelStatus) -> ModelReport:
    name = f"{status.name}/{status.version}"
    spec = status.spec
    if spec is None:
        return ModelReport(model=name, error=status.reason)
    profile = spec.profile
    return ModelReport(
        model=name,
        inputs=spec.inputs,
        outputs=spec.outputs,
        batchable=spec.batchable,
        batch_max=spec.batch_max,
        memory_mib=profile.memory_bytes / MIB,
        load_ms=profile.load_ns / MS,
        slo_ms=spec.slo_ns / MS,
        rows=profile.rows,
        run_ms=tuple(ns / MS for ns in profile.run_ns),
        wall_ms=tuple(ns / MS for ns in profile.wall_ns),
    )
