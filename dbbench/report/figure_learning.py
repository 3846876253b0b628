"""What is learnt along the budget: the validation metric, mean and band over seeds, a line a variant."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dbbench.errors import BadInput
from dbbench.report.figure_style import (
    DOUBLE_COLUMN_INCHES,
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
    shortened,
    width_points,
)
from dbbench.report.palette import Stroke, variant_strokes
from dbbench.report.run import Configuration, Run
from dbbench.results.frames import final_metric

_LINE_POINTS = 9.5

#: Budget fractions, mean and sd (None with one seed) of a metric.
Curve = tuple[np.ndarray, np.ndarray, np.ndarray | None]
Name = TypeVar("Name")


def draw(run: Run, table: pd.DataFrame, width_inches: float = DOUBLE_COLUMN_INCHES) -> Figure:
    """Return the figure; labels stand at the lines' right ends, spread until none covers another.

    In one column, where they would leave no room, they stand in a legend.
    """
    headlines = (final_metric(record) for c in run.configurations for record in c.finished)
    headline = next((metric for metric in headlines if metric is not None), None)
    name = headline.name if headline is not None else None
    present = {id(c.folder): c.folder for c in run.configurations}
    curved = {key: folder.with_curves() for key, folder in present.items()}
    known = [c for c in run.configurations if any(r.row.config_hash in curved[id(c.folder)] for r in c.finished)]
    chosen = drawable(known)
    curves = {c.label: found for c in chosen if name and (found := _over_seeds(c, name)) is not None}
    if not curves:
        raise NothingToDraw("no finished cell left a validation curve")
    strokes = variant_strokes(c.label for c in run.configurations)
    narrow = width_inches <= SINGLE_COLUMN_INCHES
    head = 0.08 + (NOTE_INCHES if len(chosen) < len(known) else 0)
    tall, foot, right = max(2.1, 0.25 + len(curves) * _LINE_POINTS / 72), 0.42, 0.1
    figure = blank(width_inches, tall + foot + head)
    names = {label: shortened(figure, label, 150) for label in curves}
    if narrow:
        tall = 1.9
        foot += _legend_inches(figure, {names[label]: strokes[label] for label in curves})
        figure.set_size_inches(width_inches, tall + foot + head)
    else:
        right = (max(width_points(figure, n) for n in names.values()) + 22) / 72
    height, left = tall + foot + head, 0.52
    axes = figure.add_axes(
        (left / width_inches, foot / height, (width_inches - left - right) / width_inches, tall / height)
    )
    less_is_better = headline is not None and headline.direction == "lower"
    if less_is_better:
        logarithmic_if_wide(axes, "y", (value for _, mean, _ in curves.values() for value in mean))
    _draw_lines(axes, curves, strokes)
    ways = [f"validation {name}"]
    if less_is_better:
        ways = [f"validation {name} (lower is better)", f"validation {name} ↓"]
    axes.set_ylabel(first_fitting(figure, ways, 72 * tall))
    if not narrow:
        ends = [(names[label], mean[-1], strokes[label].color) for label, (_, mean, _) in curves.items()]
        _name_lines(figure, axes, ends)
    say_left_out(figure, len(chosen), len(known))
    return figure


def _draw_lines(axes: Axes, curves: dict[str, Curve], strokes: dict[str, Stroke]) -> None:
    for label, (fraction, mean, sd) in curves.items():
        stroke = strokes[label]
        axes.plot(
            fraction,
            mean,
            color=stroke.color,
            dashes=stroke.dash[1] or (None, None),
            marker=stroke.marker,
            markersize=3,
            markevery=max(1, len(fraction) // 10),
            clip_on=False,
        )
        if sd is not None:
            axes.fill_between(fraction, mean - sd, mean + sd, color=stroke.color, alpha=0.15, linewidth=0)
    axes.set_ylim(axes.get_ylim())  # settles the scale, which the heights of the labels depend on
    axes.set_xlim(0, max(float(fraction[-1]) for fraction, _, _ in curves.values()))
    axes.set_xlabel("share of the budget spent")
    light_grid(axes, "y")


def _legend_inches(figure: Figure, strokes: dict[str, Stroke]) -> float:
    """Name the lines at the foot of the figure; return the inches that takes."""
    handles = [
        Line2D([], [], color=s.color, linestyle=s.dash, marker=s.marker, markersize=3, label=name)
        for name, s in strokes.items()
    ]
    figure_points = 72 * figure.get_size_inches()[0]
    return height_inches(figure, legend_below(figure, handles, figure_points)) + 0.05


def _name_lines(figure: Figure, axes: Axes, ends: list[tuple[str, float, str]]) -> None:
    """Write each name beside the axes, with a hairline in its colour from its line's end; ends as name, y, colour."""
    box = axes.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    pixels = figure.dpi / 72
    wanted = {i: (axes.transData.transform((0, y))[1] - box.y0) / box.height for i, (_, y, _) in enumerate(ends)}
    for i, y in spread(wanted, _LINE_POINTS * pixels / box.height).items():
        name, _, color = ends[i]
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            name,
            (1, wanted[i]),
            xycoords="axes fraction",
            xytext=(1 + 16 * pixels / box.width, y),
            textcoords="axes fraction",
            va="center",
            arrowprops={**line, "relpos": (0, 0.5)},
        )


def spread(wanted: dict[Name, float], spacing: float) -> dict[Name, float]:
    """Return heights in [0, 1], in the order wanted, at least ``spacing`` apart, with the least squared shift.

    Labels that would touch are pooled and centred on their mean (isotonic regression by pooling of violators).
    """
    place = {label: i for i, label in enumerate(wanted)}
    order = sorted(wanted, key=lambda label: (wanted[label], -place[label]))
    pools: list[list[float]] = []
    for i, label in enumerate(order):
        pools.append([wanted[label] - i * spacing])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    ceiling = max(0.0, 1 - (len(order) - 1) * spacing)
    starts = [min(max(float(np.mean(pool)), 0.0), ceiling) for pool in pools for _ in pool]
    return {label: start + i * spacing for i, (label, start) in enumerate(zip(order, starts, strict=True))}


def _over_seeds(configuration: Configuration, name: str) -> Curve | None:
    """Return budget fractions, mean and sd (None with one seed) of a metric on the validation split.

    Seeds are read at the same fractions by linear interpolation, for a budget in seconds puts their evaluations at
    different ones; only the range that every seed covers is kept.
    """
    lines = []
    for record in configuration.finished:
        try:
            frame = configuration.folder.read_curves(record.row.config_hash)
        except BadInput:
            continue  # the summary lists torn files among its problems
        if frame is None:
            continue
        mine = frame[(frame["split"] == "validation") & (frame["name"] == name)].dropna(subset=["value"])
        mine = mine.drop_duplicates("budget_fraction", keep="last").sort_values("budget_fraction")
        if len(mine):
            lines.append((mine["budget_fraction"].to_numpy(), mine["value"].to_numpy()))
    if not lines:
        return None
    low, high = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    grid = np.unique(np.concatenate([x for x, _ in lines]))
    grid = grid[(grid >= low) & (grid <= high)]
    if not len(grid):
        return None
    values = np.stack([np.interp(grid, x, y) for x, y in lines])
    return grid, values.mean(axis=0), values.std(axis=0, ddof=1) if len(lines) > 1 else None
