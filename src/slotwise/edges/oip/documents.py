"""The JSON documents of the protocol's management routes, and how they are made from specs and counts. Pure."""

from __future__ import annotations

from pathlib import PurePath

import msgspec

from slotwise.edges.oip.datatypes import BYTES
from slotwise.engine.ports import ModelStatus
from slotwise.facts.statistics import BatchStatistics as BatchCounts
from slotwise.facts.statistics import Histogram, ModelStatistics
from slotwise.facts.types import ModelSpec, Step, TensorSpec
from slotwise.facts.units import MS

EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
_PLATFORMS = {".onnx": ("onnxruntime_onnx", "onnxruntime")}
_OWN_PLATFORM = ("slotwise", "slotwise")
_PIPELINE = ("ensemble", "")


SHARED_MEMORY_EXTENSION = "system_shared_memory"
"""There where the operator allows it."""


class ServerMetadata(msgspec.Struct, frozen=True):
    """`GET /v2`."""

    name: str
    version: str
    extensions: tuple[str, ...] = EXTENSIONS


class TensorMetadata(msgspec.Struct, frozen=True):
    """An input or output, -1 where a dimension may vary."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct, frozen=True):
    """`GET /v2/models/{m}`."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ConfigTensor(msgspec.Struct, frozen=True):
    """An input or output without the batch's dimension."""

    name: str
    data_type: str
    dims: tuple[int, ...]


class ConfigValue(msgspec.Struct, frozen=True):
    """A parameter's value."""

    string_value: str


class Latest(msgspec.Struct, frozen=True):
    """Serve so many of the newest versions."""

    num_versions: int = 1


class VersionPolicy(msgspec.Struct, frozen=True):
    """Which versions are served."""

    latest: Latest = Latest()


class DynamicBatching(msgspec.Struct, frozen=True):
    """Present where requests may be put together."""


class TransactionPolicy(msgspec.Struct, frozen=True):
    """One answer to each request."""

    decoupled: bool = False


class VariantLine(msgspec.Struct, omit_defaults=True):
    """One of a model's variants, in the JSON list that is the parameter `variants`."""

    accuracy: float
    model: str = ""
    file: str = ""


class EnsembleStep(msgspec.Struct, frozen=True):
    """One step of a pipeline: the model's own names, and the pipeline's tensors."""

    model_name: str
    model_version: int
    input_map: dict[str, str]
    output_map: dict[str, str]


class Ensemble(msgspec.Struct, frozen=True):
    """Present for a pipeline."""

    step: list[EnsembleStep]


class ModelConfig(msgspec.Struct, omit_defaults=True):
    """`GET /v2/models/{m}/config`, in the words of the model configuration extension."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    parameters: dict[str, ConfigValue]
    model_transaction_policy: TransactionPolicy
    version_policy: VersionPolicy
    dynamic_batching: DynamicBatching | None = None
    ensemble_scheduling: Ensemble | None = None


class Count(msgspec.Struct, frozen=True):
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0


class InferenceStatistics(msgspec.Struct, frozen=True):
    """Durations by phase. Clients insist that the three of `compute` have the same count, so each is told."""

    success: Count
    fail: Count
    queue: Count
    compute_input: Count
    """No time: tensors are read where the door has put them."""
    compute_infer: Count
    compute_output: Count
    cache_hit: Count = Count()
    cache_miss: Count = Count()


class BatchStatistics(msgspec.Struct, frozen=True):
    """Runs of one batch size."""

    batch_size: int
    compute_input: Count
    compute_infer: Count
    compute_output: Count


class OutcomeStatistics(msgspec.Struct, frozen=True):
    """Requests that ended in one way."""

    outcome: str
    reason: str
    count: int


class ModelStatisticsDocument(msgspec.Struct, frozen=True):
    """One version of a model. `slotwise_outcomes` is ours, the rest is the statistics extension."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]
    slotwise_outcomes: list[OutcomeStatistics]


class StatisticsDocument(msgspec.Struct, frozen=True):
    """`GET /v2/models/{m}/stats`."""

    model_stats: list[ModelStatisticsDocument]


class IndexLine(msgspec.Struct, frozen=True):
    """One version in the repository's index."""

    name: str
    version: str
    state: str
    reason: str


def model_metadata(spec: ModelSpec, versions: list[str]) -> ModelMetadata:
    """What a model takes and gives."""
    return ModelMetadata(
        name=spec.name,
        versions=versions,
        platform=_platform(spec)[0],
        inputs=[_tensor(tensor) for tensor in spec.inputs],
        outputs=[_tensor(tensor) for tensor in spec.outputs],
    )


def model_config(spec: ModelSpec) -> ModelConfig:
    """A model's configuration. Its largest batch is 0 where the first dimension is not the batch."""
    platform, backend = _platform(spec)
    first = 1 if spec.batchable else 0
    return ModelConfig(
        name=spec.name,
        platform=platform,
        backend=backend,
        max_batch_size=spec.batch_max if spec.batchable else 0,
        input=[_config_tensor(tensor, first) for tensor in spec.inputs],
        output=[_config_tensor(tensor, first) for tensor in spec.outputs],
        parameters={name: ConfigValue(text) for name, text in _parameters(spec).items()},
        model_transaction_policy=TransactionPolicy(),
        version_policy=VersionPolicy(),
        dynamic_batching=DynamicBatching() if spec.batchable and not spec.steps else None,
        ensemble_scheduling=Ensemble([_step(step) for step in spec.steps]) if spec.steps else None,
    )


def _step(step: Step) -> EnsembleStep:
    name, _, version = step.model.rpartition("/")
    return EnsembleStep(
        name,
        int(version),
        {wire.name: wire.tensor for wire in step.inputs},
        {wire.name: wire.tensor for wire in step.outputs},
    )


def _parameters(spec: ModelSpec) -> dict[str, str]:
    """What Triton has no words for; texts, as its clients expect."""
    told = {
        "slo_ms": f"{spec.slo_ns / MS:g}",
        "priority": str(spec.priority),
        "weight": f"{spec.weight:g}",
        "digest": spec.digest,
    }
    if spec.accuracy is not None:
        told["accuracy"] = f"{spec.accuracy:g}"
    if spec.variants:
        lines = [VariantLine(variant.accuracy, variant.model, variant.file) for variant in spec.variants]
        told["variants"] = msgspec.json.encode(lines).decode()
    return told


def model_statistics(spec: ModelSpec, counts: ModelStatistics, epoch_ns: int) -> ModelStatisticsDocument:
    """A model's counts. `epoch_ns` is the Unix time at which the engine's clock stood at zero."""
    return ModelStatisticsDocument(
        name=spec.name,
        version=spec.version,
        last_inference=(counts.last_inference_ns + epoch_ns) // MS if counts.last_inference_ns else 0,
        inference_count=counts.rows_in_time,
        execution_count=counts.batches_run,
        inference_stats=InferenceStatistics(
            success=_count(counts.success),
            fail=_count(counts.fail),
            queue=_count(counts.queue),
            compute_input=Count(counts.execution.count),
            compute_infer=_count(counts.execution),
            compute_output=_count(counts.returning),
        ),
        batch_stats=[_batch_statistics(batch) for batch in counts.batches],
        slotwise_outcomes=[OutcomeStatistics(one.outcome, one.reason, one.count) for one in counts.outcomes],
    )


def index_line(status: ModelStatus) -> IndexLine:
    """A version's line in the index."""
    return IndexLine(status.name, status.version, status.state.value, status.reason)


def _platform(spec: ModelSpec) -> tuple[str, str]:
    return _PIPELINE if spec.steps else _PLATFORMS.get(PurePath(spec.path).suffix, _OWN_PLATFORM)


def _tensor(tensor: TensorSpec) -> TensorMetadata:
    return TensorMetadata(tensor.name, tensor.datatype, tensor.shape)


def _config_tensor(tensor: TensorSpec, first: int) -> ConfigTensor:
    kind = "STRING" if tensor.datatype == BYTES else tensor.datatype
    return ConfigTensor(tensor.name, f"TYPE_{kind}", tensor.shape[first:])


def _batch_statistics(batch: BatchCounts) -> BatchStatistics:
    nothing = Count(batch.count)
    return BatchStatistics(batch.rows, nothing, Count(batch.count, batch.ns), nothing)


def _count(durations: Histogram) -> Count:
    return Count(durations.count, durations.ns)
