"""The server's journal as a figure and a trace, with the demo's phases as scenes."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from slotwise.demo.load import Act, Kill
from slotwise.demo.report import PhaseReport
from slotwise.demo.server import DemoError
from slotwise.edges.plots.perfetto import trace
from slotwise.engine.timeline import read_timeline
from slotwise.facts.timeline import Mark, Scene, Timeline
from slotwise.facts.units import MS

TITLE = "Slotwise: every batch of every slice"


def require_library() -> None:
    """Raise DemoError, before anything is run, when there would be no picture at the end."""
    if importlib.util.find_spec("matplotlib") is None:
        raise DemoError("pictures need matplotlib; install it with: pip install 'slotwise[demo]'")


def scenes(acts: Sequence[Act], phases: Sequence[PhaseReport], clock_offset_ns: int) -> list[Scene]:
    """The phases on the engine's clock."""
    return [
        Scene(
            name=f"{phase.load:g}x",
            caption=f"{phase.offered:.0f}/s asked, {phase.goodput:.0f}/s answered in time",
            start_ns=act.played.started_ns + clock_offset_ns,
            end_ns=act.played.ended_ns + clock_offset_ns,
        )
        for act, phase in zip(acts, phases, strict=True)
    ]


def read(journal: Path) -> Timeline:
    """The journal's timeline. Raises JournalError."""
    with journal.open("rb") as file:
        return read_timeline(file)


def away_ms(timeline: Timeline, executor: str, since_ns: int) -> float | None:
    """How long an executor was gone that was killed at an instant of the engine's clock; None if it stayed away."""
    for loss in timeline.losses:
        if loss.executor == executor and loss.lost_ns >= since_ns and loss.back_ns is not None:
            return (loss.back_ns - since_ns) / MS
    return None


def kill_mark(kill: Kill, away: float | None, clock_offset_ns: int) -> Mark:
    """The kill, to be drawn."""
    text = f"{kill.executor} killed" + (f", replaced after {away:.0f} ms" if away is not None else "")
    return Mark(executor=kill.executor, at_ns=kill.killed_ns + clock_offset_ns, text=text)


def write(timeline: Timeline, shown: Sequence[Scene], mark: Mark, figure: Path, trace_file: Path, said: str) -> None:
    """Write both files. The library for figures is heavy, so it is loaded only here."""
    from slotwise.edges.plots.timeline import draw

    trace_file.write_bytes(trace(timeline, shown, [mark]))
    draw(timeline, shown, [mark], figure, title=TITLE, subtitle=said)
