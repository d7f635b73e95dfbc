"""A fleet of processes with real models: answers are right, faults are survived, nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from slotwise.edges.fleets.processes import FleetError, ProcessFleet
from slotwise.edges.fleets.seat import SeatState
from slotwise.edges.fleets.settings import CoreSlice, FleetLimits
from slotwise.edges.store.files import SharedArena
from slotwise.engine.clock import RealClock
from slotwise.facts.events import BatchDone, BatchFailed, ExecutorLost, ExecutorUp, Loaded, LoadFailed
from slotwise.facts.types import Failure
from tests.conftest import WaitUntil
from tests.edges.fleet_rig import Rig, Start, build, direct, make_spec, numbers, rigs

pytestmark = pytest.mark.live

MIB = 1 << 20
SMALL_OUTPUTS = FleetLimits(restart_s_min=0.01, restart_s_max=0.05, outputs_bytes=2 * MIB, outputs_wait_ns=50_000_000)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with rigs(tmp_path) as make:
        yield make


def test_the_answer_to_one_request_is_the_runtime_s_own(start: Start) -> None:
    rig = start("mlp")
    feeds = numbers(3, 64)
    (answer,) = rig.run("mlp", feeds)
    assert np.allclose(answer["y"], direct(rig, "mlp", feeds)[0], atol=1e-6)


def test_each_request_of_a_batch_gets_its_own_rows(start: Start) -> None:
    rig = start("mlp")
    for sizes in ((1, 3, 2), (5, 1), (1, 1, 1, 1), (9, 30)):
        questions = [numbers(rows, 64, seed) for seed, rows in enumerate(sizes)]
        answers = rig.run("mlp", *questions)
        for question, answer in zip(questions, answers, strict=True):
            assert np.allclose(answer["y"], direct(rig, "mlp", question)[0], atol=1e-5)


def test_large_outputs_are_right_alone_and_in_a_batch(start: Start) -> None:
    rig = start("wide")
    questions = [numbers(rows, 512, rows) for rows in (64, 100, 200)]
    answers = rig.run("wide", *questions) + rig.run("wide", questions[0])
    for question, answer in zip([*questions, questions[0]], answers, strict=True):
        assert np.allclose(answer["y"], direct(rig, "wide", question)[0], atol=1e-4)


def test_a_batch_that_never_runs_takes_nothing_of_the_one_before_it_back(start: Start) -> None:
    rig = start("mlp")
    rig.run("mlp", numbers(3, 64))
    rig.ends_turns = False  # what has come is still to be read
    questions = [numbers(3, 64, seed) for seed in range(2)]
    first = rig.send("mlp", questions[0])
    between = rig.send("mlp", questions[0], latest_ns=1)
    last = rig.send("mlp", questions[1])
    rig.fleet.flush()
    assert isinstance(rig.wait_for(between, is_turn_over=False), BatchFailed)
    for batch, question in zip((first, last), questions, strict=True):
        result = rig.wait_for(batch, is_turn_over=False)
        assert isinstance(result, BatchDone)
        (ref,) = result.outputs[0]
        assert np.allclose(rig.read(ref), direct(rig, "mlp", question)[0], atol=1e-6)


def test_texts_go_in_and_come_out(start: Start) -> None:
    rig = start("texts")
    questions = [
        {"s": np.array([["a", "", "größer", "x" * 1000]], np.object_)},
        {"s": np.array([["b"] * 4, ["c"] * 4], np.object_)},
    ]
    for batch in (questions, questions[:1]):
        answers = rig.run("texts", *batch)
        for question, answer in zip(batch, answers, strict=True):
            assert np.array_equal(answer["t"], question["s"])


def test_only_the_outputs_asked_for_come_back(start: Start) -> None:
    rig = start("two")
    question = numbers(2, 4)
    assert [list(answer) for answer in rig.run("two", question, outputs=["high"])] == [["high"]]
    (answer, _) = rig.run("two", question, question, outputs=["high", "low"])
    assert np.array_equal(np.hstack([answer["low"], answer["high"]]), question["x"])
    result = rig.wait_for(rig.send("two", question, outputs=["middle"]))
    assert isinstance(result, BatchFailed)
    assert "middle" in result.message


def test_an_output_larger_than_the_segment_fails_with_size_and_limit_and_the_next_one_runs(
    start: Start,
) -> None:
    rig = start("wide", limits=SMALL_OUTPUTS)
    result = rig.wait_for(rig.send("wide", numbers(1025, 512)))
    assert isinstance(result, BatchFailed)
    assert result.failure is Failure.RUN_ERROR
    assert f"{1025 * 512 * 4} bytes" in result.message
    assert f"limit of {2 * MIB} bytes" in result.message
    assert rig.run("wide", numbers(1024, 512))[0]["y"].shape == (1024, 512)


def test_room_for_outputs_comes_back_at_the_end_of_the_turn_and_not_before(start: Start) -> None:
    rig = start("wide", limits=SMALL_OUTPUTS)
    question = numbers(600, 512)
    for _ in range(10):
        rig.run("wide", question)
    rig.ends_turns = False
    first, second = rig.send("wide", question), rig.send("wide", question)
    without_room = rig.wait_for(second)
    assert isinstance(without_room, BatchFailed)
    assert "found no room" in without_room.message
    done = rig.wait_for(first, is_turn_over=False)
    assert isinstance(done, BatchDone)
    assert np.allclose(rig.read(done.outputs[0][0]), direct(rig, "wide", question)[0], atol=1e-4)
    rig.ends_turns = True
    assert rig.run("wide", question)[0]["y"].shape == (600, 512)


def test_a_batch_that_never_ran_takes_no_room_from_the_outputs_before_it(start: Start) -> None:
    rig = start("two")
    rig.specs["absent"] = make_spec("absent", Path("absent.onnx"))
    rig.ends_turns = False  # nothing has been read yet when the last batch takes its room
    questions = [numbers(1, 4, seed) for seed in range(2)]
    first, absent, second = (
        rig.send("two", questions[0]),
        rig.send("absent", questions[0]),
        rig.send("two", questions[1]),
    )
    done = [rig.wait_for(first), rig.wait_for(second, is_turn_over=False)]
    failed = rig.wait_for(absent, is_turn_over=False)
    assert isinstance(failed, BatchFailed)
    assert failed.failure is Failure.NOT_LOADED
    for question, result in zip(questions, done, strict=True):
        assert isinstance(result, BatchDone)
        assert np.array_equal(np.hstack([rig.read(ref) for ref in result.outputs[0]]), question["x"])


def test_a_model_that_gives_another_shape_than_it_declares_is_answered_all_the_same(start: Start) -> None:
    rig = start("liar")
    feeds = {**numbers(1, 100), "times": np.array([1, 200], np.int64)}
    for _ in range(2):
        assert np.array_equal(rig.run("liar", feeds)[0]["y"], np.tile(feeds["x"], (1, 200)))


def test_a_runtime_s_complaint_is_the_failure_s_text_and_the_executor_lives(start: Start) -> None:
    rig = start("mlp", "sums")
    result = rig.wait_for(rig.send("mlp", numbers(1, 63)))
    assert isinstance(result, BatchFailed)
    assert (result.failure, "invalid dimensions" in result.message) == (Failure.RUN_ERROR, True)
    mixed = rig.wait_for(rig.send("mlp", numbers(1, 64), numbers(1, 63)))
    assert isinstance(mixed, BatchFailed)
    assert "do not fit together" in mixed.message
    undividable = rig.wait_for(rig.send("sums", numbers(1, 4), numbers(1, 4)))
    assert isinstance(undividable, BatchFailed)
    assert "cannot be divided among the requests" in undividable.message
    assert rig.run("mlp", numbers(1, 64))[0]["y"].shape == (1, 10)
    assert not any(isinstance(event, ExecutorLost) for event in rig.events)


def test_a_model_that_cannot_be_read_fails_to_load_with_the_reason(start: Start, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_text("nonsense")
    rig = start("mlp")
    for name, complaint in (("bad", "Protobuf parsing failed"), ("absent", "there is no file")):
        rig.specs[name] = make_spec(name, tmp_path / f"{name}.onnx")
        event = rig.load(name)
        assert isinstance(event, LoadFailed)
        assert event.failure is Failure.BAD_MODEL
        assert complaint in event.message
    unknown = rig.load("never heard of")
    assert isinstance(unknown, LoadFailed)
    assert "not known any more" in unknown.message


def test_tensors_are_held_until_the_batch_is_back_or_its_executor_lost(start: Start) -> None:
    rig = start("mlp")
    rig.processes.kill("a", signal.SIGSTOP)
    batch_id = rig.send("mlp", numbers(1, 64), numbers(2, 64))
    rig.fleet.flush()
    assert rig.arena.regions == 2
    rig.processes.kill("a", signal.SIGCONT)
    rig.wait_for(batch_id)
    assert rig.arena.regions == 0
    rig.processes.kill("a", signal.SIGSTOP)
    rig.send("mlp", numbers(1, 64))
    rig.processes.kill("a")
    rig.wait_until(lambda: any(isinstance(event, ExecutorLost) for event in rig.events))
    assert rig.arena.regions == 0


def test_an_executor_that_reads_no_commands_is_replaced_when_the_limit_is_reached(start: Start) -> None:
    rig = start("mlp", limits=FleetLimits(ring_bytes=4096, backlog_max=50, restart_s_min=0.01))
    rig.processes.kill("a", signal.SIGSTOP)
    for _ in range(200):
        rig.send("mlp", numbers(1, 64))
    rig.wait_until(lambda: any(isinstance(event, ExecutorUp) for event in rig.events[1:]))
    (lost,) = [event for event in rig.events if isinstance(event, ExecutorLost)]
    assert lost.message == "50 commands wait for an executor that does not read them"
    assert rig.arena.regions == 0


def test_commands_that_find_the_ring_full_are_carried_out_in_the_end(start: Start) -> None:
    rig = start("mlp", limits=FleetLimits(ring_bytes=4096))
    rig.processes.kill("a", signal.SIGSTOP)
    batch_ids = [rig.send("mlp", numbers(1, 64)) for _ in range(300)]
    rig.fleet.flush()
    rig.processes.kill("a", signal.SIGCONT)
    for batch_id in batch_ids:
        assert isinstance(rig.wait_for(batch_id), BatchDone)


def test_a_batch_whose_description_is_too_long_for_the_ring_fails_at_once(start: Start) -> None:
    rig = start("mlp", limits=FleetLimits(ring_bytes=4096))
    result = rig.wait_for(rig.send("mlp", *[numbers(1, 64)] * 200))
    assert isinstance(result, BatchFailed)
    assert "too many requests or tensors" in result.message
    assert rig.arena.regions == 0


def test_when_the_zygote_dies_every_executor_is_replaced(start: Start) -> None:
    rig = start("mlp")
    rig.events.clear()
    before = rig.processes.statistics()
    assert before.zygote_pid is not None
    os.kill(before.zygote_pid, signal.SIGKILL)
    rig.wait_until(lambda: sum(isinstance(event, ExecutorUp) for event in rig.events) == 2)
    assert sorted(event.executor for event in rig.events if isinstance(event, ExecutorLost)) == ["a", "b"]
    after = rig.processes.statistics()
    assert after.zygote_restarts == 1
    assert {executor.pid for executor in before.executors}.isdisjoint(executor.pid for executor in after.executors)
    assert isinstance(rig.load("mlp"), Loaded)
    assert rig.run("mlp", numbers(1, 64))[0]["y"].shape == (1, 10)


def test_after_the_close_there_is_no_process_and_no_descriptor(tmp_path: Path, wait_until: WaitUntil) -> None:
    build(tmp_path, "mlp")
    before = open_descriptors()
    rig = Rig({"mlp": tmp_path / "mlp.onnx"})
    rig.load("mlp")
    rig.processes.kill("a")
    rig.wait_until(lambda: any(isinstance(event, ExecutorLost) for event in rig.events))
    statistics = rig.processes.statistics()
    pids = [statistics.zygote_pid, *(executor.pid for executor in statistics.executors)]
    rig.close()
    assert open_descriptors() == before
    wait_until(lambda: not any(pid and is_running(pid) for pid in pids))
    assert {executor.state for executor in rig.processes.statistics().executors} == {SeatState.CLOSED}


def open_descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


FRONT = """
import asyncio, sys
from tests.conftest import WaitUntil
from tests.edges.fleet_rig import Rig
rig = Rig({})
statistics = rig.processes.statistics()
print(statistics.zygote_pid, *(executor.pid for executor in statistics.executors), flush=True)
sys.stdin.read()
"""


def test_when_the_front_is_killed_nothing_of_the_fleet_survives(wait_until: WaitUntil) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", FRONT], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as front:
        assert front.stdout is not None
        pids = [int(word) for word in front.stdout.readline().split()]
        assert len(pids) == 3
        assert all(is_running(pid) for pid in pids)
        front.kill()
    wait_until(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_core_that_does_not_exist_is_a_clear_error_and_leaves_nothing_running() -> None:
    async def try_to_start() -> None:
        fleet = ProcessFleet(
            slices=[CoreSlice(executor="a", cores=(4000,), memory_bytes=MIB)],
            post=lambda event: None,
            clock=RealClock(asyncio.get_running_loop()),
            arena=arena,
            specs={},
            limits=FleetLimits(start_s_max=1.0),
        )
        with pytest.raises(FleetError, match=r"a \(ended with status 1\)"):
            await fleet.start()
        assert fleet.statistics().zygote_pid is None

    arena = SharedArena(MIB)
    asyncio.run(try_to_start())
    arena.close()


def test_an_executor_s_memory_is_small_and_its_arena_read_only(start: Start) -> None:
    rig = start("mlp")
    assert set(rig.processes.memory_bytes()) == {"a", "b", "zygote", "front"}
    pid = rig.processes.statistics().executors[0].pid
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    assert [line.split()[1] for line in lines if "slotwise-arena" in line] == ["r--s"]
