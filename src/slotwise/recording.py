"""Records what was asked: from the journal of a live or a simulated run to a record that is a workload again.

The form of the record is in `workload/recorded.py`. Requests to pipelines are recorded as they were asked; their steps,
which the server made, are not.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from slotwise.engine.timeline import Decode, read_moments
from slotwise.facts.events import Arrived, PipelineEnded
from slotwise.facts.types import FOREVER_NS, PRIORITY_DEFAULT
from slotwise.workload.values import Arrival


class _Asked(msgspec.Struct):
    """What of a request counts here."""

    id: int
    model: str
    arrival_ns: int
    deadline_ns: int
    rows: int = 1
    priority: int = PRIORITY_DEFAULT
    step_of: msgspec.Raw | None = None


class _Told(msgspec.Struct):
    """An event about a request."""

    request: _Asked


_decode = msgspec.json.Decoder(_Told).decode
_DECODERS: dict[str, Decode] = {kind.__name__: _decode for kind in (Arrived, PipelineEnded)}


def arrivals_of(journal: Iterable[bytes]) -> list[Arrival]:
    """What a journal's clients asked, in order of time; the first request is at 0.

    Raises JournalError; a torn last line is left out, and so is a pipeline's request without an end.
    """
    asked = [
        told.request
        for _, told in read_moments(journal, _DECODERS)
        if isinstance(told, _Told) and told.request.step_of is None
    ]
    asked.sort(key=lambda request: (request.arrival_ns, request.id))
    return [_arrival(request, asked[0].arrival_ns) for request in asked]


def _arrival(request: _Asked, start_ns: int) -> Arrival:
    slo_ns = FOREVER_NS if request.deadline_ns >= FOREVER_NS else max(1, request.deadline_ns - request.arrival_ns)
    return Arrival(
        at_ns=request.arrival_ns - start_ns,
        model=request.model,
        slo_ns=slo_ns,
        rows=request.rows,
        priority=request.priority,
    )
