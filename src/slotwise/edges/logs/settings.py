"""What the logs are told: where to, in which format, and every limit."""

from __future__ import annotations

from typing import Literal

from slotwise.facts.limits import check_limits
from slotwise.facts.value import value

MIB = 1 << 20


@value
class Logs:
    """Where logs go and how much they may take. There are none while `folder` is empty."""

    folder: str = ""
    format: Literal["csv", "parquet"] = "csv"
    bytes_max: int = 64 * MIB
    """Of a file; then the next one is begun. A file may be longer by one write."""
    files_max: int = 8
    """Of each of the logs; then the oldest is deleted."""
    rows_max: int = 100_000
    """Of each log, waiting to be written. One more is lost, and counted."""
    refused_per_s: float = 10.0
    """Rows a second of what doors turn away; the rest is counted only."""
    refused_burst: int = 100
    """How many of them may come at once."""
    write_s: float = 0.2
    """How long rows are gathered before they are written."""
    close_s_max: float = 5.0
    """How long the disk is waited for at the close; what is not written by then is lost."""

    def __post_init__(self) -> None:
        """Raise ValueError, which names the limit, for a value that none can have."""
        check_limits(self)
