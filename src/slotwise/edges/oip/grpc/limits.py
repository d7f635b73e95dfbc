"""Every limit of the gRPC door, by name, and what its process is told. Reaching a limit is a status, never a crash."""

from __future__ import annotations

import msgspec

from slotwise.edges.local.limits import FRAME_BYTES_MOST, LocalLimits
from slotwise.edges.oip.tls import Tls
from slotwise.facts.limits import check_limits
from slotwise.facts.units import S
from slotwise.facts.value import value

MIB = 1 << 20
GATE_CONNECTIONS_MAX = 4
"""The gRPC door has one connection; its successor may come before the end of its own has been noticed."""


@value
class GrpcLimits:
    """Bounds of the gRPC door. Beyond those of calls: RESOURCE_EXHAUSTED for sizes, UNAVAILABLE for all that passes."""

    message_bytes_max: int = 64 * MIB
    """Of one message, inflated."""
    requests_max: int = 512
    """Under way; one more is told `queue_full`."""
    memory_bytes: int = 256 * MIB
    """Of shared memory for inputs under way; what finds no room there is told `no_room`."""
    outputs_bytes: int = 256 * MIB
    """Of shared memory for outputs that are on their way out; as for inputs."""
    calls_max: int = 4096
    """Open at once, streams and health watchers included."""
    stream_requests_max: int = 64
    """Under way within one stream; it is not read from while there are so many."""
    retry_after_ns: int = S
    """When to come again, where the server has not been asked."""
    start_s_max: float = 30.0
    """How long the process may take to be ready; then it is killed and another one started."""
    restart_s_min: float = 0.05
    restart_s_max: float = 5.0
    """The pause before a successor grows from the one to the other while processes die young."""
    settled_s: float = 10.0
    """A process that lived so long did not die young."""
    linger_s: float = 0.5
    """How long, at the end, the last answers may take to be sent."""
    close_s_max: float = 5.0
    """How long the process may take to end, once nothing is under way; then it is killed."""

    def __post_init__(self) -> None:
        """Raise ValueError, which names the limit, for a value that none can have."""
        check_limits(self, may_be_zero=("linger_s", "settled_s"))


GRPC_LIMITS = GrpcLimits()


class DoorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told when it is started."""

    host: str
    port: int
    """0 takes a free one."""
    upstream: str = ""
    """Path of the Unix socket on which the server's HTTP door listens; the keeper chooses it."""
    channel: str = ""
    """Path of the local channel that is this door's own; the keeper chooses it."""
    upstream_idle_s: float
    """How long a connection to it is kept for the next request; less than the other side does."""
    patience_s: float
    """How long calls under way are waited for at the end."""
    tls: Tls | None = None
    limits: GrpcLimits


class Ready(msgspec.Struct, frozen=True):
    """The one line that the process says, when it listens or when it cannot."""

    port: int = 0
    error: str = ""


def gate_limits(limits: GrpcLimits) -> LocalLimits:
    """Those of the local door that the gRPC door has to itself."""
    return LocalLimits(
        connections_max=GATE_CONNECTIONS_MAX,
        requests_max=limits.requests_max,
        memory_bytes_max=limits.memory_bytes,
        outputs_bytes=limits.outputs_bytes,
        frame_bytes_max=FRAME_BYTES_MOST,
        retry_after_ns=limits.retry_after_ns,
    )
