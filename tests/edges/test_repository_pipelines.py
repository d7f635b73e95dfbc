"""A pipeline of the repository: read, checked against its models, and on offer exactly while they are."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from slotwise.edges.repository import pipeline
from slotwise.edges.repository.layout import Limits
from slotwise.edges.repository.registry import Registry
from slotwise.engine.ports import ModelError, ModelState
from slotwise.facts.types import Step, TensorSpec, Wire
from tests.edges.repositories import Repository, found, opened, settle

CHAIN = """
inputs: [raw]
outputs: [result]
slo_ms: 40
steps:
  - model: double
    inputs: {x: raw}
    outputs: {y: middle}
  - model: triple
    inputs: {x: middle}
    outputs: {y: result}
"""
ENSEMBLE = """
platform: "ensemble"
max_batch_size: 4
input [ { name: "raw" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "result" data_type: TYPE_FP32 dims: [ 3 ] } ]
ensemble_scheduling {
  step [
    { model_name: "triple" model_version: -1
      input_map { key: "x" value: "middle" } output_map { key: "y" value: "result" } },
    { model_name: "double" model_version: 1
      input_map { key: "x" value: "raw" } output_map { key: "y" value: "middle" } }
  ]
}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path)
    made.put("double", factor=2)
    made.put("triple", factor=3)
    return made


def put_chain(repository: Repository, text: str = CHAIN, name: str = "chain", file: str = "pipeline.yaml") -> Path:
    folder = repository.root / name
    folder.mkdir(exist_ok=True)
    (folder / file).write_text(text)
    return folder


def reason(registry: Registry, name: str = "chain") -> str:
    status = found(registry, name)
    assert status.state is ModelState.UNAVAILABLE
    assert status.spec is None
    return status.reason


@pytest.mark.parametrize(("file", "text"), [("pipeline.yaml", CHAIN), ("config.pbtxt", ENSEMBLE)])
def test_a_pipeline_is_a_model_whose_steps_stand_in_their_order(repository: Repository, file: str, text: str) -> None:
    put_chain(repository, text, file=file)
    registry = opened(repository)
    spec = found(registry, "chain").spec
    assert spec is not None
    assert spec.steps == (
        Step(model="double/1", inputs=(Wire(name="x", tensor="raw"),), outputs=(Wire(name="y", tensor="middle"),)),
        Step(model="triple/1", inputs=(Wire(name="x", tensor="middle"),), outputs=(Wire(name="y", tensor="result"),)),
    )
    assert spec.inputs == (TensorSpec(name="raw", datatype="FP32", shape=(-1, 3)),)
    assert spec.outputs == (TensorSpec(name="result", datatype="FP32", shape=(-1, 3)),)
    members = [found(registry, name).spec for name in ("double", "triple")]
    assert spec.profile.run_ns[0] == sum(member.profile.expected_ns(1) for member in members if member is not None)
    assert spec.batchable
    assert (spec.slo_ns, spec.batch_max) == ((40_000_000, 16) if file == "pipeline.yaml" else (spec.slo_ns, 4))
    # It comes before its models by name, so it was not on offer when it was read.
    assert repository.names_posted() == ["+double/1", "+triple/1", "+chain/1"]


def test_it_is_on_offer_exactly_while_its_models_are(repository: Repository) -> None:
    put_chain(repository)

    async def scenario() -> None:
        registry = repository.registry()
        await registry.open()
        repository.posted.clear()
        await registry.unload("triple")
        assert reason(registry) == "chain: step 2 (triple): model 'triple' is UNAVAILABLE: unloaded"
        assert repository.names_posted() == ["-triple/1", "-chain/1"]
        with pytest.raises(ModelError, match="unloaded"):
            await registry.load("chain")
        await registry.load("triple")
        assert repository.names_posted() == ["+triple/1", "+chain/1"]
        await registry.unload("chain")
        await registry.load("double")
        assert reason(registry) == "unloaded"
        await registry.load("chain")
        repository.posted.clear()
        shutil.rmtree(repository.root / "double")
        await settle(registry)
        assert "there is no model 'double'" in reason(registry)
        assert repository.names_posted() == ["-double/1", "-chain/1"]

    asyncio.run(scenario())


def test_it_goes_on_with_a_new_version_of_a_model(repository: Repository) -> None:
    put_chain(repository)

    async def scenario() -> None:
        registry = repository.registry()
        await registry.open()
        repository.posted.clear()
        repository.put("double", 2, factor=20)
        await registry.load("double")
        spec = found(registry, "chain").spec
        assert spec is not None
        assert spec.steps[0].model == "double/2"
        assert repository.names_posted() == ["+double/2", "-double/1", "+chain/1"]

    asyncio.run(scenario())


def test_a_change_that_does_not_fit_leaves_what_was_on_offer(repository: Repository) -> None:
    put_chain(repository)

    async def scenario() -> None:
        registry = repository.registry()
        await registry.open()
        before = found(registry, "chain").spec
        put_chain(repository, CHAIN.replace("model: triple", "model: fourfold"))
        with pytest.raises(ModelError, match="there is no model 'fourfold'"):
            await registry.load("chain")
        status = found(registry, "chain")
        assert status.spec == before
        assert "stays on offer" in status.reason
        repository.put("fourfold", factor=4)
        await registry.load("fourfold")  # what the file asks for can be done now
        spec = found(registry, "chain").spec
        assert spec is not None
        assert spec.steps[1].model == "fourfold/1"
        assert found(registry, "chain").reason == ""

    asyncio.run(scenario())


def test_a_folder_may_turn_from_a_model_into_a_pipeline(repository: Repository) -> None:
    repository.put("chain", factor=6)

    async def scenario() -> None:
        registry = repository.registry()
        await registry.open()
        repository.posted.clear()
        put_chain(repository)
        with pytest.raises(ModelError, match="is a pipeline and has a model in 1 as well"):
            await registry.load("chain")
        assert repository.names_posted() == []
        shutil.rmtree(repository.root / "chain" / "1")
        await registry.load("chain")
        assert repository.names_posted() == ["-chain/1", "+chain/1"]

    asyncio.run(scenario())


def changed(old: str, new: str, text: str = CHAIN) -> str:
    assert old in text
    return text.replace(old, new)


BAD_FILES = {
    "": "is empty",
    "steps: [": "line 1",
    "steps: &a [*a]": "line 1",
    changed("slo_ms: 40", "slo: 40"): "line 4: Object contains unknown field `slo`",
    changed("slo_ms: 40", "slo_ms: forty"): "line 4: slo_ms: Expected `float | null`, got `str`",
    changed("  - model: triple", "  - module: triple"): "line 9: steps[1]: Object",
    changed("inputs: {x: middle}", "inputs: [middle]"): "line 10: steps[1].inputs: Expected `object`",
    changed("inputs: {x: raw}", "inputs: {x: raw, x: middle}"): "line 7: `x` stands twice",
    changed("{x: raw}", "&one {x: raw}").replace("{x: middle}", "*one"): "line 7: aliases are not taken",
    changed("slo_ms: 40", "slo_ms: !!python/object/apply:os.getcwd []"): "line 4",
    changed("outputs: [result]", "outputs: [result, other]"): "`outputs` names 'other', which no step makes",
    changed("outputs: [result]", "outputs: [raw]"): "`outputs` names 'raw', which no step makes",
    changed("outputs: [result]", "outputs: []"): "`inputs` and `outputs` must each name a tensor",
    changed("outputs: [result]", "outputs: [middle]"): "step 2 (triple): nothing that it makes is used",
    changed("inputs: [raw]", "inputs: [raw, spare]"): "`inputs` names 'spare', which no step takes",
    changed("{x: middle}", "{x: nothing}"): "step 2 (triple) takes tensor 'nothing', which nobody makes",
    changed("{y: result}", "{y: middle}"): "step 2 (triple) makes tensor 'middle', which is made by step 1 (double)",
    changed("{y: result}", "{y: raw}"): "step 2 (triple) makes tensor 'raw', which comes from the client",
    changed("{x: raw}", "{x: result}"): "the steps go in a circle: step 1 (double) needs step 2 (triple) needs step 1",
    changed("{x: middle}", "{z: middle}"): "step 2 (triple) has no input 'z'; it has x",
    changed("{x: middle}", "{}"): "step 2 (triple): nothing goes to its input 'x'",
    changed("{y: result}", "{z: result}"): "step 2 (triple) has no output 'z'; it has y",
    changed("model: triple", "model: missing"): "step 2 (missing): there is no model 'missing' in the repository",
    changed("model: triple", "model: triple\n    version: 7"): "there is no version 7 of model 'triple'",
    changed("model: triple", "model: other"): "step 2 (other): 'other' is a pipeline itself",
    changed(
        "model: triple", "model: wide"
    ): "input 'x' of step 2 (wide) takes FP32 [1, 3], but tensor 'middle' is FP32",
    "inputs: [a]\noutputs: [b]\nsteps: []": "it has 0 steps; 1 to 3 can be chained",
    changed(
        "steps:", "steps:" + "".join(f"\n  - {{model: double, inputs: {{}}, outputs: {{y: t{i}}}}}" for i in "123")
    ): ("it has 5 steps; 1 to 3 can be chained"),
}


@pytest.mark.parametrize(("text", "words"), BAD_FILES.items(), ids=range(len(BAD_FILES)))
def test_a_pipeline_that_cannot_be_says_where_and_why(repository: Repository, text: str, words: str) -> None:
    put_chain(repository, name="other")
    put_chain(repository, text)
    if "wide" in text:
        repository.put("wide", batch=1)
        put_chain(repository, text.replace("model: double", "model: pair"))
        repository.put("pair", batch=2)
    registry = opened(repository, limits=Limits(steps_max=3))
    assert words in reason(registry)
    assert found(registry, "other").state is ModelState.READY


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ENSEMBLE.replace('"ensemble"', '"onnxruntime_onnx"'), "go together"),
        (ENSEMBLE.partition("ensemble_scheduling")[0], "go together"),
        (ENSEMBLE.replace("dims: [ 3 ]", "dims: [ 4 ]", 1), "contradicts the steps"),
        (ENSEMBLE.replace("output_map", 'input_map { key: "x" value: "raw" } output_map'), "twice"),
    ],
)
def test_an_ensemble_that_contradicts_itself_is_refused(repository: Repository, text: str, words: str) -> None:
    put_chain(repository, text, file="config.pbtxt")
    assert words in reason(opened(repository))


def test_two_descriptions_of_one_pipeline_are_one_too_many(repository: Repository) -> None:
    put_chain(repository)
    put_chain(repository, ENSEMBLE, file="config.pbtxt")
    assert "has steps in both pipeline.yaml and config.pbtxt" in reason(opened(repository))


def test_all_members_of_the_form_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(CHAIN + "priority: 2\nweight: 3.5\n")
    settings = pipeline.read(path).settings()
    assert (settings.slo_ms, settings.priority, settings.weight) == (40, 2, 3.5)
