"""How memory grows along an axis: log-log panels of the peak and what it is made of, each line with its exponent."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import blended_transform_factory

from dbbench.report.figure_style import (
    DOUBLE_COLUMN_INCHES,
    QUIET,
    SINGLE_COLUMN_INCHES,
    NothingToDraw,
    blank,
    height_inches,
    legend_below,
    shortened,
)
from dbbench.report.palette import Stroke, variant_strokes
from dbbench.results.scaling import Scaling, ScalingLine

#: quantity: the panel's title
PANELS = {
    "peak_bytes": "peak",
    "activations_own_peak_bytes": "activations",
    "layers_activations_own_peak_bytes": "activations, layers only",
    "state_own_peak_bytes": "parameters + gradients\n+ optimizer",
}
AXIS_NAMES = {"batch": "batch", "depth": "layers", "width": "width", "sequence": "sequence length", "blocks": "blocks"}
_PLOT_INCHES, _SMALL_PLOT_INCHES = 2.35, 1.75
_LABEL_POINTS = 7.5  # between the middles of two numbers


def draw(scaling: Scaling, width_inches: float = DOUBLE_COLUMN_INCHES) -> Figure:
    """Return the figure, in one column two panels a row. All have one scale, so that lines can be compared."""
    panels = {
        q: title for q, title in PANELS.items() if any(size for line in scaling.lines for _, size in line.series(q))
    }
    if not panels:
        raise NothingToDraw("no variant holds anything")
    strokes = variant_strokes(line.variant for line in scaling.lines)
    columns = len(panels) if width_inches > SINGLE_COLUMN_INCHES else min(2, len(panels))
    rows = -(-len(panels) // columns)
    plot = _PLOT_INCHES if rows == 1 else _SMALL_PLOT_INCHES
    figure = blank(width_inches, plot + 1.2)
    marks = [
        Line2D([], [], color=s.color, marker=s.marker, markersize=4, linestyle=s.dash,
               label=shortened(figure, name, 72 * width_inches - 40))
        for name, s in strokes.items()
    ]  # fmt: skip
    legend = legend_below(figure, marks, 72 * width_inches)
    foot, head, gap = height_inches(figure, legend) + 0.45, 0.38, 0.55
    height = foot + rows * plot + (rows - 1) * gap + head
    figure.set_size_inches(width_inches, height)
    grid = {
        "left": 0.52 / width_inches, "right": 1 - 0.035 / width_inches, "bottom": foot / height,
        "top": 1 - head / height, "wspace": 0.1, "hspace": gap / plot,
    }  # fmt: skip
    every = figure.subplots(rows, columns, sharey=True, sharex=True, squeeze=False, gridspec_kw=grid).flatten()
    axes = every[: len(panels)]
    for one in every[len(panels) :]:
        one.set_axis_off()
    for one, (quantity, title) in zip(axes, panels.items(), strict=True):
        _scale(one, scaling)
        one.set_title(title.replace(", ", ",\n") if rows > 1 else title, loc="left", fontweight="bold", linespacing=1.0)
        one.tick_params(axis="x", labelbottom=True)
        for line in scaling.lines:
            _draw_line(one, line, quantity, strokes[line.variant], scaling)
    axes[0].set_ylim(axes[0].get_ylim())  # settles the scale, which the places of the numbers depend on
    for one in axes[-columns:]:
        one.set_xlabel(f"{AXIS_NAMES[scaling.axis]} (log scale)", labelpad=2)
    for one, quantity in zip(axes, panels, strict=True):
        _number(figure, one, scaling, quantity, strokes)
    return figure


def _scale(axes: Axes, scaling: Scaling) -> None:
    values = sorted({point.value for line in scaling.lines if line.varies for point in line.points})
    axes.set_xscale("log")
    axes.set_yscale("log", base=2)
    axes.set_xlim(values[0] / 1.15, values[-1] * (values[-1] / values[0]) ** 0.38)  # room for the numbers
    axes.xaxis.set_major_locator(FixedLocator(_spread(values)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(base=4))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_size))
    axes.grid(color="#E4E4E4", linewidth=0.5)
    axes.set_axisbelow(True)


def _spread(values: list[int]) -> list[int]:
    """Return those of the values that stand far enough apart to be written below an axis, the last one always."""
    least = math.log(values[-1] / values[0]) / 5
    kept = [values[-1]]
    for value in reversed(values):
        if math.log(kept[-1] / value) >= least:
            kept.append(value)
    return kept


def _size(value: float, _: Any) -> str:
    power = round(math.log2(value)) if value > 0 else 0
    units = ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"))
    shift, unit = next(((s, u) for s, u in units if power >= s), (0, "B"))
    return f"{2 ** (power - shift):,} {unit}"


def _draw_line(axes: Axes, line: ScalingLine, quantity: str, stroke: Stroke, scaling: Scaling) -> None:
    series = [(value, size) for value, size in line.series(quantity) if size]
    if not series:
        return
    look: dict[str, Any] = {"color": stroke.color, "linestyle": stroke.dash, "linewidth": 1.1}
    if not line.varies:  # as it is at any number of blocks
        axes.axhline(series[0][1], **look, alpha=0.6, zorder=1)
        return
    axes.plot(*zip(*series, strict=True), marker=stroke.marker, markersize=3.2, markeredgewidth=0, zorder=2, **look)


def _number(figure: Figure, axes: Axes, scaling: Scaling, quantity: str, strokes: dict[str, Stroke]) -> None:
    """Write each line's exponent behind its end, moved apart where they would touch; equal ones at one place once."""
    end = max(point.value for line in scaling.lines if line.varies for point in line.points)
    wanted: list[tuple[float, str, str]] = []
    for line in scaling.lines:
        law = line.law(quantity)
        series = [(value, size) for value, size in line.series(quantity) if size]
        if law is None or not series:
            continue
        height = float(axes.transData.transform((1, series[-1][1]))[1]) * 72 / figure.dpi
        words = f"{law.exponent:.2f}".replace("-", "−")
        wanted.append((height, words, strokes[line.variant].color))
    merged: list[list[Any]] = []  # height, words, colours
    for height, words, color in sorted(wanted):
        if merged and words == merged[-1][1] and height - merged[-1][0] < 2:
            merged[-1][2].append(color)
        else:
            merged.append([height, words, [color]])
    bottom, top = (float(y) * 72 / figure.dpi for y in axes.transAxes.transform([(0, 0), (0, 1)])[:, 1])
    behind = blended_transform_factory(axes.transData, axes.transAxes)
    places = _apart([height for height, _, _ in merged], bottom + 4, top - 4)
    for (_, words, colors), place in zip(merged, places, strict=True):
        color = colors[0] if len(colors) == 1 else QUIET
        axes.annotate(
            words, (end, (place - bottom) / (top - bottom)), xycoords=behind, xytext=(5, 0),
            textcoords="offset points", va="center_baseline", color=color,
        )  # fmt: skip


def _apart(heights: list[float], bottom: float, top: float) -> list[float]:
    """Return ascending heights moved as little as it takes to stand `_LABEL_POINTS` apart, between bottom and top."""
    places = list(heights)
    for _ in range(200):
        moved = False
        for i in range(len(places) - 1):
            lack = _LABEL_POINTS - (places[i + 1] - places[i])
            if lack > 0.05:
                places[i] -= lack / 2
                places[i + 1] += lack / 2
                moved = True
        places = [min(max(place, bottom), top) for place in places]
        if not moved:
            break
    return places
