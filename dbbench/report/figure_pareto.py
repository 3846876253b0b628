"""What is learnt against what is held: a point a variant, error bars over seeds, each labelled where it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dbbench.report.figure_style import (
    DOUBLE_COLUMN_INCHES,
    MIB,
    MOST_VARIANTS,
    NOTE_INCHES,
    SINGLE_COLUMN_INCHES,
    NothingToDraw,
    blank,
    drawable,
    first_fitting,
    height_inches,
    legend_below,
    light_grid,
    logarithmic_if_wide,
    say_left_out,
    width_points,
    wrapped,
)
from dbbench.report.palette import Stroke, variant_strokes
from dbbench.report.run import Run
from dbbench.report.tables import metric_name, trained

_LEFT_INCHES, _RIGHT_INCHES = 0.52, 0.09
_LABEL_POINTS = {SINGLE_COLUMN_INCHES: 84.0, DOUBLE_COLUMN_INCHES: 130.0}
_HEIGHT_INCHES = {SINGLE_COLUMN_INCHES: 2.3, DOUBLE_COLUMN_INCHES: 2.9}
_LINE_POINTS = 9.0
_RADII = (6, 11, 17, 24, 32, 42, 54)

Box = tuple[float, float, float, float]  # left, bottom, right, top, in points from the axes' corner


def draw(run: Run, table: pd.DataFrame, width_inches: float = DOUBLE_COLUMN_INCHES) -> Figure:
    """Return the figure. A label that finds no free place near its point moves to a key at the foot.

    With more variants than can be told apart those are named that no other beats on both axes; the others are dots.
    """
    table = trained(table)
    points = table[(table["status"] == "ok") & table["peak_bytes"].notna() & table["metric_mean"].notna()]
    if points.empty:
        raise NothingToDraw("no finished cell has both a peak and a metric")
    shown = points if len(points) <= MOST_VARIANTS else _front(points)
    strokes = variant_strokes(c.label for c in run.configurations)
    height, foot = _HEIGHT_INCHES[width_inches], 0.4
    head = 0.1 + (NOTE_INCHES if len(shown) < len(points) else 0)
    figure = blank(width_inches, foot + height + head)
    axes = figure.add_axes(_place(width_inches, foot, height, head))
    if len(shown) < len(points):
        rest = points[~points["variant"].isin(shown["variant"])]
        mark: Any = {"marker": ".", "markersize": 3, "color": "#BBBBBB", "linestyle": "none", "zorder": 1}
        axes.plot((rest["peak_bytes"] / MIB).to_numpy(float), rest["metric_mean"].to_numpy(float), **mark)
    for variant, peak_bytes, mean, sd in shown[["variant", "peak_bytes", "metric_mean", "metric_sd"]].itertuples(
        index=False
    ):
        stroke = strokes[variant]
        axes.errorbar(
            peak_bytes / MIB,
            float(mean),
            yerr=None if pd.isna(sd) else float(sd),
            color=stroke.color,
            marker=stroke.marker,
            markersize=4.5,
            markeredgecolor="white",
            markeredgewidth=0.3,
            capsize=2,
            elinewidth=0.8,
            linestyle="none",
        )
    _scale(axes, points)
    spread = "mean ± sd over seeds" if shown["metric_sd"].notna().any() else "one seed"
    axes.set_ylabel(_ordinate(figure, table, points, spread, 72 * (height + head)))
    light_grid(axes, "both")
    if len(shown) == len(points):
        unplaced = _label(figure, axes, shown, _LABEL_POINTS[width_inches])
    else:  # no words over the dots
        unplaced = list(shown["variant"])
    if unplaced:
        foot += _key(figure, {name: strokes[name] for name in unplaced}, width_inches) + 0.05
        figure.set_size_inches(width_inches, foot + height + head)
        axes.set_position(_place(width_inches, foot, height, head))
    say_left_out(figure, len(shown), len(points), "variants named: no other holds less and scores as well")
    return figure


def _ordinate(figure: Figure, table: pd.DataFrame, points: pd.DataFrame, spread: str, limit_points: float) -> str:
    """Return what the ordinate is called; where less is better it says so, in a sign where words do not fit."""
    metric = metric_name(table)
    if not (points["metric_direction"] == "lower").all():
        return f"{metric} ({spread})"
    ways = (f"{metric} ({spread}; lower is better)", f"{metric} (lower is better)", f"{metric} ↓")
    return first_fitting(figure, ways, limit_points)


def _place(width_inches: float, foot: float, height: float, head: float) -> tuple[float, float, float, float]:
    """Where the axes stand on a page with such room below and above them, in shares of it."""
    total = foot + height + head
    left, width = _LEFT_INCHES / width_inches, (width_inches - _LEFT_INCHES - _RIGHT_INCHES) / width_inches
    return left, foot / total, width, height / total


def _front(points: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that no row with as small a peak beats, thinned evenly to what can be told apart."""
    sign = -1.0 if (points["metric_direction"] == "lower").all() else 1.0
    gains = sign * points["metric_mean"].to_numpy(float)
    order = np.lexsort((-gains, points["peak_bytes"].to_numpy(float)))
    best = np.maximum.accumulate(gains[order])
    front = [i for rank, i in enumerate(order) if rank == 0 or gains[i] > best[rank - 1]]
    return points.iloc[sorted(drawable(front))]


def _scale(axes: Axes, shown: pd.DataFrame) -> None:
    peaks = shown["peak_bytes"].astype(float) / MIB
    axes.set_xlabel("live tensor bytes at the peak (MiB)", labelpad=2)
    if logarithmic_if_wide(axes, "x", peaks):
        axes.set_xlabel("live tensor bytes at the peak (MiB, log scale)", labelpad=2)
        axes.set_xlim(peaks.min() / 1.5, peaks.max() * 1.5)
    else:
        axes.set_xlim(0, peaks.max() * 1.15)
    if (shown["metric_direction"] == "lower").all():
        logarithmic_if_wide(axes, "y", shown["metric_mean"])
    axes.margins(y=0.12)
    axes.set_ylim(axes.get_ylim())  # settles the scale, which the places of the labels depend on


def _label(figure: Figure, axes: Axes, shown: pd.DataFrame, limit_points: float) -> list[str]:
    """Place a label beside each point where nothing is in its way; return those without a place."""
    frame = axes.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    points, obstacles = [], []
    for _, row in shown.iterrows():
        middle, sd = float(row["metric_mean"]), 0.0 if pd.isna(row["metric_sd"]) else float(row["metric_sd"])
        fall = max(middle - axes.get_ylim()[0], 0.0)  # a log scale has no place for less than nothing
        ends = axes.transData.transform(
            [(row["peak_bytes"] / MIB, middle + shift) for shift in (0, -min(sd, fall), sd)]
        )
        ends = (ends - (frame.x0, frame.y0)) * 72 / figure.dpi
        points.append((float(ends[0][0]), float(ends[0][1])))
        obstacles.append(
            (ends[0][0] - 4, min(ends[0][1] - 4, ends[1][1]), ends[0][0] + 4, max(ends[0][1] + 4, ends[2][1]))
        )
    bounds = (1.0, 1.0, frame.width * 72 / figure.dpi - 1, frame.height * 72 / figure.dpi - 1)
    placed: list[Box] = []
    unplaced = []
    for i in sorted(range(len(points)), key=lambda i: (-_crowd(points, i), i)):
        name = shown["variant"].iloc[i]
        words = wrapped(figure, name, limit_points)
        size = (width_points(figure, words), _LINE_POINTS * (1 + words.count("\n")))
        others = [box for j, box in enumerate(obstacles) if j != i]
        for box, anchor in _candidates(points[i], size):
            free = not any(_overlap(box, other) for other in (*placed, *obstacles))
            if _inside(box, bounds) and free and not _crosses(points[i], anchor, (*placed, *others)):
                placed.append(box)
                _write(axes, words, points[i], box, anchor, bounds)
                break
        else:
            unplaced.append(name)
    order = list(shown["variant"])
    return sorted(unplaced, key=order.index)


def _write(
    axes: Axes, words: str, point: tuple[float, float], box: Box, anchor: tuple[float, float], frame: Box
) -> None:
    """Set the words in their box, and a hairline to the point where the two stand apart."""
    width, height = frame[2] + 1, frame[3] + 1
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    axes.text(x / width, y / height, words, transform=axes.transAxes, ha="center", va="center", linespacing=1.0)
    if math.dist(point, anchor) > 9:
        ends = ([point[0] / width, anchor[0] / width], [point[1] / height, anchor[1] / height])
        axes.add_line(Line2D(*ends, transform=axes.transAxes, color="#777777", linewidth=0.4, zorder=1))


def _candidates(point: tuple[float, float], size: tuple[float, float]) -> Iterator[tuple[Box, tuple[float, float]]]:
    """Yield boxes around a point, near ones first, right before left before above; and the box's end of the leader."""
    for radius in _RADII:
        for degrees in (0, 180, 90, 270, 30, 150, 330, 210, 60, 120, 300, 240):
            dx, dy = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            anchor = (point[0] + radius * dx, point[1] + radius * dy)
            left = anchor[0] - size[0] * (1 - round(dx, 6)) / 2
            bottom = anchor[1] - size[1] * (1 - round(dy, 6)) / 2
            yield (left, bottom, left + size[0], bottom + size[1]), anchor


def _crowd(points: list[tuple[float, float]], i: int) -> int:
    return sum(math.dist(points[i], other) < 40 for other in points)


def _overlap(one: Box, other: Box) -> bool:
    gap = 1.0
    return not (
        one[2] + gap <= other[0] or other[2] + gap <= one[0] or one[3] + gap <= other[1] or other[3] + gap <= one[1]
    )


def _inside(box: Box, bounds: Box) -> bool:
    return box[0] >= bounds[0] and box[1] >= bounds[1] and box[2] <= bounds[2] and box[3] <= bounds[3]


def _crosses(start: tuple[float, float], end: tuple[float, float], boxes: tuple[Box, ...]) -> bool:
    """Whether a leader runs through a label or another point."""
    for share in np.linspace(0, 1, 13):
        x, y = start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])
        if any(box[0] < x < box[2] and box[1] < y < box[3] for box in boxes):
            return True
    return False


def _key(figure: Figure, strokes: dict[str, Stroke], width_inches: float) -> float:
    """Name the points without a label at the foot of the figure; return the inches that takes."""
    limit = 72 * width_inches
    handles = [
        Line2D(
            [],
            [],
            color=s.color,
            marker=s.marker,
            markersize=4.5,
            linestyle="none",
            label=wrapped(figure, name, limit - 30, lines=1),
        )
        for name, s in strokes.items()
    ]
    return height_inches(figure, legend_below(figure, handles, limit))
