"""Packed models: whole or not there, verified, bounded; mapped by every executor; the same answers as before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from slotwise.edges import runtimes
from slotwise.edges.repository.packs import DIGESTS_FILE, DRAFT_PREFIX, Packs
from slotwise.edges.runtimes.onnx import PACKED_FILE
from slotwise.engine.ports import Inspection
from tests.contracts.live import build_mlp
from tests.edges.fleet_rig import Rig, Start, rigs

GIB = 1 << 30


@pytest.fixture
def packs(tmp_path: Path) -> Packs:
    return Packs(tmp_path / "packs", bytes_max=GIB)


def put(packs: Packs, fingerprint: str, nbytes: int = 10) -> Path:
    draft = packs.draft()
    assert draft is not None
    (draft / "weights.bin").write_bytes(b"w" * nbytes)
    pack = packs.publish(draft, packs.key(fingerprint))
    assert pack is not None
    return pack


def test_a_pack_is_found_by_whoever_comes_next_and_leaves_no_draft(packs: Packs, tmp_path: Path) -> None:
    pack = put(packs, "a")
    another = Packs(tmp_path / "packs", bytes_max=GIB)
    assert another.find(another.key("a")) == pack
    assert another.find(another.key("b")) is None
    assert [path.name for path in pack.parent.iterdir()] == [pack.name]


@pytest.mark.parametrize("spoil", ["cut", "changed", "missing", "no digests", "digests that are none"])
def test_a_pack_that_is_not_as_it_was_written_is_removed(packs: Packs, tmp_path: Path, spoil: str) -> None:
    pack = put(packs, "a")
    match spoil:
        case "cut":
            os.truncate(pack / "weights.bin", 5)
        case "changed":
            (pack / "weights.bin").write_bytes(b"v" * 10)
        case "missing":
            (pack / "weights.bin").unlink()
        case "no digests":
            (pack / DIGESTS_FILE).unlink()
        case _:
            (pack / DIGESTS_FILE).write_text("[1]")
    another = Packs(tmp_path / "packs", bytes_max=GIB)
    assert another.find(another.key("a")) is None
    assert not pack.exists()


def test_the_first_of_two_who_publish_the_same_pack_wins_and_both_find_it(packs: Packs, tmp_path: Path) -> None:
    another = Packs(tmp_path / "packs", bytes_max=GIB)
    assert put(packs, "a") == put(another, "a")


def test_beyond_the_limit_the_pack_not_used_for_longest_goes_but_none_in_use(packs: Packs, tmp_path: Path) -> None:
    first, second = put(packs, "a", 1000), put(packs, "b", 1000)
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    small = Packs(tmp_path / "packs", bytes_max=2500)
    assert small.find(small.key("a")) is not None, "now it is in use"
    os.utime(first, (1, 1))
    third = put(small, "c", 1000)
    assert first.exists()
    assert third.exists()
    assert not second.exists()


def test_drafts_of_processes_that_died_long_ago_are_swept(packs: Packs, tmp_path: Path) -> None:
    left = tmp_path / "packs" / f"{DRAFT_PREFIX}left"
    left.mkdir(parents=True)
    os.utime(left, (1, 1))
    assert packs.draft() is not None
    assert not left.exists()


def test_where_nothing_can_be_written_there_are_no_packs(tmp_path: Path) -> None:
    (tmp_path / "packs").write_text("a file where the folder would be")
    assert Packs(tmp_path / "packs", bytes_max=GIB).draft() is None


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with rigs(tmp_path) as make:
        yield make


def inspect(rig: Rig, path: Path, folder: Path) -> Inspection:
    folder.mkdir()
    return rig.loop.run_until_complete(rig.processes.inspect(str(path), 4, {}, str(folder)))


def test_a_packed_model_answers_to_the_bit_as_the_plain_one(start: Start, tmp_path: Path) -> None:
    path, folder = tmp_path / "wide.onnx", tmp_path / "pack"
    build_mlp(path, (64, 256, 10))
    found = inspect(start("mlp"), path, folder)
    assert found.pack == PACKED_FILE
    assert found.batchable
    plain, dense = runtimes.load(str(path), 1), runtimes.load(str(folder / found.pack), 1)
    feeds = {"x": np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)}
    for one, other in zip(plain.run(feeds, 3, ["y"], {}), dense.run(feeds, 3, ["y"], {}), strict=True):
        assert np.array_equal(one, other)


def test_a_model_that_does_not_run_alike_when_packed_is_served_as_it_came(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "dice.onnx"
    tensor = helper.make_tensor_value_info
    x, y = tensor("x", TensorProto.FLOAT, [4]), tensor("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("RandomNormalLike", ["x"], ["y"])], "dice", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    found = inspect(start("mlp"), path, tmp_path / "pack")
    assert not found.pack
    assert [spec.name for spec in found.outputs] == ["y"]
