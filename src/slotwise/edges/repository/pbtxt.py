"""Reads a Triton `config.pbtxt`, so that a repository made for Triton can be served as it stands.

Here live the part of Triton's model configuration that means something to us, and what it means. The message
type is built at run time from the table below; fields that are not in it (instance groups, warm-up,
optimisation) are passed over, as they say how another server should do its work. What asks for a service
that we do not give (sequences, other backends) is refused in words. An ensemble becomes a pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    text_format,
)

from slotwise.edges.repository.pipeline import PipelineText, StepText
from slotwise.edges.repository.settings import SLO_MS_MAX, Latest, Settings, Versions
from slotwise.engine.ports import ModelError
from slotwise.facts.profile import ROWS_MAX
from slotwise.facts.types import PRIORITY_LOWEST, TensorSpec
from slotwise.facts.value import value

CONFIG_FILE = "config.pbtxt"
PACKAGE = "slotwise.triton"
BACKENDS_SERVED = frozenset({"", "onnxruntime", "onnxruntime_onnx"})
ENSEMBLE = "ensemble"
NEWEST = -1
"""As a step's version."""
RENAMED = {"STRING": "BYTES"}
"""Datatypes that the configuration and the protocol call by different names."""

# message -> (field, type); a type in brackets repeats, a capitalised one is a message of this table.
MESSAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "Config": (
        ("name", "string"),
        ("platform", "string"),
        ("backend", "string"),
        ("max_batch_size", "int32"),
        ("input", "[Tensor]"),
        ("output", "[Tensor]"),
        ("version_policy", "VersionPolicy"),
        ("dynamic_batching", "DynamicBatching"),
        ("sequence_batching", "Sequences"),
        ("ensemble_scheduling", "Ensemble"),
        # Passed over. They are named because the parser can skip an unknown message, but not a list of them.
        ("instance_group", "[InstanceGroup]"),
        ("optimization", "Optimization"),
        ("model_warmup", "[Warmup]"),
        ("parameters", "[Empty]"),
        ("batch_input", "[Empty]"),
        ("batch_output", "[Empty]"),
    ),
    "Tensor": (("name", "string"), ("data_type", "enum"), ("dims", "[int64]")),
    "VersionPolicy": (("latest", "LatestPolicy"), ("all", "Empty"), ("specific", "SpecificPolicy")),
    "LatestPolicy": (("num_versions", "uint32"),),
    "SpecificPolicy": (("versions", "[int64]"),),
    "DynamicBatching": (
        ("preferred_batch_size", "[int32]"),
        ("priority_levels", "uint64"),
        ("default_priority_level", "uint64"),
        ("default_queue_policy", "QueuePolicy"),
        ("priority_queue_policy", "[Empty]"),
    ),
    "QueuePolicy": (("default_timeout_microseconds", "uint64"),),
    "Sequences": (("control_input", "[ControlInput]"), ("state", "[SequenceState]")),
    "ControlInput": (("control", "[Empty]"),),
    "SequenceState": (("initial_state", "[Empty]"),),
    "Ensemble": (("step", "[Step]"),),
    "Step": (
        ("model_name", "string"),
        ("model_version", "int64"),
        ("input_map", "[MapEntry]"),
        ("output_map", "[MapEntry]"),
    ),
    "MapEntry": (("key", "string"), ("value", "string")),
    "InstanceGroup": (("rate_limiter", "RateLimiter"), ("secondary_devices", "[Empty]")),
    "RateLimiter": (("resources", "[Empty]"),),
    "Optimization": (("execution_accelerators", "Accelerators"),),
    "Accelerators": (
        ("gpu_execution_accelerator", "[Accelerator]"),
        ("cpu_execution_accelerator", "[Accelerator]"),
    ),
    "Accelerator": (("parameters", "[Empty]"),),
    "Warmup": (("inputs", "[Empty]"),),
    "Empty": (),
}
# fmt: off
DATATYPES = (  # in the order of their numbers
    "INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "STRING", "BF16",
)
# fmt: on
ERROR_CHARS_MAX = 500
"""The parser quotes the line it stumbled over, however long that is."""


class TensorText(msgspec.Struct):
    """An `input` or `output` as written."""

    name: str = ""
    data_type: str = ""
    dims: tuple[int, ...] = ()


class LatestText(msgspec.Struct):
    """`latest { num_versions }`."""

    num_versions: int = 1


class SpecificText(msgspec.Struct):
    """`specific { versions }`."""

    versions: tuple[int, ...] = ()


class Empty(msgspec.Struct):
    """A message of which only the presence counts."""


class VersionPolicyText(msgspec.Struct):
    """`version_policy`: one of the three is there."""

    latest: LatestText | None = None
    all: Empty | None = None
    specific: SpecificText | None = None


class QueuePolicyText(msgspec.Struct):
    """`default_queue_policy`."""

    default_timeout_microseconds: int = 0


class DynamicBatchingText(msgspec.Struct):
    """`dynamic_batching`."""

    preferred_batch_size: tuple[int, ...] = ()
    priority_levels: int = 0
    default_priority_level: int = 0
    default_queue_policy: QueuePolicyText = msgspec.field(default_factory=QueuePolicyText)


class EntryText(msgspec.Struct):
    """A line of `input_map` or `output_map`: the model's own name, and the ensemble's tensor."""

    key: str = ""
    value: str = ""


class StepLines(msgspec.Struct):
    """One `step`."""

    model_name: str = ""
    model_version: int = NEWEST
    input_map: tuple[EntryText, ...] = ()
    output_map: tuple[EntryText, ...] = ()


class EnsembleText(msgspec.Struct):
    """`ensemble_scheduling`."""

    step: tuple[StepLines, ...] = ()


class ConfigText(msgspec.Struct):
    """The file as written, in our types."""

    name: str = ""
    platform: str = ""
    backend: str = ""
    max_batch_size: int = 0
    input: tuple[TensorText, ...] = ()
    output: tuple[TensorText, ...] = ()
    version_policy: VersionPolicyText = msgspec.field(default_factory=VersionPolicyText)
    dynamic_batching: DynamicBatchingText | None = None
    sequence_batching: Empty | None = None
    ensemble_scheduling: EnsembleText | None = None


@value
class Config:
    """What a `config.pbtxt` says, in our words. Shapes include the batch dimension where there is one."""

    settings: Settings
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    pipeline: PipelineText | None = None
    """There for an ensemble."""


def read(path: Path, model: str) -> Config:
    """The configuration of `model`. Raises ModelError for what cannot be read or is not served."""
    try:
        message = _message_class()()
        text_format.Parse(path.read_text(encoding="utf-8"), message, allow_unknown_field=True)
        found = json_format.MessageToDict(message, preserving_proto_field_name=True)
        config = msgspec.convert(found, ConfigText, strict=False)  # 64-bit integers are strings in JSON
    except (text_format.ParseError, UnicodeDecodeError, RecursionError, msgspec.ValidationError) as error:
        raise ModelError(f"{path}: {str(error)[:ERROR_CHARS_MAX]}") from error
    problem = _problem(config, model)
    if problem:
        raise ModelError(f"{path}: {problem}")
    batched = config.max_batch_size > 0
    return Config(
        settings=_settings(config),
        inputs=tuple(_tensor(tensor, batched) for tensor in config.input),
        outputs=tuple(_tensor(tensor, batched) for tensor in config.output),
        pipeline=_pipeline(config, path),
    )


def contradiction(config: Config, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    """Where the configuration says something else than the model itself; empty when they agree."""
    for role, said, real in (("input", config.inputs, inputs), ("output", config.outputs, outputs)):
        by_name = {tensor.name: tensor for tensor in real}
        for tensor in said:
            if tensor.name not in by_name:
                return f"there is no {role} {tensor.name!r}; the model's are {', '.join(sorted(by_name))}"
            difference = _difference(tensor, by_name[tensor.name])
            if difference:
                return f"{role} {tensor.name!r} {difference}"
    return ""


def _problem(config: ConfigText, model: str) -> str:
    if config.name and config.name != model:
        return f"`name` is {config.name!r}, but the folder is {model!r}; let them agree or leave `name` out"
    has_steps = config.ensemble_scheduling is not None
    if (config.platform == ENSEMBLE) != has_steps:
        return f"`platform` {ENSEMBLE!r} and `ensemble_scheduling` go together; here is only one of them"
    for key, wanted in (("backend", config.backend), ("platform", config.platform)):
        if wanted not in BACKENDS_SERVED and wanted != ENSEMBLE:
            return f"`{key}` {wanted!r} is not served; convert the model to ONNX (backend 'onnxruntime')"
    if config.sequence_batching is not None:
        return "`sequence_batching` is not served; send the state as inputs and outputs, or remove it"
    if config.max_batch_size < 0:
        return f"`max_batch_size` is {config.max_batch_size} and must not be negative"
    return ""


def _pipeline(config: ConfigText, path: Path) -> PipelineText | None:
    if config.ensemble_scheduling is None:
        return None
    return PipelineText(
        steps=tuple(
            StepText(
                model=step.model_name,
                inputs=_map(step.input_map, path),
                outputs=_map(step.output_map, path),
                version=None if step.model_version == NEWEST else step.model_version,
            )
            for step in config.ensemble_scheduling.step
        ),
        inputs=tuple(tensor.name for tensor in config.input),
        outputs=tuple(tensor.name for tensor in config.output),
    )


def _map(entries: Sequence[EntryText], path: Path) -> dict[str, str]:
    found = {entry.key: entry.value for entry in entries}
    if len(found) < len(entries):
        raise ModelError(f"{path}: a map of `ensemble_scheduling` names {entries[0].key!r} or another key twice")
    return found


def _settings(config: ConfigText) -> Settings:
    batching = config.dynamic_batching or DynamicBatchingText()
    # A greatest preferred size is where Triton's owner has found that larger ones do not pay.
    batch_max = min(config.max_batch_size, max(batching.preferred_batch_size, default=config.max_batch_size))
    timeout_us = batching.default_queue_policy.default_timeout_microseconds
    return Settings(
        slo_ms=min(timeout_us / 1000, SLO_MS_MAX) if timeout_us else None,
        batch_max=min(max(1, batch_max), ROWS_MAX),
        priority=_priority(batching),
        versions=_versions(config.version_policy),
    )


def _priority(batching: DynamicBatchingText) -> int | None:
    """Both count from 1, the highest; more levels than ours are squeezed into ours."""
    level, levels = batching.default_priority_level, batching.priority_levels
    if not level:
        return None
    return min(level, PRIORITY_LOWEST) if levels <= PRIORITY_LOWEST else max(1, level * PRIORITY_LOWEST // levels)


def _versions(policy: VersionPolicyText) -> Versions | None:
    if policy.all is not None:
        return "all"
    if policy.specific is not None:
        return policy.specific.versions
    return None if policy.latest is None else Latest(max(1, policy.latest.num_versions))


def _tensor(tensor: TensorText, batched: bool) -> TensorSpec:
    datatype = tensor.data_type.removeprefix("TYPE_")
    return TensorSpec(
        name=tensor.name,
        datatype=RENAMED.get(datatype, datatype),
        shape=(-1, *tensor.dims) if batched else tensor.dims,
    )


def _difference(said: TensorSpec, real: TensorSpec) -> str:
    if said.datatype and said.datatype != real.datatype:
        return f"is {real.datatype} in the model, {said.datatype} in the configuration"
    fits = len(said.shape) == len(real.shape) and all(
        a == b or -1 in (a, b) for a, b in zip(said.shape, real.shape, strict=True)
    )
    return (
        ""
        if fits or not said.shape
        else f"has shape {list(real.shape)} in the model, {list(said.shape)} in the configuration"
    )


@cache
def _message_class() -> type:
    """The class of the `Config` message. Made once; it has a pool of its own and meets no other's names."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package=PACKAGE, syntax="proto3")
    datatypes = file.enum_type.add(name="DataType")
    for number, name in enumerate(DATATYPES):
        datatypes.value.add(name=f"TYPE_{name}", number=number)
    for message, fields in MESSAGES.items():
        target = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields, start=1):
            label = kinds.LABEL_REPEATED if kind.startswith("[") else kinds.LABEL_OPTIONAL
            kind = kind.strip("[]")
            if kind in MESSAGES:
                field_type, type_name = kinds.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            elif kind == "enum":
                field_type, type_name = kinds.TYPE_ENUM, f".{PACKAGE}.DataType"
            else:
                field_type, type_name = kinds.Type.Value(f"TYPE_{kind.upper()}"), None
            target.field.add(name=name, number=number, label=label, type=field_type, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made: type = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.Config"))
    return made
