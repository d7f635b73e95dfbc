"""What a fleet of processes is told: the slices to make executors for, and every limit."""

from __future__ import annotations

from slotwise.facts.limits import check_limits
from slotwise.facts.value import value

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
RING_UNIT_BYTES = 8
RING_BYTES_MIN = 4 * KIB
NICE_MAX = 19


@value
class CoreSlice:
    """One executor's share of the machine.

    It is bound to `cores` (to none in particular if empty) and may hold models of `memory_bytes` in all, counted in
    pages of `page_bytes`. A run uses as many threads as there are cores unless `threads` says otherwise.
    """

    executor: str
    cores: tuple[int, ...]
    memory_bytes: int
    page_bytes: int = 1
    threads: int | None = None


@value
class FleetLimits:
    """Every limit of the fleet. Reaching one is said in its comment."""

    ring_bytes: int = 256 * KIB
    """Each of an executor's three rings. A batch whose description is longer than half of it fails."""
    backlog_max: int = 1024
    """Commands that wait for room in a ring. One more, and the executor is replaced as hung."""
    outputs_bytes: int = 64 * MIB
    """An executor's segment for outputs. A batch with an output larger than it fails."""
    outputs_wait_ns: int = 1_000_000_000
    """How long an executor waits for the front to give back room for outputs; then the batch fails."""
    bind_bytes_min: int = 64 * KIB
    """Outputs from this size on are written by the runtime straight into the segment, where the shape allows."""
    nice: int = 10
    """How far below the front's priority executors run, so that a busy machine still answers."""
    start_s_max: float = 60.0
    """How long an executor may take to be ready; then it is killed and another one started."""
    zygote_answer_s_max: float = 30.0
    """How long the zygote may take to start, and to answer; then it and all its children are replaced."""
    restart_s_min: float = 0.05
    restart_s_max: float = 5.0
    """The pause before a successor grows from the one to the other while processes die young."""
    settled_s: float = 10.0
    """A process that lived so long did not die young."""
    close_s_max: float = 10.0
    """How long ended executors are waited for at the close; then the zygote's end takes them along."""
    inspect_budget_ns: int = 600_000_000
    """About how long the timed runs of an inspection take in all; larger batches are then not measured."""
    inspect_s_max: float = 120.0
    """How long an inspection may take; then it is killed and the model refused."""
    inspect_memory_bytes: int = 8 * GIB
    """How much memory an inspection may take; a model that needs more is refused."""

    def __post_init__(self) -> None:
        """Raise ValueError, which names the limit, for a value that none can have."""
        check_limits(self, may_be_zero=("bind_bytes_min", "nice", "outputs_wait_ns", "settled_s"))
        if self.ring_bytes < RING_BYTES_MIN or self.ring_bytes % RING_UNIT_BYTES:
            raise ValueError(
                f"`ring_bytes` is {self.ring_bytes};"
                f" it must be a multiple of {RING_UNIT_BYTES}, and {RING_BYTES_MIN} or more"
            )
        if self.nice > NICE_MAX:
            raise ValueError(f"`nice` is {self.nice}; it must be 0 to {NICE_MAX}")
