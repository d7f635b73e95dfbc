"""What the loop needs from the outside, as protocols; `sim` and `edges` each provide them.

A port never decides. It carries out an action and later posts an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Protocol

from slotwise.facts.actions import Action, Load, ReplaceExecutor, Reply, RunBatch, StopBatch, Unload
from slotwise.facts.events import Event
from slotwise.facts.profile import Profile
from slotwise.facts.statistics import ModelStatistics
from slotwise.facts.types import ModelSpec, TensorRef, TensorSpec
from slotwise.facts.value import value

FleetAction = RunBatch | StopBatch | Load | Unload | ReplaceExecutor
Post = Callable[[Event], None]
"""Hands an event to the loop. Cheap; to be called from the loop's own thread only."""


class Clock(Protocol):
    """Time, and being called back at a time. Callbacks for one instant run in the order asked for."""

    def now_ns(self) -> int:
        """The present instant. Starts at an arbitrary value and never falls."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call once what runs now has ended."""

    def call_at(self, at_ns: int, callback: Callable[[], None]) -> Cancellable:
        """Call at an instant, or at once if it has passed."""


class Cancellable(Protocol):
    """A callback that is still to come."""

    def cancel(self) -> None:
        """Do not call. Harmless when it has been called."""


class Controller(Protocol):
    """Decides. A pure function of its state, the events of a turn, and the instant."""

    def handle(self, events: Sequence[Event], now_ns: int) -> list[Action]:
        """Take the events in, in order, and say what is to be done."""


class Fleet(Protocol):
    """The executors."""

    def send(self, action: FleetAction) -> None:
        """Hand an action to its executor. An executor that is gone ignores it and is reported lost."""

    def flush(self) -> None:
        """The turn has ended: signal every executor that was sent something, once."""


class Front(Protocol):
    """Those who wait for replies."""

    def reply(self, reply: Reply) -> None:
        """Answer one request."""


@value
class Refusal:
    """What a door has turned away by itself, unheard by the engine. Texts are as clients sent them."""

    door: str
    """`http`, `grpc` or `local`."""
    status: int
    """As HTTP has it."""
    reason: str
    message: str
    peer: str = ""
    target: str = ""
    count: int = 1
    """How many of this kind it stands for."""


Refused = Callable[[Refusal], None]
"""Told of each refusal of a door's own. Cheap."""


class Recorder(Protocol):
    """Keeps what happened in a turn: a journal, a log, a check of invariants, metrics."""

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """One turn has been decided and is about to be carried out."""


UNBOUNDED = 1 << 62
"""A count that is never used up."""


@value
class TraceSetting:
    """Which requests are traced: none, or one in so many until `left` more have been."""

    is_on: bool
    one_in: int
    left: int = UNBOUNDED


@value
class OwnTraceSetting:
    """What one model, or the server as a whole, sets for itself. None is left to whoever stands above it."""

    is_on: bool | None = None
    one_in: int | None = None
    left: int | None = None


class Tracing(Protocol):
    """Which requests are traced, by the model's name; the empty name stands for all models that set nothing."""

    def setting(self, model: str = "") -> TraceSetting:
        """What holds for a model."""

    def own(self, model: str = "") -> OwnTraceSetting:
        """What of it the model sets for itself, with what is left of its count."""

    def put(self, own: OwnTraceSetting, model: str = "") -> None:
        """Have a model set this for itself from now on."""


@value
class LogSetting:
    """Which rows the logs keep: of requests by how they ended, and of actions."""

    info: bool = True
    """Requests answered in time, and those whose clients went away."""
    warning: bool = True
    """Requests that were refused, dropped, or answered late."""
    error: bool = True
    """Requests that failed."""
    actions: bool = True


class Logging(Protocol):
    """Logs that are kept, and which rows they keep."""

    @property
    def folder(self) -> str:
        """Where they are kept."""

    @property
    def format(self) -> str:
        """What kind of files they are."""

    def setting(self) -> LogSetting:
        """Which rows they keep."""

    def put(self, setting: LogSetting) -> None:
        """Keep these rows from now on."""


class ModelCounts(Protocol):
    """What has become of requests, by model."""

    def model(self, model: str) -> ModelStatistics:
        """What is known of one version of a model; all zero when nothing has happened."""


class Arena(Protocol):
    """Shared memory for the tensors that clients send; executors map it for reading only.

    A region is counted: whoever reads it keeps it, and the last release gives it back. The door holds a
    request's region until its reply, the fleet from sending a batch until that batch has come back.
    """

    @property
    def segment(self) -> int:
        """The name under which tensor references speak of this memory."""

    def allocate(self, nbytes: int) -> int | None:
        """Offset of a fresh region, aligned to 64 bytes and held once; None when there is no room."""

    def keep(self, region: int) -> None:
        """Hold a region once more."""

    def release(self, region: int) -> None:
        """Hold it once less."""

    def view(self, offset: int, nbytes: int) -> memoryview:
        """The bytes themselves, writable."""


class Memories(Protocol):
    """Memory that clients own, which executors read requests' inputs from where it lies."""

    def share(self, fd: int, nbytes: int) -> int:
        """Make memory of a sealed size known, and return its segment number. The descriptor stays the caller's."""

    def unshare(self, segment: int) -> None:
        """No further request refers to it. It is given up once those batches are back that do."""


class Outputs(Protocol):
    """Where executors leave what they computed."""

    def read(self, ref: TensorRef) -> memoryview:
        """The bytes of an output. Valid only while the reply that names it is being carried out."""


class ModelState(Enum):
    """Where a version of a model stands, in the words of the repository protocol."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@value
class ModelStatus:
    """One line of the repository's index. `spec` is there if and only if the state is READY."""

    name: str
    version: str
    state: ModelState
    reason: str = ""
    spec: ModelSpec | None = None


class Models(Protocol):
    """The models on offer, as a door sees them."""

    def find(self, name: str, version: str = "") -> ModelStatus | None:
        """A version of a model; without one, the newest that is ready. None when there is no such thing."""

    def index(self) -> list[ModelStatus]:
        """Every version known."""

    async def load(self, name: str) -> None:
        """Read a model (anew) and put it on offer. Raises ModelError, whose text is for the caller."""

    async def unload(self, name: str) -> None:
        """Take a model off offer. Raises ModelError when there is no such model."""


class ModelError(Exception):
    """A model that cannot be read, measured or found; the text says what is wrong and what to do."""


@value
class Inspection:
    """What loading a model once has shown: its tensors, whether rows may be batched, and its profile."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool
    profile: Profile
    pack: str = ""
    """The name of the packed model's file, where it was packed and measured in that form."""


NO_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType({})


class Inspector(Protocol):
    """Loads a model apart from the executors, to see whether it works and what it costs."""

    async def inspect(
        self, path: str, batch_max: int, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES, pack_into: str = ""
    ) -> Inspection:
        """Load, warm up and measure. Raises ModelError; a model that crashes takes nothing with it.

        Given an empty folder to `pack_into`, the model is brought into the form whose weights executors share.

        `shapes` says, by input, with which shape to measure where the model leaves a dimension open; it is the
        whole shape, with 1 for the batch.
        """
