"""A repository made for Triton is understood as it stands, and what is not served is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from slotwise.edges.repository.pbtxt import Config, contradiction, read
from slotwise.edges.repository.settings import Latest, Settings, Versions
from slotwise.engine.ports import ModelError
from slotwise.facts.types import TensorSpec

FULL = """
name: "m"
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] reshape { shape: [ 3, 4 ] } } ]
output { name: "y" data_type: TYPE_STRING dims: 2 }
instance_group [ { kind: KIND_CPU count: 2 rate_limiter { resources [ { name: "R" count: 1 } ] } } ]
dynamic_batching {
  preferred_batch_size: [ 2, 4 ]
  max_queue_delay_microseconds: 100
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 50000 max_queue_size: 3 }
  priority_queue_policy [ { key: 1 value: { max_queue_size: 3 } } ]
}
version_policy: { specific: { versions: [ 1, 3 ] } }
optimization { execution_accelerators {
  gpu_execution_accelerator : [ { name : "tensorrt" parameters { key: "precision_mode" value: "FP16" } } ]
} }
model_warmup [ { name: "w" inputs { key: "x" value: { data_type: TYPE_FP32 dims: 3 zero_data: true } } } ]
parameters [ { key: "a" value: { string_value: "b" } } ]
response_cache { enable: true }
"""


def parse(folder: Path, text: str) -> Config:
    path = folder / "config.pbtxt"
    path.write_text(text)
    return read(path, "m")


def tensor(name: str, shape: tuple[int, ...], datatype: str = "FP32") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def test_what_concerns_us_is_taken_over_and_the_rest_is_passed_over(tmp_path: Path) -> None:
    config = parse(tmp_path, FULL)
    assert config.settings == Settings(slo_ms=50, batch_max=4, priority=2, versions=(1, 3))
    assert config.inputs == (tensor("x", (-1, 3, -1)),)
    assert config.outputs == (tensor("y", (-1, 2), "BYTES"),)


def test_without_a_batch_size_dimensions_are_whole_and_nothing_is_batched(tmp_path: Path) -> None:
    config = parse(tmp_path, 'input { name: "x" data_type: TYPE_INT64 dims: [ 1, 4 ] }')
    assert config.inputs == (tensor("x", (1, 4), "INT64"),)
    assert config.settings.batch_max == 1


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("", None),
        ("version_policy { latest { num_versions: 2 } }", Latest(2)),
        ("version_policy { latest {} }", Latest(1)),
        ("version_policy { all {} }", "all"),
        ("version_policy { specific { versions: 4 } }", (4,)),
    ],
)
def test_version_policies_keep_their_meaning(tmp_path: Path, text: str, versions: Versions | None) -> None:
    assert parse(tmp_path, text).settings.versions == versions


@pytest.mark.parametrize(("levels", "level", "priority"), [(3, 1, 1), (9, 9, 9), (90, 90, 9), (90, 1, 1), (90, 50, 5)])
def test_priorities_stay_between_ours_and_in_order(tmp_path: Path, levels: int, level: int, priority: int) -> None:
    text = f"dynamic_batching {{ priority_levels: {levels} default_priority_level: {level} }}"
    assert parse(tmp_path, text).settings.priority == priority


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('name: "other"', "`name` is 'other'"),
        ('backend: "python"', "'python' is not served"),
        ('platform: "tensorrt_plan"', "'tensorrt_plan' is not served"),
        ("max_batch_size: -1", "must not be negative"),
        (
            "sequence_batching { control_input [ { name: 'S' control [ { kind: CONTROL_SEQUENCE_START } ] } ] }",
            "sequence",
        ),
        ("ensemble_scheduling { step [ { model_name: 'a' input_map { key: 'a' value: 'b' } } ] }", "ensemble"),
        ("max_batch_size: many", "1:17"),
        ("input { data_type: TYPE_FP31 }", "TYPE_FP31"),
        ("unknown " + "{ x " * 100_000, "recursion"),
        ("input " + "[" * 100_000, "config.pbtxt"),
    ],
)
def test_what_is_not_served_or_not_readable_is_refused_in_words(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ModelError, match=r"config\.pbtxt") as raised:
        parse(tmp_path, text)
    assert fault in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_a_configuration_that_fits_the_model_contradicts_nothing() -> None:
    config = Config(settings=Settings(), inputs=(tensor("x", (-1, 3)),), outputs=())
    assert contradiction(config, [tensor("x", (-1, -1)), tensor("other", (1,))], [tensor("y", (1,))]) == ""


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (tensor("z", (-1, 3)), "there is no input 'z'; the model's are x"),
        (tensor("x", (-1, 3), "FP16"), "is FP32 in the model, FP16 in the configuration"),
        (tensor("x", (-1, 4)), "has shape [-1, 3] in the model, [-1, 4] in the configuration"),
        (tensor("x", (-1, 3, 1)), "has shape"),
    ],
)
def test_a_configuration_that_contradicts_the_model_says_where(said: TensorSpec, fault: str) -> None:
    config = Config(settings=Settings(), inputs=(said,), outputs=())
    assert fault in contradiction(config, [tensor("x", (-1, 3))], [])
