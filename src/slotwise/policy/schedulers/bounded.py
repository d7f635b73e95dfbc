"""First in, first out, with short queues: the best that servers without deadlines can be tuned to.

A request that finds `queue_max` of its model waiting is refused; whoever is let in is served, late or not. The
right bound depends on the models, the load and the deadlines, and is found by trying.
"""

from __future__ import annotations

from slotwise.policy.schedulers.fifo import FifoSettings

QUEUE_MAX = 8


def bounded(queue_max: int = QUEUE_MAX) -> FifoSettings:
    """Settings of `Fifo` with queues of at most `queue_max` requests a model."""
    return FifoSettings(queue_max=queue_max)
