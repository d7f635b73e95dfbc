"""What the traces are told: where to, how many, and every limit."""

from __future__ import annotations

from slotwise.facts.limits import check_limits
from slotwise.facts.value import value


@value
class Traces:
    """Where spans go. There are none while `endpoint` is empty."""

    endpoint: str = ""
    """URL of a collector that speaks OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`."""
    ratio: float = 0.01
    """The share of requests that are traced, of those that bring no trace of their client's; those follow that."""
    requests_max: int = 10_000
    """Traced ones that wait to be sent. One more is lost, and counted."""
    send_s: float = 1.0
    """How long spans are gathered before they are sent."""
    answer_s_max: float = 5.0
    """How long the collector is waited for; what it has not taken by then is lost."""
    close_s_max: float = 5.0
    """How long the last spans are waited for at the close."""

    def __post_init__(self) -> None:
        """Raise ValueError, which names the field, for a value that none can have."""
        check_limits(self, may_be_zero=("ratio",))
        if self.ratio > 1:
            raise ValueError(f"`ratio` is {self.ratio}; it is a share, 1 at most")
