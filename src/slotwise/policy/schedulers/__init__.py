"""One file for each way to choose the next batch, and the table of their names.

To add a scheduler is one file and one line here. A preset is a scheduler's class with settings and a way to
estimate; `slotwise.policy.presets` makes controllers of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from slotwise.facts.value import value
from slotwise.policy.estimates import EstimateSettings
from slotwise.policy.schedulers import clockwork
from slotwise.policy.schedulers.bounded import bounded
from slotwise.policy.schedulers.clipper import Clipper, ClipperSettings
from slotwise.policy.schedulers.clockwork import Clockwork
from slotwise.policy.schedulers.deferred import Deferred, DeferredSettings
from slotwise.policy.schedulers.edf import Edf, EdfSettings
from slotwise.policy.schedulers.fifo import Fifo, FifoSettings
from slotwise.policy.schedulers.infaas import Infaas, InfaasSettings
from slotwise.policy.schedulers.slotwise import Slotwise, SlotwiseSettings
from slotwise.policy.scheduling import Scheduler
from slotwise.policy.view import View

S = TypeVar("S")


@value
class Preset(Generic[S]):
    """A scheduler by name: what makes it, the settings it is made with, and how latencies are estimated for it."""

    build: Callable[[View, S], Scheduler]
    settings: S
    estimates: EstimateSettings
    summary: str


SCHEDULERS: dict[str, Preset[Any]] = {
    "slotwise": Preset(
        build=Slotwise,
        settings=SlotwiseSettings(),
        estimates=EstimateSettings(),
        summary="promise every request a slot on arrival, or refuse it at once",
    ),
    "clockwork": Preset(
        build=Clockwork,
        settings=clockwork.mended(),
        estimates=clockwork.MENDED_ESTIMATES,
        summary="Clockwork as in its paper: earliest latest start first, full batches, drops at the deadline",
    ),
    "clockwork-published": Preset(
        build=Clockwork,
        settings=clockwork.published(),
        estimates=clockwork.PUBLISHED_ESTIMATES,
        summary="Clockwork with the defects of its published code",
    ),
    "fifo": Preset(
        build=Fifo,
        settings=FifoSettings(),
        estimates=EstimateSettings(),
        summary="first in, first out, refusing nothing",
    ),
    "edf": Preset(
        build=Edf,
        settings=EdfSettings(),
        estimates=EstimateSettings(),
        summary="earliest deadline first, giving up what is late when its turn comes",
    ),
    "deferred": Preset(
        build=Deferred,
        settings=DeferredSettings(),
        estimates=EstimateSettings(),
        summary="batches wait as long as waiting can make them larger",
    ),
    "bounded": Preset(
        build=Fifo,
        settings=bounded(),
        estimates=EstimateSettings(),
        summary="first in, first out, with short queues",
    ),
    "clipper": Preset(
        build=Clipper,
        settings=ClipperSettings(),
        estimates=EstimateSettings(),
        summary="first in, first out, in batches of a size learned for each model",
    ),
    "infaas": Preset(
        build=Infaas,
        settings=InfaasSettings(),
        estimates=EstimateSettings(),
        summary="first in, first out; larger batches and then more copies where the last period's load was too much",
    ),
}
"""Every scheduler by the name that users give."""
