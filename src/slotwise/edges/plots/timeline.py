"""Draws a timeline: who ran what when, which deadlines were met, and which executor was lost. Needs matplotlib.

At the top, how requests ended over the whole run, and every executor's lane below it; then one close look at each
scene, in which single batches can be told apart and every request has a mark at its deadline. Colours of models run
from the cheapest to the dearest, the same in every part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from slotwise.facts.timeline import Asked, Bar, Loss, Mark, Scene, Timeline
from slotwise.facts.types import Outcome
from slotwise.facts.units import MS, S
from slotwise.facts.value import value

PALETTE = (
    *("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#eeca3b", "#b279a2", "#9d755d", "#ff9da6", "#79706e"),
    *("#9ecae9", "#ffbf79", "#88d27a", "#d67195", "#439894", "#b79a20", "#d6a5c9", "#d8b5a5", "#6b4c9a", "#2f4b7c"),
)
INK, SOFT, FAINT, PAPER = "#22303c", "#51606e", "#8a97a3", "#ffffff"
MET, MISSED, REFUSED, KILL, AWAY = "#2e8b57", "#d62728", "#9aa5b1", "#c2185b", "#fbe3ec"
ENDINGS: dict[str, tuple[str, tuple[Outcome, ...]]] = {
    "in time": (MET, (Outcome.IN_TIME,)),
    "late": ("#f0a030", (Outcome.LATE, Outcome.DROPPED)),
    "failed": (MISSED, (Outcome.FAILED, Outcome.CANCELLED)),
    "refused at once": ("#d5dbe1", (Outcome.REFUSED,)),
}
"""What the upper strip tells apart, from the bottom up."""
FONT_SIZE = 9.5
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": FONT_SIZE,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
LEFT, RIGHT = 0.056, 0.985
WIDTH_INCHES, HEIGHT_INCHES, DOTS_PER_INCH = 19.0, 11.5, 120
BIN_S = 0.25
ZOOM_NS = S
BEFORE_MARK_SHARE = 0.3
"""Of a close look with a mark in it: how much of it lies before the mark."""
LANE, HALF_BAR, DEADLINES_BELOW, HALF_TICK = 1.0, 0.26, 0.39, 0.07
"""In a lane of height 1: half a bar's height, how far below its middle the deadlines are, half their height."""
LETTERS_PER_LOOK = 100
"""How many letters of a label a close look is wide."""
LANE_NAME_LETTERS = 12
"""Of longer names the letters are smaller."""
LETTERS_MIN = 5
"""A bar with room for fewer letters stays without a label."""


@value
class _Paint:
    """What every part of the figure needs."""

    timeline: Timeline
    colours: dict[str, str]
    lanes: dict[str, int]
    """Heights of executors' middles, the first on top; 0 is the lane of those that never ran."""
    base_ns: int
    """The instant that the axes call 0."""
    marks: Sequence[Mark]

    def seconds(self, instant_ns: int) -> float:
        """An instant on the axes."""
        return (instant_ns - self.base_ns) / S


def draw(
    timeline: Timeline, scenes: Sequence[Scene], marks: Sequence[Mark], path: Path, *, title: str, subtitle: str
) -> None:
    """Write the figure as PNG. Scenes are in order of time, and there is one at least."""
    assert scenes, "there is something to look at"
    paint = _Paint(
        timeline=timeline,
        colours=colours(timeline),
        lanes={name: len(timeline.executors) - index for index, name in enumerate(timeline.executors)},
        base_ns=scenes[0].start_ns,
        marks=marks,
    )
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # its stubs want the keys spelled out in the type
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DOTS_PER_INCH, facecolor=PAPER)
        FigureCanvasAgg(figure)
        figure.text(LEFT, 0.957, title, fontsize=19, fontweight="bold")
        figure.text(LEFT, 0.931, subtitle, fontsize=11.5, color=SOFT)
        _overview(figure, paint, scenes)
        close = figure.add_gridspec(1, len(scenes), left=LEFT, right=RIGHT, top=0.475, bottom=0.165, wspace=0.06)
        for column, scene in enumerate(scenes):
            _close_look(figure.add_subplot(close[0, column]), paint, scene, is_first=column == 0)
        _legend(figure, paint)
        figure.savefig(path)


def colours(timeline: Timeline) -> dict[str, str]:
    """A colour for each model that ran, from the cheapest to the dearest by their usual time."""
    times: dict[str, list[int]] = defaultdict(list)
    for bar in timeline.bars:
        times[bar.model].append(bar.ended_ns - bar.started_ns)
    ranked = sorted(times, key=lambda model: (float(np.median(times[model])), model))
    unseen = sorted({asked.model for asked in timeline.asked} - times.keys())
    return {model: PALETTE[index % len(PALETTE)] for index, model in enumerate([*ranked, *unseen])}


# The overview.


def _overview(figure: Figure, paint: _Paint, scenes: Sequence[Scene]) -> None:
    grid = figure.add_gridspec(
        2, 1, left=LEFT, right=RIGHT, top=0.865, bottom=0.565, hspace=0.06, height_ratios=(1, 1.15)
    )
    flow = figure.add_subplot(grid[0])
    lanes = figure.add_subplot(grid[1], sharex=flow)
    span_s = (paint.seconds(scenes[0].start_ns), paint.seconds(scenes[-1].end_ns))
    _flow(flow, paint, span_s)
    for scene in scenes:
        _scene(flow, lanes, paint, scene)
    _bars(lanes, paint, paint.timeline.bars, edge=0.0)
    _losses(lanes, paint, has_text=False)
    _lane_names(lanes, paint, lowest=1)
    lanes.set_xlim(span_s[0] - 0.3, span_s[1] + 0.3)
    lanes.set_xlabel("seconds since the first phase began; the yellow stretches are enlarged below", labelpad=2)
    flow.tick_params(labelbottom=False, bottom=False)


def _scene(flow: Axes, lanes: Axes, paint: _Paint, scene: Scene) -> None:
    left_s, right_s = paint.seconds(scene.start_ns), paint.seconds(scene.end_ns)
    above = flow.get_xaxis_transform()
    middle_s = (left_s + right_s) / 2
    flow.text(middle_s, 1.15, scene.name, transform=above, ha="center", fontsize=12.5, fontweight="bold")
    flow.text(middle_s, 1.04, scene.caption, transform=above, ha="center", fontsize=10, color=SOFT)
    start_ns, end_ns = _window(paint, scene)
    for axes in (flow, lanes):
        axes.axvspan(left_s, right_s, color="#f4f6f8", zorder=-2)
    lanes.axvspan(paint.seconds(start_ns), paint.seconds(end_ns), color="#ffe9a8", zorder=-1)


def _flow(axes: Axes, paint: _Paint, span_s: tuple[float, float]) -> None:
    """Requests a second by how they ended, at the instant of their arrival."""
    edges = np.arange(span_s[0], span_s[1] + BIN_S, BIN_S)
    floor = np.zeros(len(edges) - 1)
    for name, (colour, outcomes) in ENDINGS.items():
        instants = [paint.seconds(asked.arrival_ns) for asked in paint.timeline.asked if asked.outcome in outcomes]
        rates = np.histogram(instants, edges)[0] / BIN_S
        axes.bar(edges[:-1], rates, BIN_S, floor, align="edge", color=colour, label=name, linewidth=0)
        floor += rates
    axes.set_ylabel("requests/s\nby ending")
    axes.set_ylim(0, max(1.0, float(floor.max(initial=0)) * 1.04))
    axes.legend(loc="upper left", ncols=1, frameon=False, fontsize=9, handlelength=1.1, borderaxespad=0.1)
    axes.grid(visible=True, axis="y", color="#e3e8ec", linewidth=0.6)
    axes.set_axisbelow(True)


# A close look.


def _close_look(axes: Axes, paint: _Paint, scene: Scene, *, is_first: bool) -> None:
    start_ns, end_ns = _window(paint, scene)
    bars = [bar for bar in paint.timeline.bars if bar.ended_ns >= start_ns and bar.started_ns <= end_ns]
    _bars(axes, paint, bars, edge=0.6)
    for bar in bars:
        _label(axes, paint, bar, start_ns, end_ns)
    asked = [one for one in paint.timeline.asked if scene.start_ns <= one.arrival_ns <= scene.end_ns]
    _deadlines(axes, paint, asked, start_ns, end_ns)
    _losses(axes, paint, has_text=True)
    _lane_names(axes, paint, lowest=0, is_named=is_first)
    axes.set_xlim(paint.seconds(start_ns), paint.seconds(end_ns))
    axes.set_title(
        f"{scene.name}, enlarged: {(end_ns - start_ns) / MS:.0f} ms", fontsize=11.5, fontweight="bold", loc="left"
    )
    axes.set_facecolor("#fffdf5")
    axes.set_xlabel("seconds", labelpad=2)


def _window(paint: _Paint, scene: Scene) -> tuple[int, int]:
    """What is enlarged of a scene: around its first mark, or its middle."""
    width_ns = min(ZOOM_NS, scene.end_ns - scene.start_ns)
    wanted_ns = (scene.start_ns + scene.end_ns - width_ns) // 2
    marked = [mark.at_ns for mark in paint.marks if scene.start_ns <= mark.at_ns <= scene.end_ns]
    if marked:
        wanted_ns = marked[0] - round(width_ns * BEFORE_MARK_SHARE)
    start_ns = min(max(wanted_ns, scene.start_ns), scene.end_ns - width_ns)
    return start_ns, start_ns + width_ns


def _bars(axes: Axes, paint: _Paint, bars: Iterable[Bar], *, edge: float) -> None:
    groups: dict[tuple[str, str, bool], list[tuple[float, float]]] = defaultdict(list)
    for bar in bars:
        extent = (paint.seconds(bar.started_ns), (bar.ended_ns - bar.started_ns) / S)
        groups[bar.executor, bar.model, bool(bar.trouble)].append(extent)
    for (executor, model, is_troubled), extents in groups.items():
        axes.broken_barh(
            extents,
            (paint.lanes[executor] - HALF_BAR, 2 * HALF_BAR),
            facecolors=paint.colours[model],
            edgecolors=INK if is_troubled else PAPER,
            linewidth=edge,
            hatch="////" if is_troubled else None,
            alpha=0.45 if is_troubled else 1.0,
        )


def _label(axes: Axes, paint: _Paint, bar: Bar, start_ns: int, end_ns: int) -> None:
    left_ns, right_ns = max(bar.started_ns, start_ns), min(bar.ended_ns, end_ns)
    letters = int((right_ns - left_ns) / (end_ns - start_ns) * LETTERS_PER_LOOK)
    if letters < LETTERS_MIN:
        return
    text = f"{_name(bar.model)} x{bar.rows}" if bar.rows > 1 else _name(bar.model)
    axes.text(
        paint.seconds((left_ns + right_ns) // 2),
        paint.lanes[bar.executor],
        text if len(text) <= letters else text[: max(1, letters - 1)] + "\N{HORIZONTAL ELLIPSIS}",
        ha="center",
        va="center",
        fontsize=7.2,
        color=_ink_on(paint.colours[bar.model]),
        clip_on=True,
    )


def _deadlines(axes: Axes, paint: _Paint, asked: Sequence[Asked], start_ns: int, end_ns: int) -> None:
    """A mark for every request: at its deadline below the lane that answered it, or at its arrival if it never ran."""
    met: list[tuple[float, float]] = []
    missed: list[tuple[float, float]] = []
    refused: list[Asked] = []
    for one in asked:
        if one.outcome is Outcome.REFUSED and start_ns <= one.arrival_ns <= end_ns:
            refused.append(one)
        elif one.outcome not in (Outcome.REFUSED, None) and start_ns <= one.deadline_ns <= end_ns:
            height = paint.lanes[one.executor] - DEADLINES_BELOW if one.executor in paint.lanes else 0.0
            (met if one.outcome is Outcome.IN_TIME else missed).append((paint.seconds(one.deadline_ns), height))
    axes.vlines(
        [x for x, _ in met], [y - HALF_TICK for _, y in met], [y + HALF_TICK for _, y in met], colors=MET, linewidth=1.1
    )
    axes.plot([x for x, _ in missed], [y for _, y in missed], "x", color=MISSED, markersize=6, markeredgewidth=1.8)
    heights = [-0.02 - HALF_BAR, -0.02 + HALF_BAR]
    for one in refused:
        axes.plot([paint.seconds(one.arrival_ns)] * 2, heights, color=paint.colours[one.model], linewidth=1.3)


def _losses(axes: Axes, paint: _Paint, *, has_text: bool) -> None:
    """Where an executor was away, and what was done to it."""
    for loss in paint.timeline.losses:
        if loss.executor in paint.lanes:
            _loss(axes, paint, loss)
    for mark in paint.marks:
        lane, at_s = paint.lanes[mark.executor], paint.seconds(mark.at_ns)
        axes.plot([at_s] * 2, [lane - 0.45, lane + 0.36], color=KILL, linewidth=2, solid_capstyle="butt")
        if has_text:
            axes.text(
                at_s, lane + 0.37, mark.text, color=KILL, fontsize=9.5, fontweight="bold", va="bottom", clip_on=True
            )


def _loss(axes: Axes, paint: _Paint, loss: Loss) -> None:
    lost_s = paint.seconds(loss.lost_ns)
    back_s = paint.seconds(loss.back_ns if loss.back_ns is not None else paint.timeline.end_ns)
    height = (paint.lanes[loss.executor] - HALF_BAR, 2 * HALF_BAR)
    axes.broken_barh([(lost_s, back_s - lost_s)], height, facecolors=AWAY, edgecolors=KILL, hatch="xx", linewidth=0.8)


def _lane_names(axes: Axes, paint: _Paint, *, lowest: int, is_named: bool = True) -> None:
    names = {height: name for name, height in paint.lanes.items()}
    if lowest == 0:
        names[0] = "turned away"
    longest = max(map(len, names.values()), default=0)
    size = FONT_SIZE * min(1.0, LANE_NAME_LETTERS / max(1, longest))
    axes.set_yticks(list(names), list(names.values()) if is_named else [""] * len(names), fontsize=size)
    axes.set_ylim(lowest - 0.5 * LANE, len(paint.lanes) + 0.62 * LANE)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


# The legend.


def _legend(figure: Figure, paint: _Paint) -> None:
    models = [Patch(color=colour, label=_name(model)) for model, colour in paint.colours.items()]
    figure.legend(
        handles=models,
        loc="lower left",
        bbox_to_anchor=(0.05, 0.012),
        ncols=min(8, max(1, -(-len(models) // 3))),
        frameon=False,
        fontsize=9,
        title="models, from the cheapest to the dearest",
        alignment="left",
        handlelength=1.2,
        columnspacing=1.4,
    )
    marks = [
        Line2D([], [], color=MET, marker="|", markersize=10, markeredgewidth=1.6, linestyle="", label="deadline met"),
        Line2D(
            [], [], color=MISSED, marker="x", markersize=7, markeredgewidth=1.8, linestyle="", label="deadline missed"
        ),
        Line2D(
            [],
            [],
            color=REFUSED,
            marker="|",
            markersize=14,
            markeredgewidth=1.6,
            linestyle="",
            label="refused, at arrival",
        ),
        Patch(facecolor="#dddddd", edgecolor=INK, hatch="////", alpha=0.6, label="stopped or lost"),
        Patch(facecolor=AWAY, edgecolor=KILL, hatch="xx", label="executor away"),
    ]
    figure.legend(
        handles=marks,
        loc="lower right",
        bbox_to_anchor=(0.99, 0.012),
        ncols=2,
        frameon=False,
        fontsize=9,
        title="marks",
        alignment="left",
    )


def _name(model: str) -> str:
    return model.partition("/")[0]


def _ink_on(colour: str) -> str:
    """Black or white, whichever can be read on a colour."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else PAPER
