"""The registry: what is on disk is on offer, and what is bad is told and disturbs no other."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from slotwise.edges.repository.layout import Limits
from slotwise.edges.repository.registry import Defaults, Registry
from slotwise.edges.zoo import chain
from slotwise.edges.zoo.catalogue import SOURCES
from slotwise.engine.ports import ModelError, ModelState
from slotwise.facts.events import Event, ModelAdded
from slotwise.facts.types import TensorSpec, Variant
from tests.edges.repositories import Repository, RuntimeInspector, found, opened, settle


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_a_model_on_disk_is_on_offer_with_what_was_measured(repository: Repository) -> None:
    path = repository.put("double", toml="slo_ms = 50\nbatch_max = 4\npriority = 2\nweight = 3")
    registry = opened(repository)
    status = found(registry, "double")
    assert status.spec is not None
    assert status.state is ModelState.READY
    assert (status.spec.id, status.spec.path) == ("double/1", str(path))
    assert (status.spec.slo_ns, status.spec.batch_max) == (50_000_000, 4)
    assert (status.spec.priority, status.spec.weight) == (2, 3)
    assert status.spec.inputs == (TensorSpec(name="x", datatype="FP32", shape=(-1, 3)),)
    assert status.spec.profile.rows == (1, 2, 4)
    assert registry.specs["double/1"] is status.spec
    assert repository.posted == [ModelAdded(spec=status.spec)]


def test_defaults_hold_where_nothing_is_said(repository: Repository) -> None:
    repository.put("double")
    registry = opened(repository, defaults=Defaults(slo_run_multiple=1e9, slo_ms_min=1, batch_max=3, priority=7))
    model = found(registry, "double").spec
    assert model is not None
    assert model.slo_ns == model.profile.expected_ns(1) * 10**9
    assert (model.batch_max, model.priority) == (3, 7)


def test_the_derived_slo_has_a_floor(repository: Repository) -> None:
    repository.put("double")
    model = found(opened(repository, defaults=Defaults(slo_ms_min=60_000)), "double").spec
    assert model is not None
    assert model.slo_ns == 60_000_000_000


def test_a_model_that_fixes_its_batch_is_not_batched(repository: Repository) -> None:
    repository.put("single", batch=1, toml="batch_max = 4")
    model = found(opened(repository), "single").spec
    assert model is not None
    assert (model.batchable, model.batch_max) == (False, 1)


def test_the_owner_may_forbid_batching_but_not_allow_what_the_shapes_forbid(repository: Repository) -> None:
    repository.put("coupled", toml="batchable = false\nbatch_max = 4")
    repository.put("single", batch=1, toml="batchable = true")
    registry = opened(repository)
    model = found(registry, "coupled").spec
    assert model is not None
    assert (model.batchable, model.batch_max) == (False, 1)
    assert "`batchable` needs a first dimension" in found(registry, "single").reason


def test_a_bad_model_is_listed_with_its_reason_and_the_others_are_served(repository: Repository) -> None:
    repository.put("bad").write_bytes(b"no model")
    repository.put("good")
    (repository.root / "empty").mkdir()
    repository.put("misspelt", toml="slo = 3")
    repository.put("with space")
    (repository.root / "README.md").write_text("not a model")
    registry = opened(repository)
    states = {row.name: (row.state, row.reason) for row in registry.index()}
    assert states.pop("good") == (ModelState.READY, "")
    assert "runtime cannot read it" in states["bad"][1]
    assert "no version" in states["empty"][1]
    assert "`slo`" in states["misspelt"][1]
    assert "no name for a model" in states["with space"][1]
    assert {state for state, _ in states.values()} == {ModelState.UNAVAILABLE}
    assert repository.names_posted() == ["+good/1"]


def test_by_default_the_highest_version_is_offered(repository: Repository) -> None:
    for version in (2, 10, 9):
        repository.put("double", version)
    for folder in ("010", "1.5", "next", "0"):
        (repository.root / "double" / folder).mkdir()
    registry = opened(repository)
    assert repository.names_posted() == ["+double/10"]
    assert found(registry, "double").version == "10"
    assert [row.version for row in registry.index()] == ["2", "9", "10"]
    assert found(registry, "double", "9").state is ModelState.UNAVAILABLE
    assert registry.find("double", "11") is None


def test_the_newest_of_several_on_offer_is_found_without_a_version(repository: Repository) -> None:
    for version in (1, 2, 10):
        repository.put("double", version, toml="versions = [1, 2]")
    registry = opened(repository)
    assert repository.names_posted() == ["+double/1", "+double/2"]
    assert found(registry, "double").version == "2"


def test_a_second_start_measures_nothing_again(repository: Repository) -> None:
    repository.put("double")
    before = found(opened(repository), "double").spec
    after = found(opened(repository), "double").spec
    assert after == before
    assert len(repository.inspector.inspected) == 1


@pytest.mark.parametrize("change", ["model", "weights", "batch_max", "cache"])
def test_what_a_measurement_rests_on_makes_it_anew(repository: Repository, change: str) -> None:
    path = repository.put("double")
    opened(repository)
    if change == "model":
        repository.put("double", factor=3)
    elif change == "weights":
        (path.parent / "weights.bin").write_bytes(b"beside")
    elif change == "batch_max":
        repository.put("double", toml="batch_max = 2")
    else:
        for entry in repository.cache.glob("*.json"):
            entry.write_bytes(entry.read_bytes()[:-20])
    assert found(opened(repository), "double").state is ModelState.READY
    assert len(repository.inspector.inspected) == 2


@pytest.mark.parametrize("content", [b"{}", b"", b"\xff", b'{"inputs":[],"outputs":[],"batchable":true,"profile":{}}'])
def test_a_spoilt_memory_is_as_good_as_none(repository: Repository, content: bytes) -> None:
    repository.put("double")
    opened(repository)
    for entry in repository.cache.glob("*.json"):
        entry.write_bytes(content)
    assert found(opened(repository), "double").state is ModelState.READY
    opened(repository)
    assert len(repository.inspector.inspected) == 2


def test_a_triton_configuration_counts_and_our_settings_win(repository: Repository) -> None:
    repository.put("double", toml="batch_max = 2")
    (repository.root / "double" / "config.pbtxt").write_text(
        'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 3 }'
        "dynamic_batching { default_queue_policy { default_timeout_microseconds: 9000 } }"
    )
    model = found(opened(repository), "double").spec
    assert model is not None
    assert (model.batch_max, model.slo_ns) == (2, 9_000_000)


def test_a_configuration_that_contradicts_the_model_is_told(repository: Repository) -> None:
    repository.put("double")
    (repository.root / "double" / "config.pbtxt").write_text('max_batch_size: 8 input { name: "z" dims: 3 }')
    status = found(opened(repository), "double")
    assert status.state is ModelState.UNAVAILABLE
    assert "there is no input 'z'; the model's are x" in status.reason


def test_example_shapes_reach_the_inspector_and_must_name_inputs(repository: Repository) -> None:
    repository.put("double", toml="[examples]\nx = [1, 3]")
    repository.put("other", toml="[examples]\nz = [1, 3]")
    registry = opened(repository)
    assert repository.inspector.shapes[0] == {"x": (1, 3)}
    assert "'z', which is no input" in found(registry, "other").reason


def test_variants_are_told_to_those_who_plan(repository: Repository) -> None:
    repository.put("double", toml="accuracy = 0.9\n[[variants]]\nmodel = 'small'\naccuracy = 0.5")
    model = found(opened(repository), "double").spec
    assert model is not None
    assert (model.accuracy, model.variants) == (0.9, (Variant(model="small", accuracy=0.5),))


@pytest.mark.parametrize("part", ["model", "version", "file", "settings"])
def test_a_link_that_leads_out_of_the_root_is_refused(repository: Repository, tmp_path: Path, part: str) -> None:
    path = repository.put("double", toml="slo_ms = 1")
    links = {
        "model": path.parent.parent,
        "version": path.parent,
        "file": path,
        "settings": path.parent.parent / "slotwise.toml",
    }
    link = links[part]
    elsewhere = tmp_path / "elsewhere"
    shutil.move(link, elsewhere)
    link.symlink_to(elsewhere)
    status = found(opened(repository), "double")
    assert status.state is ModelState.UNAVAILABLE
    assert "leads out of the repository" in status.reason


def test_a_link_inside_the_root_is_followed(repository: Repository) -> None:
    path = repository.put("double")
    (repository.root / "again").symlink_to(path.parent.parent)
    assert found(opened(repository), "again").state is ModelState.READY


def test_limits_refuse_in_words(repository: Repository) -> None:
    for name in ("a", "b", "c"):
        repository.put(name)
    repository.put("a", 2)
    registry = opened(repository, limits=Limits(models_max=2, versions_max=1, model_bytes_max=10))
    reasons = {row.name: row.reason for row in registry.index()}
    assert "holds 2 versions; the limit is 1" in reasons["a"]
    assert "bytes; the limit is 10" in reasons["b"]
    assert all(row.state is ModelState.UNAVAILABLE for row in registry.index())
    assert "one model too many; the limit is 1" in found(opened(repository, limits=Limits(models_max=1)), "c").reason


def test_what_clients_are_told_of_bad_models_does_not_say_where_the_repository_lies(repository: Repository) -> None:
    path = repository.put("bad")
    path.write_bytes(b"no model")
    repository.put("misspelt", toml="slo = 3")
    repository.put("unreadable").unlink()
    (repository.root / "empty").mkdir()
    (repository.root / "away").symlink_to(repository.root.parent)
    registry = opened(repository)
    told = [row.reason for row in registry.index()]
    for call, name in ((registry.load, "nobody"), (registry.load, "bad"), (registry.unload, "nobody")):
        with pytest.raises(ModelError) as raised:
            asyncio.run(call(name))
        told.append(str(raised.value))
    assert len([text for text in told if text]) == 8
    assert [text for text in told if str(repository.root.parent) in text] == []
    assert "misspelt/slotwise.toml: " in " ".join(told)


def test_a_pattern_for_names_never_lets_a_name_be_a_path(repository: Repository) -> None:
    repository.put("double")
    registry = opened(repository, limits=Limits(name_pattern=".*"))
    for name in ("..", ".", "double/1", "/", ""):
        with pytest.raises(ModelError, match="no name for a model"):
            asyncio.run(registry.load(name))


def test_a_root_that_goes_away_and_comes_back_is_watched_all_the_same(repository: Repository) -> None:
    repository.put("double")

    async def live() -> None:
        registry = repository.registry()
        await registry.open()
        elsewhere = repository.root.rename(repository.root.parent / "elsewhere")
        watching = asyncio.create_task(registry.watch(0.001))
        with pytest.raises(ModelError, match="there is no model 'double' in the repository"):
            await registry.load("double")
        assert found(registry, "double").state is ModelState.READY
        elsewhere.rename(repository.root)
        repository.put("triple")
        while registry.find("triple") is None or found(registry, "triple").spec is None:
            assert not watching.done()
            await asyncio.sleep(0.001)
        watching.cancel()

    asyncio.run(asyncio.wait_for(live(), 60))


def test_a_root_that_cannot_be_read_is_an_error_at_once(repository: Repository) -> None:
    repository.root.rmdir()
    with pytest.raises(ModelError, match="cannot be read"):
        opened(repository)


def test_progress_is_told_for_each_model(repository: Repository) -> None:
    for name in ("a", "b"):
        repository.put(name)
    told: list[tuple[str, int, int]] = []
    opened(repository, progress=lambda name, done, total: told.append((name, done, total)))
    assert told == [("a", 0, 2), ("b", 1, 2), ("", 2, 2)]


def test_an_emulated_model_is_found_and_two_kinds_in_one_folder_are_refused(repository: Repository) -> None:
    path = repository.put("double")
    (path.parent / "model.emulated.json").write_text("{}")
    assert "it holds model.onnx and model.emulated.json" in found(opened(repository), "double").reason
    path.unlink()
    opened(repository)
    assert repository.inspector.inspected == [str(path.parent / "model.emulated.json")]


@pytest.mark.slow
def test_the_whole_zoo_is_on_offer(zoo_path: Path, tmp_path: Path) -> None:
    inspector = RuntimeInspector()
    posted: list[Event] = []
    registry = Registry(root=zoo_path, inspector=inspector, post=posted.append, cache=tmp_path / "cache")
    asyncio.run(registry.open())
    offered = {source.name for source in SOURCES} | chain.FILES.keys()
    assert {row.name for row in registry.index() if row.state is ModelState.READY} == offered
    assert len(posted) == len(inspector.inspected) + 1 == len(offered)  # a pipeline is not run itself
    pipeline = registry.specs["ocr-line/1"]
    assert [step.model for step in pipeline.steps] == ["ocr-prepare/1", "ocr-read/1", "ocr-angle/1"]
    assert (pipeline.batchable, pipeline.batch_max) == (True, 8)
    for source in SOURCES:
        model = registry.specs[f"{source.name}/1"]
        assert (model.batchable, model.batch_max) == (source.is_batchable, source.batch_max)
        assert model.slo_ns == source.slo_ms * 1_000_000
        assert model.accuracy == source.accuracy
    assert {variant.model for variant in registry.specs["ocr-read/1"].variants} <= offered


def test_one_key_offers_a_model_under_consecutive_names_with_one_file_measured_once(repository: Repository) -> None:
    path = repository.put("double", toml="copies = 50\nslo_ms = 50")
    repository.put("single", factor=3)
    registry = opened(repository)
    names = [f"double_{number}" for number in range(50)]
    assert [status.name for status in registry.index()] == sorted([*names, "single"])
    specs = [found(registry, name).spec for name in names]
    assert {spec.path for spec in specs if spec is not None} == {str(path)}
    assert len({(spec.digest, spec.slo_ns, spec.profile) for spec in specs if spec is not None}) == 1
    assert len(repository.inspector.inspected) == 2
    assert registry.find("double") is None


def test_copies_come_and_go_as_their_number_changes(repository: Repository) -> None:
    async def change() -> list[list[str]]:
        repository.put("double", toml="copies = 3")
        registry = repository.registry()
        await registry.open()
        seen = []
        for toml in ("copies = 2", ""):
            (repository.root / "double" / "slotwise.toml").write_text(toml)
            await settle(registry)
            seen.append([status.name for status in registry.index() if status.state is ModelState.READY])
        with pytest.raises(ModelError, match="there is no model 'double_0'"):
            await registry.load("double_0")
        return seen

    assert asyncio.run(change()) == [["double_0", "double_1"], ["double"]]


def test_a_model_that_has_copies_cannot_be_loaded_itself(repository: Repository) -> None:
    repository.put("double", toml="copies = 2")
    registry = opened(repository)
    with pytest.raises(ModelError, match="they are double_0 to double_1"):
        asyncio.run(registry.load("double"))
    assert [status.name for status in registry.index()] == ["double_0", "double_1"]
