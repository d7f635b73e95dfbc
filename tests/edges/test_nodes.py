"""A node and its front, in one process over TCP: loss and return, weights, who may come in, clocks."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slotwise.edges.fleets.nodes.messages import Weights
from slotwise.edges.fleets.nodes.remote import RemoteNode
from slotwise.edges.fleets.nodes.settings import Address, AddressError, read_addresses
from slotwise.edges.fleets.nodes.weights import Cache, Library
from slotwise.edges.fleets.segments import Segments
from slotwise.engine.ports import ModelError
from slotwise.facts.actions import Load, RunBatch
from slotwise.facts.events import BatchDone, BatchFailed, Event, ExecutorLost, ExecutorUp, Loaded, LoadFailed
from slotwise.facts.types import FOREVER_NS, Failure
from tests.contracts.harness import EXECUTORS, MS, QUICK, SLOW
from tests.contracts.live import put_emulated
from tests.contracts.nodes import NODES, SECRET, SKEW_NS, NodeHarness

pytestmark = pytest.mark.live
A, B = EXECUTORS
Make = Callable[..., NodeHarness]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[NodeHarness] = []

    def build(**limits: float) -> NodeHarness:
        made.append(NodeHarness(*put_emulated(tmp_path), tmp_path, dataclasses.replace(NODES, **limits)))
        return made[-1]

    yield build
    for harness in made:
        harness.close()


def found(harness: NodeHarness, kind: type[Event]) -> list[Event]:
    return [event for event in harness.events if isinstance(event, kind)]


def load(harness: NodeHarness, executor: str, model: str, load_id: int) -> Loaded | LoadFailed:
    harness.fleet.send(Load(executor=executor, model=model, load_id=load_id))

    def ended() -> list[Event]:
        return [e for e in harness.events if isinstance(e, Loaded | LoadFailed) and e.load_id == load_id]

    harness.wait_until(ended)
    event = ended()[0]
    assert isinstance(event, Loaded | LoadFailed)
    return event


def run(harness: NodeHarness, model: str, batch_id: int, latest_ns: int = FOREVER_NS, earliest_ns: int = 0) -> None:
    request = harness.request(model)
    harness.fleet.send(
        RunBatch(
            executor=A,
            batch_id=batch_id,
            model=model,
            requests=(request,),
            rows=1,
            earliest_ns=earliest_ns,
            latest_ns=latest_ns,
            expected_ns=0,
        )
    )


def result(harness: NodeHarness, batch_id: int) -> BatchDone | BatchFailed:
    def ended() -> list[BatchDone | BatchFailed]:
        return [e for e in harness.events if isinstance(e, BatchDone | BatchFailed) and e.batch_id == batch_id]

    harness.wait_until(ended)
    return ended()[0]


def test_the_estimate_of_a_nodes_clock_is_within_a_millisecond_of_its_skew(make: Make) -> None:
    harness = make()
    assert abs(harness.remote.statistics().clock_ahead_ns - SKEW_NS) < MS


def test_windows_are_honoured_on_a_clock_that_is_half_a_second_ahead(make: Make) -> None:
    harness = make()
    assert isinstance(load(harness, A, QUICK, 1), Loaded)
    now_ns = harness.now_ns()
    run(harness, QUICK, 1, earliest_ns=now_ns + 30 * MS, latest_ns=now_ns + 10_000 * MS)
    done = result(harness, 1)
    assert isinstance(done, BatchDone)
    assert now_ns + 30 * MS <= done.started_ns < now_ns + SKEW_NS + 30 * MS
    run(harness, QUICK, 2, latest_ns=harness.now_ns() - 100 * MS)
    late = result(harness, 2)
    assert isinstance(late, BatchFailed)
    assert late.failure is Failure.TOO_LATE


def test_a_lost_connection_loses_every_executor_and_a_new_one_finds_them_empty(make: Make) -> None:
    harness = make(retry_s_min=0.01)
    assert isinstance(load(harness, A, SLOW, 1), Loaded)
    run(harness, SLOW, 1)
    harness.events.clear()
    harness.remote._caller.end("cut by the test")
    harness.wait_until(lambda: len(found(harness, ExecutorUp)) == len(EXECUTORS))
    assert {event.executor for event in found(harness, ExecutorLost)} == set(EXECUTORS)
    assert all("cut by the test" in event.message for event in found(harness, ExecutorLost))
    run(harness, SLOW, 2)
    unloaded = result(harness, 2)
    assert isinstance(unloaded, BatchFailed)
    assert unloaded.failure is Failure.NOT_LOADED
    assert isinstance(load(harness, A, SLOW, 2), Loaded)
    run(harness, SLOW, 3)
    assert isinstance(result(harness, 3), BatchDone)
    assert {event.batch_id for event in found(harness, BatchDone)} == {3}
    assert harness.remote.statistics().losses == 1


def test_a_node_that_falls_silent_is_lost(make: Make) -> None:
    harness = make(silence_s_max=0.3, ping_s=0.05)
    (link,) = [harness.agent._front]
    assert link is not None
    assert link._transport is not None
    link._transport.pause_reading()
    harness.wait_until(lambda: len(found(harness, ExecutorLost)) == len(EXECUTORS))
    harness.wait_until(lambda: len(found(harness, ExecutorUp)) == 2 * len(EXECUTORS))


def other_front(harness: NodeHarness, secret: bytes) -> RemoteNode:
    address = harness.remote._address
    return RemoteNode(
        address=Address(name="other", host=address.host, port=address.port),
        prefix="other:",
        secret=secret,
        limits=harness.nodes,
        post=harness._post,
        clock=harness.clock,
        read=harness._read_input,
        specs=harness.specs,
        segments=Segments(memoryview(b"")),
        library=Library(),
    )


@pytest.mark.parametrize(("secret", "why"), [(b"a guess", "another secret"), (SECRET, "serves another front")])
def test_a_node_takes_one_front_at_a_time_and_only_one_that_knows_the_secret(
    make: Make, secret: bytes, why: str
) -> None:
    harness = make()

    async def call() -> str:
        other = other_front(harness, secret)
        other.start()
        while why not in other.statistics().last_end:  # noqa: ASYNC110  # statistics do not say when they change
            await asyncio.sleep(0.005)
        await other.close()
        return other.statistics().last_end

    assert why in harness.loop.run_until_complete(asyncio.wait_for(call(), 20))
    assert harness.remote.is_up


def test_weights_come_in_pieces_once_and_stay_for_the_next_start(tmp_path: Path) -> None:
    source, weights = put_model(tmp_path / "source")
    cache = Cache(tmp_path / "cache", 1 << 20)
    assert cache.find(weights) is None
    take_in(cache, weights, source)
    assert cache.find(weights) == tmp_path / "cache" / weights.digest / "model.onnx"
    again = Cache(tmp_path / "cache", 1 << 20).find(weights)
    assert again is not None
    assert again.read_bytes() == (source / "model.onnx").read_bytes()
    assert again.with_name("weights.bin").read_bytes() == (source / "weights.bin").read_bytes()
    assert again.with_name("empty").read_bytes() == b""


def test_weights_that_change_on_their_way_leave_nothing_in_view(tmp_path: Path) -> None:
    source, weights = put_model(tmp_path / "source")
    (source / "weights.bin").write_bytes(bytes(5000))
    cache = Cache(tmp_path / "cache", 1 << 20)
    with pytest.raises(ModelError, match=r"weights\.bin changed"):
        take_in(cache, weights, source)
    assert cache.find(weights) is None


def test_what_a_node_that_died_had_begun_is_removed_and_what_one_that_lives_has_begun_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    _, weights = put_model(tmp_path / "source")
    Cache(folder, 1 << 20).begin(weights)
    (folder / ".draft-999999999-dead").mkdir()
    Cache(folder, 1 << 20)
    assert [path.name.partition("-")[2].partition("-")[0] for path in folder.iterdir()] == [str(os.getpid())]


def test_a_cache_forgets_what_was_longest_unused(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 20_000)
    kept = []
    for seed in range(4):
        source, weights = put_model(tmp_path / f"source{seed}", seed)
        take_in(cache, weights, source)
        kept.append(weights)
    assert [cache.find(weights) is not None for weights in kept] == [False, True, True, True]


def test_a_file_that_would_leave_its_folder_is_not_taken_in(tmp_path: Path) -> None:
    _, weights = put_model(tmp_path / "source")
    cache = Cache(tmp_path / "cache", 1 << 20)
    with pytest.raises(ModelError, match="do not make that digest"):
        cache.begin(Weights(weights.digest, weights.main, weights.files[:1]))


def put_model(folder: Path, seed: int = 0) -> tuple[Path, Weights]:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(bytes([seed]) * 700)
    (folder / "weights.bin").write_bytes(bytes(range(250)) * 20)
    (folder / "empty").touch()
    return folder, asyncio.run(Library().weights(str(folder / "model.onnx")))


def take_in(cache: Cache, weights: Weights, source: Path) -> None:
    draft = cache.begin(weights)
    names = {file.sha256: file.name for file in weights.files}
    try:
        for piece in draft.pieces(512):
            content = (source / names[piece.sha256]).read_bytes()
            draft.add(piece.sha256, piece.offset, memoryview(content)[piece.offset : piece.offset + piece.nbytes])
    except ModelError:
        draft.drop()
        raise
    draft.publish()


def test_a_node_fetches_what_it_does_not_have_and_the_next_load_needs_no_fetch(make: Make, tmp_path: Path) -> None:
    harness = make(chunk_bytes=64, chunks_max=2)
    assert list((tmp_path / "weights").iterdir()) == []
    assert isinstance(load(harness, A, QUICK, 1), Loaded)
    assert len([path for path in (tmp_path / "weights").iterdir() if not path.name.startswith(".")]) == 1
    assert isinstance(load(harness, B, QUICK, 2), Loaded)


def test_weights_that_changed_on_their_way_spoil_no_other_model(make: Make, tmp_path: Path) -> None:
    harness = make(chunk_bytes=64, chunks_max=4, retry_s_max=0.02)
    library = harness.remote._library
    path = harness.specs[QUICK].path
    harness.loop.run_until_complete(library.weights(path))
    paths = dict(library._paths)
    other = tmp_path / "weights" / "other"
    other.write_bytes(bytes(10_000))
    library._paths.update(dict.fromkeys(paths, other))
    failed = load(harness, A, QUICK, 1)
    assert isinstance(failed, LoadFailed)
    assert failed.failure is Failure.CHANGED
    library._paths.update(paths)
    assert isinstance(load(harness, A, QUICK, 2), Loaded)


def test_addresses_are_read_and_wrong_ones_are_told() -> None:
    (left, right) = read_addresses(("left=10.0.0.2:7700", "right=[::1]:7701"))
    assert (left.host, left.port, right.host, right.port) == ("10.0.0.2", 7700, "::1", 7701)
    for wrong in (("10.0.0.2:7700",), ("a=b",), ("a=b:70000",), ("a=h:1", "a=h:2")):
        with pytest.raises(AddressError):
            read_addresses(wrong)
