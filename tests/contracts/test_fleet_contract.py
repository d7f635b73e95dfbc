"""The rules that every fleet keeps, tried on each kind."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest

from slotwise.facts.actions import Load, ReplaceExecutor, RunBatch, StopBatch, Unload
from slotwise.facts.events import BatchDone, BatchFailed, Event, ExecutorLost, ExecutorUp, Loaded, LoadFailed, Unloaded
from slotwise.facts.residency import OutOfMemory, Residency
from slotwise.facts.types import FOREVER_NS, Failure
from tests.contracts.harness import (
    EXECUTORS,
    LARGE,
    LEFT,
    MEMORY_BYTES,
    MS,
    PAGE_BYTES,
    QUICK,
    RIGHT,
    SLOW,
    FleetHarness,
)
from tests.contracts.live import LiveHarness, make_emulated, make_onnx
from tests.contracts.nodes import make_emulated_node
from tests.contracts.simulated import SimHarness

A, B = EXECUTORS
ATTEMPTS_MAX = 20
BATCHES = 1200
LOAD_STEPS = 120
E = TypeVar("E", bound=Event)

LIVE: dict[str, Callable[[Path], LiveHarness]] = {
    "emulated": make_emulated,
    "onnx": make_onnx,
    "emulated-node": make_emulated_node,
}
SIMULATED = "simulated"


@pytest.fixture(scope="module", params=[SIMULATED, *(pytest.param(name, marks=pytest.mark.live) for name in LIVE)])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveHarness | None]:
    """The processes behind a harness, kept for all tests of one kind; None where there are none."""
    if request.param == SIMULATED:
        yield None
        return
    harness = LIVE[request.param](tmp_path_factory.mktemp(request.param))
    yield harness
    harness.close()


@pytest.fixture
def harness(live: LiveHarness | None) -> FleetHarness:
    if live is None:
        return SimHarness()
    live.renew()
    return live


class Hand:
    """Sends actions and finds what came of them."""

    def __init__(self, harness: FleetHarness) -> None:
        self.harness = harness
        self._serial = 0

    def run(
        self, executor: str, model: str, requests: int = 1, earliest_ns: int = 0, latest_ns: int = FOREVER_NS
    ) -> int:
        """Send a batch; its id."""
        self._serial += 1
        asked = tuple(self.harness.request(model) for _ in range(requests))
        self.harness.fleet.send(
            RunBatch(
                executor=executor,
                batch_id=self._serial,
                model=model,
                requests=asked,
                rows=sum(request.rows for request in asked),
                earliest_ns=earliest_ns,
                latest_ns=latest_ns,
                expected_ns=self.harness.specs[model].profile.run_ns[0],
            )
        )
        return self._serial

    def stop(self, executor: str, batch_id: int) -> None:
        self.harness.fleet.send(StopBatch(executor=executor, batch_id=batch_id))

    def load(self, executor: str, model: str, latest_ns: int = FOREVER_NS) -> int:
        """Send a load; its id."""
        self._serial += 1
        self.harness.fleet.send(Load(executor=executor, model=model, load_id=self._serial, latest_ns=latest_ns))
        return self._serial

    def unload(self, executor: str, model: str, load_id: int) -> None:
        self.harness.fleet.send(Unload(executor=executor, model=model, load_id=load_id))

    def results(self) -> dict[int, BatchDone | BatchFailed]:
        """What came of batches, by id."""
        return {event.batch_id: event for event in self.harness.events if isinstance(event, BatchDone | BatchFailed)}

    def found(self, kind: type[E]) -> list[E]:
        return [event for event in self.harness.events if isinstance(event, kind)]

    def wait_for_batch(self, *batch_ids: int) -> BatchDone | BatchFailed:
        """Signal, and wait for batches to come back; the last one's result."""
        self.harness.fleet.flush()
        self.harness.wait_until(lambda: self.results().keys() >= set(batch_ids))
        return self.results()[batch_ids[-1]]

    def wait_for_load(self, load_id: int) -> Loaded | LoadFailed:
        return self._wait_for_id((Loaded, LoadFailed), load_id)

    def wait_for_unload(self, load_id: int) -> Unloaded:
        return self._wait_for_id((Unloaded,), load_id)

    def make_ready(self, executor: str, *models: str) -> list[int]:
        """Load models; the loads' ids."""
        load_ids = [self.load(executor, model) for model in models]
        for load_id in load_ids:
            assert isinstance(self.wait_for_load(load_id), Loaded)
        return load_ids

    def _wait_for_id(self, kinds: tuple[type[E], ...], load_id: int) -> E:
        self.harness.fleet.flush()

        def find() -> list[E]:
            return [event for event in self.harness.events if isinstance(event, kinds) and event.load_id == load_id]

        self.harness.wait_until(find)
        return find()[0]


@pytest.fixture
def hand(harness: FleetHarness) -> Hand:
    return Hand(harness)


def failure(result: BatchDone | BatchFailed) -> Failure | None:
    return result.failure if isinstance(result, BatchFailed) else None


def test_a_batch_of_a_loaded_model_comes_back_done(hand: Hand) -> None:
    hand.make_ready(A, QUICK)
    result = hand.wait_for_batch(hand.run(A, QUICK, requests=3))
    assert isinstance(result, BatchDone)
    assert result.executor == A
    assert result.started_ns < result.ended_ns <= hand.harness.now_ns()


def test_a_batch_whose_latest_has_passed_never_runs(hand: Hand) -> None:
    hand.make_ready(A, QUICK, SLOW)
    blocking = hand.run(A, SLOW)
    late = hand.run(A, QUICK, latest_ns=hand.harness.now_ns() + 50 * MS)
    assert failure(hand.wait_for_batch(blocking, late)) is Failure.TOO_LATE
    assert failure(hand.wait_for_batch(hand.run(A, QUICK, latest_ns=hand.harness.now_ns() - 1))) is Failure.TOO_LATE


def test_a_batch_reached_before_its_earliest_waits_for_it(hand: Hand) -> None:
    hand.make_ready(A, QUICK)
    earliest_ns = hand.harness.now_ns() + 50 * MS
    result = hand.wait_for_batch(hand.run(A, QUICK, earliest_ns=earliest_ns))
    assert isinstance(result, BatchDone)
    assert result.started_ns >= earliest_ns


def test_a_batch_of_a_model_that_is_not_loaded_never_runs(hand: Hand) -> None:
    assert failure(hand.wait_for_batch(hand.run(A, QUICK))) is Failure.NOT_LOADED
    hand.make_ready(B, QUICK)
    assert failure(hand.wait_for_batch(hand.run(A, QUICK))) is Failure.NOT_LOADED


def test_an_executor_runs_one_batch_at_a_time_in_the_order_sent(hand: Hand) -> None:
    for executor in EXECUTORS:
        hand.make_ready(executor, QUICK, LEFT)
    sent: dict[str, list[int]] = {executor: [] for executor in EXECUTORS}
    for step in range(100):
        executor = EXECUTORS[step % 2]
        sent[executor].append(hand.run(executor, (QUICK, LEFT)[step % 3 == 0], requests=1 + step % 4))
    hand.wait_for_batch(*sent[A], *sent[B])
    for executor in EXECUTORS:
        runs = [hand.results()[batch_id] for batch_id in sent[executor]]
        assert all(isinstance(run, BatchDone) for run in runs)
        assert all(before.ended_ns <= after.started_ns for before, after in pairwise(runs))


def test_a_load_overlaps_a_run(hand: Hand) -> None:
    hand.make_ready(A, SLOW)
    batch_id = hand.run(A, SLOW)
    load_id = hand.load(A, QUICK)
    loaded = hand.wait_for_load(load_id)
    assert isinstance(loaded, Loaded)
    assert batch_id not in hand.results()
    run = hand.wait_for_batch(batch_id)
    assert isinstance(run, BatchDone)
    assert loaded.ended_ns < run.ended_ns


def test_a_load_whose_latest_has_passed_leaves_nothing_behind(hand: Hand) -> None:
    event = hand.wait_for_load(hand.load(A, QUICK, latest_ns=hand.harness.now_ns() - 1))
    assert isinstance(event, LoadFailed)
    assert event.failure is Failure.TOO_LATE
    hand.make_ready(A, RIGHT, LEFT)


def test_a_load_beyond_the_memory_fails_and_changes_nothing(hand: Hand) -> None:
    (left,) = hand.make_ready(A, LEFT)
    hand.make_ready(A, RIGHT)
    short = hand.wait_for_load(hand.load(A, QUICK))
    assert isinstance(short, LoadFailed)
    assert short.failure is Failure.NO_MEMORY
    assert isinstance(hand.wait_for_load(hand.load(A, LARGE)), LoadFailed)
    assert isinstance(hand.wait_for_batch(hand.run(A, LEFT), hand.run(A, RIGHT)), BatchDone)
    hand.unload(A, LEFT, left)
    hand.make_ready(A, QUICK)


def test_an_unload_of_what_is_not_there_is_acknowledged(hand: Hand) -> None:
    (load_id,) = hand.make_ready(A, QUICK)
    hand.unload(A, QUICK, load_id + 1000)
    hand.wait_for_unload(load_id + 1000)
    assert isinstance(hand.wait_for_batch(hand.run(A, QUICK)), BatchDone)


def test_the_memory_books_balance_after_any_sequence_of_loads_and_unloads(hand: Hand) -> None:
    source = random.Random(11)
    books = Residency(MEMORY_BYTES, PAGE_BYTES)
    expected: dict[int, bool] = {}
    for _ in range(LOAD_STEPS):
        here = books.models()
        absent = [model for model in (QUICK, SLOW, LEFT, RIGHT, LARGE) if model not in here]
        if here and source.random() < 0.4:
            model = source.choice(here)
            load_id = books.load_id(model)
            assert load_id is not None
            books.unload(model, load_id)
            hand.unload(A, model, load_id)
        else:
            model = source.choice(absent)
            load_id = hand.load(A, model)
            expected[load_id] = begin(books, hand, model, load_id)
        books.check()
    hand.harness.fleet.flush()
    hand.wait_for_load(max(expected))
    outcomes = {
        event.load_id: isinstance(event, Loaded)
        for event in hand.harness.events
        if hasattr(event, "load_id") and not isinstance(event, Unloaded)
    }
    assert outcomes == expected
    assert {False, True} == set(expected.values())
    for model in (QUICK, SLOW, LEFT, RIGHT):
        if books.is_here(model):
            assert isinstance(hand.wait_for_batch(hand.run(A, model)), BatchDone)
        else:
            assert failure(hand.wait_for_batch(hand.run(A, model))) is Failure.NOT_LOADED


def begin(books: Residency, hand: Hand, model: str, load_id: int) -> bool:
    try:
        books.begin_load(model, hand.harness.specs[model].profile.memory_bytes, load_id)
    except OutOfMemory:
        return False
    return True


def test_a_run_whose_model_is_unloaded_or_replaced_meanwhile_is_void(hand: Hand) -> None:
    hand.make_ready(A, QUICK)
    for attempt in range(ATTEMPTS_MAX):
        (load_id,) = hand.make_ready(A, SLOW)
        before, batch_id = hand.run(A, QUICK), hand.run(A, SLOW)
        hand.wait_for_batch(before)  # so the slow batch is about to start or has started
        hand.unload(A, SLOW, load_id)
        if attempt % 2:
            load_id = hand.load(A, SLOW)
        result = hand.wait_for_batch(batch_id)
        assert failure(result) in {Failure.CHANGED, Failure.NOT_LOADED}
        if attempt % 2:
            hand.unload(A, SLOW, load_id)
        hand.wait_for_unload(load_id)
        if attempt and failure(result) is Failure.CHANGED:
            return
    pytest.fail(f"the unload came before the run in each of {ATTEMPTS_MAX} attempts")


def test_a_stopped_batch_comes_back_and_its_model_still_runs(hand: Hand) -> None:
    hand.make_ready(A, SLOW, QUICK)
    before, running, waiting, after = hand.run(A, QUICK), hand.run(A, SLOW), hand.run(A, SLOW), hand.run(A, QUICK)
    hand.wait_for_batch(before)
    hand.stop(A, waiting)
    hand.stop(A, running)
    hand.wait_for_batch(running, waiting, after)
    outcomes = [failure(hand.results()[batch_id]) for batch_id in (running, waiting, after)]
    assert outcomes == [Failure.STOPPED, Failure.STOPPED, None]
    assert isinstance(hand.wait_for_batch(hand.run(A, SLOW)), BatchDone)


def test_a_stop_that_comes_too_late_stops_nothing(hand: Hand) -> None:
    hand.make_ready(A, QUICK)
    for _ in range(30):
        ended = hand.run(A, QUICK)
        following = hand.run(A, QUICK)
        hand.wait_for_batch(ended)
        hand.stop(A, ended)
        assert isinstance(hand.wait_for_batch(following), BatchDone)


def test_a_death_is_reported_once_and_nothing_of_the_dead_after_it(hand: Hand) -> None:
    hand.make_ready(A, QUICK, SLOW)
    hand.make_ready(B, QUICK)
    ended, running, waiting = hand.run(A, QUICK), hand.run(A, SLOW), hand.run(A, QUICK)
    hand.wait_for_batch(ended)
    hand.harness.kill(A)
    hand.harness.wait_until(lambda: hand.found(ExecutorUp))
    assert [event.executor for event in hand.found(ExecutorLost)] == [A]
    assert [event.executor for event in hand.found(ExecutorUp)] == [A]
    assert failure(hand.wait_for_batch(hand.run(A, QUICK))) is Failure.NOT_LOADED
    assert isinstance(hand.wait_for_batch(hand.run(B, QUICK)), BatchDone)
    assert {running, waiting}.isdisjoint(hand.results())
    hand.make_ready(A, QUICK)
    assert isinstance(hand.wait_for_batch(hand.run(A, QUICK)), BatchDone)


def test_an_executor_that_hangs_is_replaced_on_request(hand: Hand) -> None:
    hand.make_ready(A, QUICK)
    hand.harness.hang(A)
    batch_id = hand.run(A, QUICK)
    hand.harness.fleet.send(ReplaceExecutor(executor=A, message="it does not answer"))
    ignored = hand.run(A, QUICK)
    hand.harness.fleet.flush()
    hand.harness.wait_until(lambda: hand.found(ExecutorUp))
    assert [(event.executor, event.message) for event in hand.found(ExecutorLost)] == [(A, "it does not answer")]
    hand.make_ready(A, QUICK)
    assert isinstance(hand.wait_for_batch(hand.run(A, QUICK)), BatchDone)
    assert {batch_id, ignored}.isdisjoint(hand.results())


def test_every_batch_comes_back_once_or_its_executor_is_reported_lost(hand: Hand) -> None:
    source = random.Random(5)
    resident: dict[str, int] = {}
    sent: dict[int, str] = {}
    for executor in EXECUTORS:
        resident[executor] = hand.make_ready(executor, LEFT, QUICK)[0]
    for step in range(BATCHES):
        executor = source.choice(EXECUTORS)
        latest_ns = hand.harness.now_ns() + source.choice((-1, MS, 5 * MS, FOREVER_NS // 2))
        model = source.choice((QUICK, QUICK, LEFT))
        batch_id = hand.run(executor, model, requests=source.choice((1, 1, 2, 5)), latest_ns=latest_ns)
        sent[batch_id] = executor
        if source.random() < 0.1:
            hand.stop(executor, source.choice(list(sent)[-5:]))
        if source.random() < 0.02:
            hand.unload(executor, LEFT, resident[executor])
            resident[executor] = hand.load(executor, LEFT)
        if step % 20 == 0:
            hand.wait_for_batch(source.choice(list(sent)[-3:]))
    hand.wait_for_batch(*sent)
    assert not hand.found(ExecutorLost)
    counts = Counter(event.batch_id for event in hand.harness.events if isinstance(event, BatchDone | BatchFailed))
    assert counts == dict.fromkeys(sent, 1)
    assert all(hand.results()[batch_id].executor == executor for batch_id, executor in sent.items())
    reasons = Counter(failure(result) for result in hand.results().values())
    assert reasons[None] > BATCHES // 4
    assert reasons.keys() <= {None, Failure.TOO_LATE, Failure.NOT_LOADED, Failure.STOPPED, Failure.CHANGED}
    check_exclusive(hand, sent)


def check_exclusive(hand: Hand, sent: dict[int, str]) -> None:
    for executor in EXECUTORS:
        results = [hand.results()[batch_id] for batch_id, at in sent.items() if at == executor]
        runs = [run for run in results if run.ended_ns > run.started_ns > 0]
        assert all(before.ended_ns <= after.started_ns for before, after in pairwise(runs))


def test_an_action_for_an_executor_that_does_not_exist_is_ignored(hand: Hand) -> None:
    hand.make_ready(A, QUICK)
    for action in (hand.run, hand.load):
        action("nobody", QUICK)
    hand.stop("nobody", 1)
    hand.unload("nobody", QUICK, 1)
    assert isinstance(hand.wait_for_batch(hand.run(A, QUICK)), BatchDone)
    assert {event.executor for event in hand.harness.events if isinstance(event, BatchDone | Loaded)} == {A}
