"""A whole load: look at the server's models, make the workload and its inputs, play it, and report.

It prints nothing: whoever watches is told what will be played and how it goes, and gets the report at the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from slotwise.client.pages import Pages, ServerModel
from slotwise.facts.types import FOREVER_NS
from slotwise.facts.units import MS, S
from slotwise.facts.value import value
from slotwise.load.ending import Ending
from slotwise.load.given import GivenReport, read_given
from slotwise.load.inputs import Questions, Shapes, Taken
from slotwise.load.plan import Wanted, chosen, concurrency, duration_ns, ends_when_spent, is_pattern, kinds, workload_of
from slotwise.load.report import Facts, LoadReport, report_of
from slotwise.load.sender import LINES, Asks
from slotwise.load.tally import Tally
from slotwise.load.ways import Server, pages_of, sender_of
from slotwise.workload.form import Made
from slotwise.workload.player import Asking, player_of
from slotwise.workload.recorded import written
from slotwise.workload.values import Arrival

if TYPE_CHECKING:
    from slotwise.load.ways import AnySender

LINES_MOST = 1000
"""So many clients in a closed loop have a connection each where no number is given."""
ANSWER_S_MAX = 15.0
MARGIN_NS = 1 * MS
LOOK_S = 0.5
RECORDED_AT_ONCE = 512
"""Requests that are written to a record in one go."""


@value
class Settings:
    """What a load can be told, beside what is played."""

    server: Server
    models: tuple[str, ...] = ()
    """Names and patterns, in order; all models without any."""
    slo_ns: int | None = None
    seconds: float | None = None
    connections: int | None = None
    seed: int = 1
    shapes: Shapes = field(default_factory=dict)
    inputs: Path | None = None
    """A file of samples to ask with; without it inputs are made."""
    margin_ns: int = MARGIN_NS
    """What the server is told less than a request's allowance, for the way there and back."""
    answer_s_max: float = ANSWER_S_MAX
    """A request without a reply after this is unanswered."""


@value
class Prepared:
    """What will be played."""

    about: str
    models: Sequence[str]
    taken: Sequence[Taken]
    """Shapes that the server leaves open."""
    given: Sequence[GivenReport]
    """The samples of a file of inputs."""
    connections: int
    seconds: float | None
    """None where it has no end of its own."""


@value
class Look:
    """How a load goes. Counts are since its start."""

    seconds: float
    ended: int
    """Requests that have ended, in whatever way."""
    in_time: int
    unanswered: int
    under_way: int
    waiting: int
    trouble: str
    """Why the server cannot be reached; empty while it can."""


@value
class Watcher:
    """Who is told of what will be played, and how it goes."""

    prepared: Callable[[Prepared], None]
    look: Callable[[Look], None]


async def play(
    settings: Settings, wanted: Wanted, watcher: Watcher, stopped: asyncio.Event, record: IO[str] | None = None
) -> LoadReport:
    """Play it and report; ends early, with what there is, when `stopped` is set. What was asked goes to `record`.

    Raises AddressError, WorkloadError, ValueError and OSError for wrong input, and the ClientError that fits.
    """
    async with AsyncExitStack() as stack:
        pages = pages_of(settings.server)
        stack.push_async_callback(pages.close)
        models = await _models(pages, settings.models)
        made = workload_of(wanted, models, seconds=settings.seconds, slo_ns=settings.slo_ns, seed=settings.seed)
        given = None if settings.inputs is None else read_given(settings.inputs, models)
        questions = Questions(models, settings.shapes, seed=settings.seed, margin_ns=settings.margin_ns, given=given)
        for arrival in kinds(made.workload):
            questions.of(arrival)
        lines = settings.connections or max(LINES, min(LINES_MOST, concurrency(made.workload)))
        sender = await sender_of(settings.server, questions, lines=lines, answer_s_max=settings.answer_s_max)
        stack.push_async_callback(sender.close)
        await sender.open()
        end_ns = duration_ns(made.workload, settings.seconds)
        reports = () if given is None else given.reports()
        watcher.prepared(
            Prepared(
                about=made.about,
                models=[model.name for model in models],
                taken=questions.taken(),
                given=reports,
                connections=lines,
                seconds=None if end_ns == FOREVER_NS else end_ns / S,
            )
        )
        report = await _played(settings, made, end_ns, sender, watcher, stopped, record)
        return msgspec.structs.replace(report, inputs=reports)


async def _models(pages: Pages, patterns: Sequence[str]) -> list[ServerModel]:
    """The models that are meant, as the server describes them. Raises WorkloadError or a ClientError."""
    needs_list = not patterns or any(is_pattern(pattern) for pattern in patterns)
    names = chosen(patterns, await pages.names() if needs_list else None)
    return await asyncio.gather(*(pages.model(name) for name in names))


async def _played(
    settings: Settings,
    made: Made,
    end_ns: int,
    sender: AnySender,
    watcher: Watcher,
    stopped: asyncio.Event,
    record: IO[str] | None,
) -> LoadReport:
    tally = Tally()
    player = player_of(made.workload)
    recorded = None if record is None else _Recorded(player, record)
    helpers = [
        asyncio.create_task(_stop_when(stopped, sender)),
        asyncio.create_task(_look_now_and_then(sender, tally, watcher.look)),
    ]
    cpu_s = time.process_time()
    try:
        run = await sender.play(recorded or player, tally.note, end_ns, ends_when_spent=ends_when_spent(made.workload))
    finally:
        for helper in helpers:
            helper.cancel()
        if recorded is not None:
            recorded.write()
    facts = Facts(
        url=settings.server.url,
        workload=made.about,
        seed=settings.seed,
        connections=sender.lines,
        cpu_s=time.process_time() - cpu_s,
        trouble=str(sender.trouble or ""),
    )
    return report_of(tally, run, facts)


async def _stop_when(stopped: asyncio.Event, sender: AnySender) -> None:
    await stopped.wait()
    sender.stop()


async def _look_now_and_then(sender: AnySender, tally: Tally, tell: Callable[[Look], None]) -> None:
    started_s = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_S)
        parts = tally.parts.values()
        tell(
            Look(
                seconds=time.monotonic() - started_s,
                ended=sum(part.offered for part in parts),
                in_time=sum(part.endings[Ending.IN_TIME] for part in parts),
                unanswered=sum(part.endings[Ending.UNANSWERED] for part in parts),
                under_way=sender.under_way,
                waiting=sender.waiting,
                trouble=str(sender.trouble or ""),
            )
        )


class _Recorded:
    """A player whose requests are written down as they are asked."""

    def __init__(self, player: Asks, file: IO[str]) -> None:
        self._player = player
        self._file = file
        self._unwritten: list[Arrival] = []
        self._has_header = False

    def due_ns(self) -> int | None:
        """As the player's."""
        return self._player.due_ns()

    def take(self) -> Asking:
        """As the player's, and noted."""
        asking = self._player.take()
        self._unwritten.append(asking.arrival)
        if len(self._unwritten) >= RECORDED_AT_ONCE:
            self.write()
        return asking

    def answered(self, asking: Asking, at_ns: int, retry_after_ns: int = 0) -> None:
        """As the player's."""
        self._player.answered(asking, at_ns, retry_after_ns)

    def write(self) -> None:
        """Write what has been noted."""
        self._file.writelines(islice(written(self._unwritten), int(self._has_header), None))
        self._unwritten.clear()
        self._has_header = True
