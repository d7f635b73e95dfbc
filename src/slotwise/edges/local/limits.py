"""Every limit of the local channel, by name. Reaching one is told to the client, in words and with a status."""

from __future__ import annotations

from slotwise.facts.limits import check_limits
from slotwise.facts.units import S
from slotwise.facts.value import value

MIB = 1 << 20
FRAME_BYTES_LEAST = 4096
FRAME_BYTES_MOST = 192 << 10
"""What the socket buffers of a stock system hold of one message."""


@value
class LocalLimits:
    """Bounds of the local channel, for each client where they do not say otherwise."""

    connections_max: int = 64
    """Of all clients together; one more is told 503 and closed."""
    requests_max: int = 256
    """Under way on one connection; one more is told 503 `queue_full`."""
    memory_bytes_max: int = 256 * MIB
    """Of the memory that a client brings for its inputs; one with more is told 400 and closed."""
    outputs_bytes: int = 64 * MIB
    """Of the memory that the server lends a client for its outputs; what finds no room there is told 503 `no_room`."""
    frame_bytes_max: int = 64 << 10
    """Of one frame; a longer one is told 413 and its connection closed."""
    frames_per_turn: int = 64
    """Read from one client before others are looked at."""
    hello_s: float = 5.0
    """How long a client may take to say who it is; then its connection is closed."""
    linger_s: float = 2.0
    """How long a client that is let go of may take to read why."""
    retry_after_ns: int = S
    """When to come again, where the engine does not say."""
    uids: tuple[int, ...] = ()
    """Users that may connect; none named means the server's own and root."""

    def __post_init__(self) -> None:
        """Raise ValueError, which names the limit, for a value that none can have."""
        check_limits(self)
        if not FRAME_BYTES_LEAST <= self.frame_bytes_max <= FRAME_BYTES_MOST:
            raise ValueError(
                f"`frame_bytes_max` is {self.frame_bytes_max}; it must be {FRAME_BYTES_LEAST} to {FRAME_BYTES_MOST}"
            )


LOCAL_LIMITS = LocalLimits()
