"""What is learnt along the budget: the validation metric, mean and band over seeds, a line a variant."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dbbench.errors import BadInput
from dbbench.report.figure_style import (
    DOUBLE_COLUMN_INCHES,
    NothingToDraw,
    blank,
    light_grid,
    shortened,
    width_points,
)
from dbbench.report.palette import variant_strokes
from dbbench.report.run import Configuration, Run
from dbbench.results.frames import final_metric

_LINE_POINTS = 9.5


def draw(run: Run, table: pd.DataFrame) -> Figure:
    """Return the figure; labels stand at the lines' right ends, spread until none covers another."""
    headlines = [final_metric(record) for c in run.configurations for record in c.finished]
    name = next((metric.name for metric in headlines if metric is not None), None)
    curves = {c.label: found for c in run.configurations if name and (found := _over_seeds(run, c, name)) is not None}
    if not curves:
        raise NothingToDraw("no finished cell left a validation curve")
    strokes = variant_strokes(c.label for c in run.configurations)
    height = max(2.6, 0.75 + len(curves) * _LINE_POINTS / 72)
    figure = blank(DOUBLE_COLUMN_INCHES, height)
    names = {label: shortened(figure, label, 150) for label in curves}
    room = (max(width_points(figure, n) for n in names.values()) + 22) / 72
    axes = figure.add_axes((0.075, 0.42 / height, 0.925 - room / DOUBLE_COLUMN_INCHES, 1 - 0.5 / height))
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
    axes.set_ylabel(f"validation {name}")
    light_grid(axes, "y")

    _name_lines(
        figure, axes, {names[label]: (mean[-1], strokes[label].color) for label, (_, mean, _) in curves.items()}
    )
    return figure


def _name_lines(figure: Figure, axes: Axes, ends: dict[str, tuple[float, str]]) -> None:
    """Write each name beside the axes, with a hairline in its colour from the end of its line."""
    box = axes.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    pixels = figure.dpi / 72
    wanted = {name: (axes.transData.transform((0, y))[1] - box.y0) / box.height for name, (y, _) in ends.items()}
    for name, y in spread(wanted, _LINE_POINTS * pixels / box.height).items():
        line = {"arrowstyle": "-", "color": ends[name][1], "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            name,
            (1, wanted[name]),
            xycoords="axes fraction",
            xytext=(1 + 16 * pixels / box.width, y),
            textcoords="axes fraction",
            va="center",
            arrowprops={**line, "relpos": (0, 0.5)},
        )


def spread(wanted: dict[str, float], spacing: float) -> dict[str, float]:
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


def _over_seeds(
    run: Run, configuration: Configuration, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Return budget fractions, mean and sd (None with one seed) of a metric on the validation split.

    Seeds are read at the same fractions by linear interpolation, for a budget in seconds puts their evaluations at
    different ones; only the range that every seed covers is kept.
    """
    lines = []
    for record in configuration.finished:
        try:
            frame = run.folder.read_curves(record.row.config_hash)
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
