"""A small whole system behind a real door: the real engine and clock, and a controller that answers what it was sent.

It runs in a thread of its own, so that tests may use blocking clients. The models' names say what becomes of
a request: `echo`, `mixed` and `pair` come back as they were; those of `ENDINGS` end otherwise; `silent` waits until
it is released or cancelled.
"""

from __future__ import annotations

import asyncio
import itertools
import mmap
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from slotwise.edges.local.limits import LOCAL_LIMITS, LocalLimits
from slotwise.edges.oip.access import Grant
from slotwise.edges.oip.http import NO_RECORDING, HttpDoor
from slotwise.edges.oip.limits import LIMITS, Limits
from slotwise.edges.oip.local.door import LocalDoor, Relays
from slotwise.edges.oip.management import Identity
from slotwise.edges.oip.recording import Recording
from slotwise.edges.oip.tls import Tls
from slotwise.edges.store.files import SharedArena
from slotwise.engine.clock import RealClock
from slotwise.engine.fronts import Fronts
from slotwise.engine.loop import Engine
from slotwise.engine.ports import FleetAction, ModelError, ModelState, ModelStatus, Refusal
from slotwise.engine.statistics import Statistics
from slotwise.facts.actions import Action, Reply
from slotwise.facts.events import Arrived, Cancelled, Event
from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, Outcome, Reason, Request, TensorRef, TensorSpec, Timing, Variant

HOST = "127.0.0.1"
MS = 1_000_000
SEGMENT = 7
B = TypeVar("B", bound="Behind")
WAIT_S_MAX = 60.0
RETRY_S = 0.002

ENDINGS = {
    "late": (Outcome.LATE, Reason.OVERRAN),
    "refused": (Outcome.REFUSED, Reason.INFEASIBLE),
    "overloaded": (Outcome.REFUSED, Reason.OVERLOADED),
    "expired": (Outcome.DROPPED, Reason.EXPIRED),
    "displaced": (Outcome.DROPPED, Reason.DISPLACED),
    "removed": (Outcome.DROPPED, Reason.MODEL_REMOVED),
    "faulty": (Outcome.FAILED, Reason.RUN_ERROR),
    "lost": (Outcome.FAILED, Reason.EXECUTOR_LOST),
}


def make_spec(name: str, version: str = "1", **changes: object) -> ModelSpec:
    fields: dict[str, object] = {
        "id": f"{name}/{version}",
        "name": name,
        "version": version,
        "profile": Profile(rows=(1,), run_ns=(MS,), load_ns=0, memory_bytes=0),
        "slo_ns": 100 * MS,
        "batch_max": 8,
        "batchable": True,
        "path": f"{name}/{version}/model.onnx",
        "inputs": (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
        "outputs": (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
    }
    return ModelSpec(**{**fields, **changes})  # type: ignore[arg-type]  # checked by the class


def free_spec(name: str, *tensors: TensorSpec) -> ModelSpec:
    """A model whose requests are not batched, and that gives back what it takes."""
    return make_spec(name, batchable=False, batch_max=1, inputs=tensors, outputs=tensors)


SPECS = (
    make_spec("echo"),
    make_spec("echo", "2"),
    make_spec("family", accuracy=0.9, variants=(Variant(accuracy=0.5, model="echo"), Variant(accuracy=0.4, file="s"))),
    free_spec("text", TensorSpec(name="t", datatype="BYTES", shape=(-1,))),
    free_spec("half", TensorSpec(name="h", datatype="FP16", shape=(-1,))),
    free_spec("wide", TensorSpec(name="w", datatype="UINT8", shape=(-1,))),
    free_spec(
        "mixed",
        TensorSpec(name="i", datatype="INT64", shape=(2,)),
        TensorSpec(name="t", datatype="BYTES", shape=(-1,)),
        TensorSpec(name="b", datatype="BOOL", shape=(-1, 2)),
        TensorSpec(name="d", datatype="FP64", shape=(-1,)),
    ),
    make_spec("silent"),
    *(make_spec(name) for name in ENDINGS),
)


class TestArena:
    """Shared memory that is not shared; it counts regions as the real one does, and never uses one twice."""

    __test__ = False
    segment = SEGMENT

    def __init__(self, nbytes: int) -> None:
        self._memory = memoryview(bytearray(nbytes))
        self._next = 64
        self.held: Counter[int] = Counter()

    def allocate(self, nbytes: int) -> int | None:
        if self._next + nbytes > len(self._memory):
            return None
        region, self._next = self._next, -(-(self._next + nbytes) // 64) * 64
        self.held[region] = 1
        return region

    def keep(self, region: int) -> None:
        self.held[region] += 1

    def release(self, region: int) -> None:
        assert self.held[region] > 0, "released more often than held"
        self.held[region] -= 1
        if not self.held[region]:
            del self.held[region]

    def view(self, offset: int, nbytes: int) -> memoryview:
        return self._memory[offset : offset + nbytes]

    def read(self, ref: TensorRef) -> memoryview:
        assert ref.segment == SEGMENT
        return self.view(ref.offset, ref.nbytes)


class EchoMemories:
    """Memory of clients, from which the echo reads as executors do; and the arena."""

    def __init__(self, arena: TestArena) -> None:
        self._arena = arena
        self._next = 1000
        self.shared: dict[int, mmap.mmap] = {}

    def share(self, fd: int, nbytes: int) -> int:
        self._next += 1
        self.shared[self._next] = mmap.mmap(fd, nbytes, prot=mmap.PROT_READ)
        return self._next

    def unshare(self, segment: int) -> None:
        del self.shared[segment]

    def read(self, ref: TensorRef) -> memoryview:
        if ref.segment == SEGMENT:
            return self._arena.read(ref)
        return memoryview(self.shared[ref.segment])[ref.offset : ref.offset + ref.nbytes]


class EchoController:
    """Ends every request as its model's name says."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.cancelled: list[int] = []
        self.silent: dict[int, Request] = {}

    def handle(self, events: Sequence[Event], now_ns: int) -> list[Action]:
        return [reply for event in events for reply in self._replies(event, now_ns)]

    def _replies(self, event: Event, now_ns: int) -> Iterator[Action]:
        if isinstance(event, Cancelled):
            self.cancelled.append(event.request_id)
            if self.silent.pop(event.request_id, None):
                yield Reply(request_id=event.request_id, outcome=Outcome.CANCELLED)
        elif isinstance(event, Arrived):
            self.requests.append(event.request)
            if event.request.model.startswith("silent"):
                self.silent[event.request.id] = event.request
            else:
                yield ending(event.request, now_ns)


def ending(request: Request, now_ns: int) -> Reply:
    name = request.model.partition("/")[0]
    outcome, reason = ENDINGS.get(name, (Outcome.IN_TIME, Reason.NONE))
    is_answered = outcome in (Outcome.IN_TIME, Outcome.LATE)
    timing = Timing(
        arrival_ns=request.arrival_ns,
        sent_ns=now_ns,
        started_ns=now_ns + 2000,
        ended_ns=now_ns + 5000,
        executor="cpu:0",
        rows=request.rows,
        attempts=1,
        predicted_ns=now_ns + 4000,
    )
    return Reply(
        request_id=request.id,
        outcome=outcome,
        reason=reason,
        message="" if is_answered else f"this model is always {name}",
        predicted_ns=request.arrival_ns + 250 * MS,
        retry_after_ns=1_200 * MS if outcome is Outcome.REFUSED else 0,
        outputs=request.inputs if is_answered else (),
        timing=timing if is_answered else None,
    )


class NoFleet:
    def send(self, action: FleetAction) -> None:
        raise AssertionError("the echo runs nothing")

    def flush(self) -> None:
        pass


class ListedModels:
    """Models on offer, as given; `load` and `unload` move them in and out."""

    def __init__(self, specs: Sequence[ModelSpec]) -> None:
        ready = [ModelStatus(name=s.name, version=s.version, state=ModelState.READY, spec=s) for s in specs]
        loading = ModelStatus(name="coming", version="1", state=ModelState.LOADING)
        broken = ModelStatus(name="broken", version="1", state=ModelState.UNAVAILABLE, reason="bad file")
        self.rows = [*ready, loading, broken]
        self._all = list(self.rows)

    def find(self, name: str, version: str = "") -> ModelStatus | None:
        found = [row for row in self.rows if row.name == name and version in ("", row.version)]
        return found[-1] if found else None

    def index(self) -> list[ModelStatus]:
        return list(self.rows)

    async def load(self, name: str) -> None:
        if name not in {row.name for row in self._all}:
            raise ModelError(f"there is no model {name!r} in the repository")
        self.rows = [row for row in self._all if row.name == name or row in self.rows]

    async def unload(self, name: str) -> None:
        if self.find(name) is None:
            raise ModelError(f"model {name!r} is not on offer")
        self.rows = [row for row in self.rows if row.name != name]


class Door(Protocol):
    """What every door can be told to do."""

    def reply(self, reply: Reply) -> None: ...

    async def stop(self, patience_s: float) -> None: ...


class Behind:
    """What stands behind a door of any kind. The constructor runs on the loop's own thread."""

    door: Door
    gate: LocalDoor | None = None
    """Where a gRPC door asks, if there is one."""
    engine: Engine

    def __init__(self, arena_bytes: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = RealClock(self.loop)
        self.arena = TestArena(arena_bytes)
        self.models = ListedModels(SPECS)
        self.controller = EchoController()
        self.statistics = Statistics()
        self.refused: list[Refusal] = []

    def release(self) -> None:
        """Answer what `silent` has been asked, as soon as it has been asked something; from any thread."""
        self.loop.call_soon_threadsafe(self._release)

    def stop_soon(self, patience_s: float) -> Callable[[], None]:
        """Begin to stop; the callable waits until that is done."""

        async def stop() -> None:
            await asyncio.gather(*(door.stop(patience_s) for door in (self.door, self.gate) if door is not None))
            self.end()

        future = asyncio.run_coroutine_threadsafe(stop(), self.loop)
        return lambda: future.result(WAIT_S_MAX)

    def end(self) -> None:
        """What follows once every door has stopped."""

    def _post(self, event: Event) -> None:
        self.engine.post(event)  # made after the door, which it needs

    def _release(self) -> None:
        if not self.controller.silent:
            self.loop.call_later(RETRY_S, self._release)
        for request in list(self.controller.silent.values()):
            del self.controller.silent[request.id]
            for door in (self.door, self.gate):
                if door is not None:
                    door.reply(ending(request, self.clock.now_ns()))


class System(Behind):
    """All of it, behind the HTTP door, and behind a gate for a gRPC door where it has limits."""

    door: HttpDoor

    def __init__(
        self,
        limits: Limits,
        arena_bytes: int,
        late_answers: bool,
        tls: Tls | None,
        grants: Sequence[Grant] | None,
        gate_limits: LocalLimits | None,
        recording: Recording,
    ) -> None:
        super().__init__(arena_bytes)
        memories, ids = EchoMemories(self.arena), itertools.count(1)
        self.door = HttpDoor(
            models=self.models,
            arena=self.arena,
            outputs=memories,
            request_ids=ids,
            post=self._post,
            clock=self.clock,
            statistics=self.statistics,
            identity=Identity(name="slotwise", version="test"),
            refused=self.refused.append,
            limits=limits,
            late_answers=late_answers,
            tls=tls,
            grants=grants,
            recording=recording,
        )
        if gate_limits is not None:
            self.gate = LocalDoor(
                models=self.models,
                arena=self.arena,
                outputs=memories,
                memories=memories,
                lend=SharedArena,
                post=self._post,
                clock=self.clock,
                limits=gate_limits,
                bounds=limits.bounds(),
                request_ids=ids,
                refused=self.refused.append,
                server="test",
                relays=Relays(access=self.door.access, regions=self.door.regions),
                late_answers=late_answers,
            )
        self.engine = Engine(
            clock=self.clock,
            controller=self.controller,
            fleet=NoFleet(),
            front=Fronts.of(self.door, self.gate),
            recorders=[self.statistics],
        )
        self.port = 0

    def end(self) -> None:
        self.door.regions.unregister()

    @property
    def address(self) -> tuple[str, int]:
        return (HOST, self.port)


@contextmanager
def on_a_thread(begin: Callable[[], Coroutine[Any, Any, B]]) -> Iterator[B]:
    """What `begin` makes, on a loop in a thread of its own, stopped in the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        system = asyncio.run_coroutine_threadsafe(begin(), loop).result(WAIT_S_MAX)
        try:
            yield system
        finally:
            system.stop_soon(0.0)()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S_MAX)
        loop.close()


@contextmanager
def serving(
    limits: Limits = LIMITS,
    arena_bytes: int = 16 << 20,
    late_answers: bool = False,
    tls: Tls | None = None,
    local_path: str = "",
    grants: Sequence[Grant] | None = None,
    management_port: int | None = None,
    gate_path: str = "",
    gate_limits: LocalLimits = LOCAL_LIMITS,
    recording: Recording = NO_RECORDING,
) -> Iterator[System]:
    """A system that listens, on a thread of its own; with `local_path` on a Unix socket too, and at a gate for gRPC."""

    async def begin() -> System:
        system = System(limits, arena_bytes, late_answers, tls, grants, gate_limits if gate_path else None, recording)
        if system.gate is not None:
            system.gate.start(gate_path)
        system.port = await system.door.start(HOST, 0, local_path, management_port)
        return system

    with on_a_thread(begin) as found:
        yield found
