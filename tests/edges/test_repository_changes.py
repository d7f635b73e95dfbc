"""The registry in motion: what changes is swapped without a gap, and what goes bad takes nothing with it."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from slotwise.engine.ports import ModelError, ModelState
from tests.edges.repositories import WAIT_S_MAX, Repository, found, settle


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_a_new_version_takes_over_only_when_it_is_in(repository: Repository) -> None:
    async def scenario() -> None:
        repository.put("double", 1)
        registry = repository.registry()
        await registry.open()
        repository.put("double", 2, factor=3)
        repository.inspector.gate.clear()
        repository.inspector.reached.clear()
        loading = asyncio.create_task(registry.load("double"))
        await asyncio.wait_for(repository.inspector.reached.wait(), WAIT_S_MAX)
        assert found(registry, "double").version == "1"
        assert found(registry, "double", "2").state is ModelState.LOADING
        assert "double/1" in registry.specs
        repository.inspector.gate.set()
        await loading
        assert found(registry, "double").version == "2"
        assert found(registry, "double", "1").state is ModelState.UNAVAILABLE
        assert list(registry.specs) == ["double/2"]

    asyncio.run(scenario())
    assert repository.names_posted() == ["+double/1", "+double/2", "-double/1"]


def test_a_new_version_that_is_bad_leaves_the_old_one_on_offer(repository: Repository) -> None:
    async def scenario() -> None:
        repository.put("double", 1)
        registry = repository.registry()
        await registry.open()
        repository.put("double", 2).write_bytes(b"no model")
        with pytest.raises(ModelError, match="double/2"):
            await registry.load("double")
        assert found(registry, "double").version == "1"
        assert found(registry, "double", "2").state is ModelState.UNAVAILABLE

    asyncio.run(scenario())
    assert repository.names_posted() == ["+double/1"]


def test_a_file_that_goes_bad_leaves_what_was_read_before_on_offer_and_says_so(repository: Repository) -> None:
    async def scenario() -> None:
        path = repository.put("double")
        registry = repository.registry()
        await registry.open()
        path.write_bytes(b"no model")
        with pytest.raises(ModelError):
            await registry.load("double")
        assert found(registry, "double").state is ModelState.READY
        assert "stays on offer" in found(registry, "double").reason
        repository.put("double", factor=5)
        await registry.load("double")
        assert found(registry, "double").reason == ""

    asyncio.run(scenario())
    assert repository.names_posted() == ["+double/1", "+double/1"]


def test_loading_what_has_not_changed_announces_nothing(repository: Repository) -> None:
    async def scenario() -> None:
        repository.put("double")
        registry = repository.registry()
        await registry.open()
        await registry.load("double")

    asyncio.run(scenario())
    assert repository.names_posted() == ["+double/1"]


def test_an_unloaded_model_is_off_offer_until_it_is_loaded(repository: Repository) -> None:
    async def scenario() -> None:
        repository.put("double")
        registry = repository.registry()
        await registry.open()
        await registry.unload("double")
        assert found(registry, "double").state is ModelState.UNAVAILABLE
        assert not registry.specs
        await settle(registry)
        assert not registry.specs
        await registry.load("double")
        assert found(registry, "double").state is ModelState.READY

    asyncio.run(scenario())
    assert repository.names_posted() == ["+double/1", "-double/1", "+double/1"]


@pytest.mark.parametrize(
    "name", ["absent", "..", ".", "", "a/b", "../models/double", "/etc", "dou\0ble", "x" * 300, ".hid"]
)
def test_a_name_that_is_none_is_refused_and_leaves_no_trace(repository: Repository, name: str) -> None:
    async def scenario() -> None:
        registry = repository.registry()
        await registry.open()
        with pytest.raises(ModelError):
            await registry.load(name)
        with pytest.raises(ModelError):
            await registry.unload(name)
        assert [row.name for row in registry.index()] == ["double"]
        assert registry.find(name) is None

    repository.put("double")
    (repository.root / ".hid").mkdir()
    asyncio.run(scenario())


def test_polling_follows_the_disk(repository: Repository) -> None:
    async def scenario() -> None:
        repository.put("double")
        registry = repository.registry()
        await registry.open()
        await settle(registry)
        assert repository.names_posted() == ["+double/1"]
        repository.put("double", 2)
        repository.put("other")
        await settle(registry)
        assert repository.names_posted() == ["+double/2", "-double/1", "+other/1"]
        repository.put("double", 2, factor=7)
        await settle(registry)
        assert repository.names_posted() == ["+double/2"]
        shutil.rmtree(repository.root / "other")
        await settle(registry)
        assert repository.names_posted() == ["-other/1"]
        assert registry.find("other") is None
        shutil.rmtree(repository.root / "double" / "1")
        await settle(registry)
        assert [row.version for row in registry.index()] == ["2"]

    asyncio.run(scenario())


def test_a_file_still_being_written_is_left_alone(repository: Repository) -> None:
    async def scenario() -> None:
        registry = repository.registry()
        await registry.open()
        path = repository.put("double")
        whole = path.read_bytes()
        for length in range(0, len(whole), 40):
            path.write_bytes(whole[:length])
            os.utime(path, ns=(length, length))
            await registry.poll()
        assert repository.inspector.inspected == []
        path.write_bytes(whole)
        await settle(registry)
        assert found(registry, "double").state is ModelState.READY

    asyncio.run(scenario())


def test_a_bad_model_is_not_tried_again_until_it_changes(repository: Repository) -> None:
    async def scenario() -> None:
        repository.put("double").write_bytes(b"no model")
        registry = repository.registry()
        await registry.open()
        for _ in range(5):
            await registry.poll()
        assert len(repository.inspector.inspected) == 1
        repository.put("double")
        await settle(registry)
        assert found(registry, "double").state is ModelState.READY

    asyncio.run(scenario())


def test_watching_goes_on_until_it_is_cancelled(repository: Repository) -> None:
    async def scenario() -> None:
        registry = repository.registry()
        await registry.open()
        watch = asyncio.create_task(registry.watch(0.001))
        repository.put("double")
        await asyncio.wait_for(repository.inspector.reached.wait(), WAIT_S_MAX)
        watch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watch

    asyncio.run(scenario())
