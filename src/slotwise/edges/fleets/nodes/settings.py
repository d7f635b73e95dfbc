"""What a front is told of its nodes, and a node of its front: addresses, the secret, and every limit of both."""

from __future__ import annotations

from slotwise.facts.limits import check_limits
from slotwise.facts.value import value

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
PORT_MAX = 65_535


class AddressError(ValueError):
    """An address that is none; the text says what one looks like."""


@value
class Nodes:
    """Nodes, and limits. A node reads the limits of the same table."""

    addresses: tuple[str, ...] = ()
    """Nodes to use, each as `NAME=HOST:PORT`; their executors are called `NAME:core0` and so on."""
    only: bool = False
    """Have no executors on this machine."""
    token_file: str = ""
    """File with the secret that front and nodes share."""
    start_s: float = 10.0
    """How long nodes are waited for at the start; those that come later join later."""
    retry_s_min: float = 0.1
    retry_s_max: float = 5.0
    """The pause before a lost node is tried again grows from the one to the other."""
    hello_s: float = 5.0
    """How long either side may take to prove that it knows the secret."""
    silence_s_max: float = 5.0
    """One that says nothing for so long is taken for lost; a front says something every `ping_s`."""
    ping_s: float = 0.25
    """How often a front asks a node for the time, which also keeps the estimate of its clock fresh."""
    clock_samples: int = 16
    """Round trips that an estimate of a clock is made from."""
    frame_bytes_max: int = 256 * MIB
    """The tensors of one batch together. A larger one fails, and a larger answer too."""
    backlog_bytes_max: int = 64 * MIB
    """What may be on its way to a node at once; a batch beyond it is returned as too late."""
    probe_bytes: int = 64 * KIB
    """What is sent to learn how fast a link is."""
    chunk_bytes: int = 64 * KIB
    """Weights are sent in pieces of this size,"""
    chunks_max: int = 4
    """so many on their way at once, between which batches find room."""
    fetch_s_max: float = 50.0
    """A load whose weights take longer to come is returned as too late; they go on coming, for the next one."""
    cache: str = ""
    """Folder where a node keeps weights; `~/.cache/slotwise/weights` when empty."""
    cache_bytes_max: int = 64 * GIB
    """Weights that a node keeps on disk; beyond it those longest unused go."""
    connections_max: int = 16
    """Connections at a node that have not proved anything yet; one more is closed."""

    def __post_init__(self) -> None:
        """Raise ValueError, which names the limit, for a value that none can have."""
        check_limits(self, may_be_zero=("only",))


NODES = Nodes()


@value
class Address:
    """A node's name for its front, and where it listens."""

    name: str
    host: str
    port: int


def read_addresses(texts: tuple[str, ...]) -> list[Address]:
    """Raises AddressError for a text that is no address, and for a name that stands twice."""
    found = [read_address(text) for text in texts]
    names = [address.name for address in found]
    for name in names:
        if names.count(name) > 1:
            raise AddressError(f"two nodes are called {name!r}; give each a name of its own")
    return found


def read_address(text: str) -> Address:
    """`NAME=HOST:PORT`. Raises AddressError."""
    name, _, where = text.rpartition("=")
    host, port = read_endpoint(where)
    if not name or ":" in name:
        raise AddressError(f"{text!r} names no node; write it as NAME=HOST:PORT")
    return Address(name=name, host=host, port=port)


def read_endpoint(text: str) -> tuple[str, int]:
    """`HOST:PORT`, where an IPv6 address stands in brackets. Raises AddressError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > PORT_MAX:
        raise AddressError(f"{text!r} is no address; write it as HOST:PORT")
    return host, int(port)
