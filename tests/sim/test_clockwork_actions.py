"""What Clockwork asks of an executor holds on the simulated fleet: windows, turns, pages and versions, to the ns."""

from __future__ import annotations

import itertools
import random
from typing import TypeVar

from slotwise.engine.clock import VirtualClock
from slotwise.engine.ports import FleetAction
from slotwise.facts.actions import Load, RunBatch, Unload
from slotwise.facts.events import BatchDone, BatchFailed, Event, Loaded, LoadFailed, Unloaded
from slotwise.facts.residency import Residency
from slotwise.facts.types import FOREVER_NS, Failure, Request
from slotwise.facts.units import MS, S
from slotwise.sim.fleet import FleetSettings, Noise, SimFleet, SimSlice
from tests.sim.systems import PAGE_BYTES, QUIET, RESNET50, copies

LINK_NS = 50_000
E = TypeVar("E", bound=Event)


class Bench:
    """One simulated executor, and everything that it says."""

    def __init__(self, *, pages: int = 70, noise: Noise = QUIET) -> None:
        self.clock = VirtualClock()
        slice_ = SimSlice(executor="e0", memory_bytes=pages * PAGE_BYTES, page_bytes=PAGE_BYTES)
        self.events: list[Event] = []
        self.fleet = SimFleet(
            settings=FleetSettings(slices=(slice_,), link_ns=LINK_NS, noise=noise),
            clock=self.clock,
            truth={spec.id: spec for spec in copies(40)},
            rng=random.Random(5),
        )
        self.fleet.start(self.events.append)

    def send(self, *actions: FleetAction) -> None:
        """Hand actions over now."""
        for action in actions:
            self.fleet.send(action)

    def wait(self, duration_ns: int = 1 * S) -> None:
        """Let time pass."""
        self.clock.run(self.clock.now_ns() + duration_ns)

    def of(self, kind: type[E]) -> list[E]:
        """Events of one type so far."""
        return [event for event in self.events if isinstance(event, kind)]


def load(model: str, load_id: int = 1) -> Load:
    return Load(executor="e0", model=model, load_id=load_id)


def batch(batch_id: int, model: str = "m0", earliest_ns: int = 0, latest_ns: int = FOREVER_NS) -> RunBatch:
    request = Request(id=batch_id, model=model, arrival_ns=0, deadline_ns=FOREVER_NS)
    return RunBatch(
        executor="e0",
        batch_id=batch_id,
        model=model,
        requests=(request,),
        rows=1,
        earliest_ns=earliest_ns,
        latest_ns=latest_ns,
        expected_ns=RESNET50.run_ns[0],
    )


def test_a_batch_whose_latest_has_passed_never_runs() -> None:
    bench = Bench()
    bench.send(load("m0"))
    bench.wait()
    bench.send(batch(1, latest_ns=bench.clock.now_ns() - 1))
    bench.wait()
    [failed] = bench.of(BatchFailed)
    assert failed.failure is Failure.TOO_LATE
    assert not bench.of(BatchDone)


def test_a_batch_that_waited_past_its_latest_behind_another_never_runs() -> None:
    bench = Bench()
    bench.send(load("m0"))
    bench.wait()
    bench.send(batch(1), batch(2, latest_ns=bench.clock.now_ns() + 2 * MS))
    bench.wait()
    assert [event.batch_id for event in bench.of(BatchDone)] == [1]
    assert [event.failure for event in bench.of(BatchFailed)] == [Failure.TOO_LATE]


def test_a_batch_starts_no_earlier_than_its_earliest() -> None:
    bench = Bench()
    bench.send(load("m0"))
    bench.wait()
    earliest_ns = bench.clock.now_ns() + 50 * MS
    bench.send(batch(1, earliest_ns=earliest_ns))
    bench.wait()
    [done] = bench.of(BatchDone)
    assert earliest_ns <= done.started_ns <= earliest_ns + 1 * MS


def test_no_two_batches_of_an_executor_overlap_over_ten_thousand() -> None:
    bench = Bench(noise=Noise(spread=0.3, overrun_share=0.01))
    bench.send(load("m0", 1), load("m1", 2))
    bench.wait()
    rng = random.Random(3)
    for number in range(10_000):
        bench.send(batch(number, rng.choice(["m0", "m1"])))
        bench.wait(rng.randrange(0, 4 * MS))
    bench.wait(60 * S)
    done = bench.of(BatchDone)
    assert len(done) == 10_000
    assert all(before.ended_ns <= after.started_ns for before, after in itertools.pairwise(done))


def test_a_load_overlaps_the_batch_of_another_model() -> None:
    bench = Bench()
    bench.send(load("m0"))
    bench.wait()
    bench.send(load("m1", 2), batch(1))
    bench.wait()
    [done] = bench.of(BatchDone)
    loaded = bench.of(Loaded)[-1]
    assert loaded.started_ns <= done.started_ns < done.ended_ns < loaded.ended_ns


def test_pages_balance_after_any_sequence_of_loads_and_unloads() -> None:
    rng = random.Random(11)
    bench, books = Bench(pages=70), Residency(70 * PAGE_BYTES, PAGE_BYTES)
    for load_id in range(1, 400):
        model = f"m{rng.randrange(40)}"
        held = books.load_id(model)
        if held is not None:
            books.unload(model, held)
            bench.send(Unload(executor="e0", model=model, load_id=held))
        elif books.can_load(RESNET50.memory_bytes):
            books.begin_load(model, RESNET50.memory_bytes, load_id)
            bench.send(load(model, load_id))
        books.check()
        assert books.pages_free == 70 - 7 * len(books.models())
        bench.wait(20 * MS)
    assert not bench.of(LoadFailed)
    assert len(bench.of(Loaded)) == len(bench.of(Unloaded)) + len(books.models())


def test_a_load_without_room_fails_and_leaves_nothing_behind() -> None:
    bench = Bench(pages=10)
    bench.send(load("m0", 1), load("m1", 2))
    bench.wait()
    [failed] = bench.of(LoadFailed)
    assert (failed.model, failed.failure) == ("m1", Failure.NO_MEMORY)
    bench.send(Unload(executor="e0", model="m0", load_id=1), load("m1", 3))
    bench.wait()
    assert bench.of(Loaded)[-1].model == "m1"


def test_a_batch_whose_model_is_unloaded_while_it_runs_is_void() -> None:
    bench = Bench()
    bench.send(load("m0", 1))
    bench.wait()
    bench.send(batch(1))
    bench.wait(1 * MS)
    bench.send(Unload(executor="e0", model="m0", load_id=1))
    bench.wait()
    [failed] = bench.of(BatchFailed)
    assert failed.failure is Failure.CHANGED
    assert not bench.of(BatchDone)
