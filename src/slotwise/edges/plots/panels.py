"""Draws curves in panels: the figures of experiments. Needs matplotlib.

A label has one colour in all panels of a figure. The file is an SVG that is the same for the same curves, to the byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slotwise.facts.value import value

PALETTE = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#79706e", "#eeca3b", "#d67195")
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "slotwise",
    "svg.fonttype": "none",
}
PANEL_WIDTH_INCHES, PANEL_HEIGHT_INCHES, LEGEND_INCHES = 5.2, 3.2, 0.9
LEGEND_COLUMNS = 5
MARKED_MAX = 40
"""A curve of more points has no marks on them."""


@value
class Curve:
    """Points under a label. `is_reference` marks what was read off a paper's plot: dots without a line."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    is_reference: bool = False


@value
class Panel:
    """Curves over one pair of axes, which begin at 0 unless they are logarithmic."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    is_x_log: bool = False
    is_y_log: bool = False


def draw_panels(title: str, panels: Sequence[Panel], path: Path, columns: int = 2) -> None:
    """Write a figure, an SVG file."""
    rows = -(-len(panels) // columns)
    labels = list(dict.fromkeys(curve.label for panel in panels for curve in panel.curves))
    colours = {label: PALETTE[place % len(PALETTE)] for place, label in enumerate(labels)}
    height = rows * PANEL_HEIGHT_INCHES + LEGEND_INCHES
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # its stubs want the keys spelled out in the type
        figure = Figure(figsize=(columns * PANEL_WIDTH_INCHES, height), layout="constrained")
        figure.suptitle(title)
        for place, panel in enumerate(panels, start=1):
            _draw(figure.add_subplot(rows, columns, place), panel, colours)
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=LEGEND_COLUMNS, frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw(axes: Axes, panel: Panel, colours: dict[str, str]) -> None:
    for curve in panel.curves:
        colour = colours[curve.label]
        if curve.is_reference:
            axes.plot(curve.xs, curve.ys, "o", label=curve.label, color=colour, markersize=5.0, markerfacecolor="none")
        else:
            marker = "." if len(curve.xs) <= MARKED_MAX else ""
            axes.plot(curve.xs, curve.ys, marker=marker, label=curve.label, color=colour, linewidth=1.2)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    if not any(len(curve.xs) for curve in panel.curves):
        return  # nothing was run for it, and an empty axis has no logarithm
    if panel.is_x_log:
        axes.set_xscale("log")
        ticks = sorted({x for curve in panel.curves for x in curve.xs})
        axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        axes.minorticks_off()
    if panel.is_y_log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
