"""Every limit of the HTTP door, by name. Reaching one is a status on the wire, never a crash."""

from __future__ import annotations

from slotwise.edges.oip.codec import Bounds
from slotwise.facts.limits import check_limits
from slotwise.facts.units import S
from slotwise.facts.value import value

MIB = 1 << 20
GZIP_LEVEL_MAX = 9


@value
class Limits:
    """Bounds of one door. Beyond them: 413 for sizes, 431 for heads, 408 for slow senders, 503 for all that passes."""

    connections_max: int = 1024
    requests_max: int = 10_000
    """Requests handed to the engine and not yet answered."""
    body_bytes_max: int = 64 * MIB
    """Of one request, inflated."""
    collected_bytes_max: int = 512 * MIB
    """Of all bodies together that are being put together in this process's memory; those streamed do not count."""
    head_bytes_max: int = 64 << 10
    """Of a request's line and headers, checked once per read of the socket."""
    json_bytes_max: int = 16 * MIB
    """Of the JSON of one request: its values take many times their size, and nobody else is served meanwhile."""
    rows_max: int = 1024
    management_bytes_max: int = MIB
    """Of a body sent to any route but inference."""
    stream_bytes_min: int = 64 << 10
    """Binary bodies of at least this length go to shared memory as they arrive, piece by piece."""
    shared_memory: bool = False
    """Whether clients may register shared memory of theirs. Any of them can then name any that the server may open."""
    generated_inputs: bool = False
    """Whether requests may leave their inputs to be made of zeros here, which is for trials of load."""
    regions_max: int = 64
    """Regions of shared memory that clients may have registered, all of them together."""
    routes_max: int = 4096
    """URLs whose model is remembered."""
    gzip_bytes_min: int = 1024
    gzip_bytes_max: int = MIB
    """Answers below and above go uncompressed even where gzip is asked for: the loop would wait for it."""
    gzip_level: int = 1
    keep_alive_s: float = 30.0
    """How long a connection may idle."""
    read_s: float = 60.0
    """How long a request may take to arrive, from its first byte."""
    write_s: float = 60.0
    """How long a client may leave an answer unread."""
    linger_s: float = 2.0
    """How long what a refused client still sends is read and thrown away, so that it gets to see the reply."""
    retry_after_ns: int = S
    """When to come again, where the engine does not say."""

    def __post_init__(self) -> None:
        """Raise ValueError, which names the limit, for a value that none can have."""
        sizes = ("stream_bytes_min", "gzip_bytes_min", "gzip_bytes_max", "gzip_level", "linger_s")
        check_limits(self, may_be_zero=("shared_memory", "generated_inputs", *sizes))
        if self.gzip_level > GZIP_LEVEL_MAX:
            raise ValueError(f"`gzip_level` is {self.gzip_level}; it must be 0 (none) to {GZIP_LEVEL_MAX} (most)")

    def bounds(self) -> Bounds:
        """What holds for a single request."""
        return Bounds(
            rows_max=self.rows_max,
            tensor_bytes_max=self.body_bytes_max,
            json_bytes_max=self.json_bytes_max,
            generated_inputs=self.generated_inputs,
        )


LIMITS = Limits()
