"""What fits: a row a network, a panel a memory, a mark a method at the largest value that fits, or where none does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import blended_transform_factory

from dbbench.report.figure_style import (
    DOUBLE_COLUMN_INCHES,
    QUIET,
    SINGLE_COLUMN_INCHES,
    NothingToDraw,
    blank,
    height_inches,
    legend_at_top,
    shortened,
    width_points,
)
from dbbench.report.fit_table import AXIS_UNITS, memory_name, techniques
from dbbench.report.palette import Stroke, variant_strokes
from dbbench.results.fit import Fit, FitLine

_LANE_INCHES = 0.1
_ROW_GAP_INCHES = 0.13
_FAMILY_INCHES = 0.24  # the heading of a kind of network
_FOOT_INCHES, _TITLE_INCHES, _GAP_INCHES = 0.48, 0.35, 0.75
_MARK_POINTS = 5.0
_GUTTER = "#F0F0F0"


@dataclass(frozen=True)
class _Row:
    """A network: its lines by technique, and where it stands, in inches from the top of the panel."""

    name: str
    top: float
    lines: dict[str, FitLine]


@dataclass(frozen=True)
class _Scale:
    """The ends of a panel's axis of values; from ``left`` to ``start`` stands what does not fit."""

    left: float
    start: float
    most: float
    right: float

    @property
    def gutter(self) -> float:
        return math.sqrt(self.left * self.start)


def draw(fit: Fit, width_inches: float = DOUBLE_COLUMN_INCHES) -> Figure:
    """Return the figure; in one column two memories stand beside each other, more below them.

    Beside a mark stands its value, of backprop and of the largest, with the ratio of the two; in one column there is
    room for the ratio alone.
    """
    if not fit.lines:
        raise NothingToDraw("no variant was searched")
    names = techniques(fit)
    strokes = variant_strokes(dict.fromkeys(names))
    rows, families, tall = _layout(fit, names, len(strokes))
    narrow = width_inches <= SINGLE_COLUMN_INCHES
    count = len(fit.memories_bytes)
    across = min(2, count) if narrow else count
    down = -(-count // across)
    figure = blank(width_inches, 1.0)
    legend = legend_at_top(figure, _marks(figure, strokes, 72 * width_inches - 30), 72 * width_inches)
    head = height_inches(figure, legend) + _TITLE_INCHES
    height = head + down * tall + (down - 1) * _GAP_INCHES + _FOOT_INCHES
    figure.set_size_inches(width_inches, height)
    grid = {
        "left": (max(width_points(figure, row.name) for row in rows) / 72 + 0.3) / width_inches,
        "right": 0.99,
        "bottom": _FOOT_INCHES / height,
        "top": 1 - head / height,
        "wspace": 0.06,
        "hspace": _GAP_INCHES / tall,
    }
    every = figure.subplots(down, across, sharey=True, squeeze=False, gridspec_kw=grid)
    scale = _scale(fit, 0.5 if narrow else 0.3, 0.36 if narrow else 0.12)
    for axes in every.flat[count:]:
        axes.set_axis_off()
    for memory, axes in enumerate(every.flat[:count]):
        axes.set_title(memory_name(fit.memories_bytes[memory]), loc="left", fontweight="bold", fontsize=9)
        _dress(axes, scale, 2 if narrow else 1)
        for row in rows:
            _draw_row(axes, fit, memory, row, strokes, scale, values=not narrow)
    every[0, 0].set_ylim(tall, 0)
    every[0, 0].set_yticks([row.top + len(strokes) * _LANE_INCHES / 2 for row in rows], [row.name for row in rows])
    for axes in every[:, 0]:
        beside = blended_transform_factory(figure.transFigure, axes.transData)
        for words, top in families:
            axes.text(0.008, top, words, color=QUIET, va="center", transform=beside)
    words = f"largest {fit.axis} that fits ({AXIS_UNITS[fit.axis]})"
    figure.supxlabel(words, x=(float(grid["left"]) + 0.99) / 2, y=0.03 / height, fontsize="medium", va="bottom")
    return figure


def _marks(figure: Figure, strokes: dict[str, Stroke], limit_points: float) -> list[Line2D]:
    """Return a legend's mark for each technique, its name no wider than ``limit_points``."""
    return [
        Line2D([], [], color=s.color, marker=s.marker, markersize=6, linestyle="none",
               label=shortened(figure, name, limit_points))
        for name, s in strokes.items()
    ]  # fmt: skip


def _layout(fit: Fit, names: list[str], lanes: int) -> tuple[list[_Row], list[tuple[str, float]], float]:
    """Return the rows, the headings of families with their heights, and the height of all, in inches from the top."""
    rows: list[_Row] = []
    families: list[tuple[str, float]] = []
    top = 0.0
    named = list(zip(names, fit.lines, strict=True))
    for (network, precision), family in groupby(named, key=lambda item: (item[1].network, item[1].precision)):
        families.append((f"{network}, {precision}".replace("_", " "), top + _FAMILY_INCHES / 2))
        top += _FAMILY_INCHES
        sizes: dict[str, dict[str, FitLine]] = {}
        for name, line in family:
            sizes.setdefault(line.network_size, {})[name] = line
        for size, lines in sizes.items():
            rows.append(_Row(size, top, lines))
            top += lanes * _LANE_INCHES + _ROW_GAP_INCHES
    return rows, families, top


def _scale(fit: Fit, for_numbers: float, for_gutter: float) -> _Scale:
    """The shares of the axis that are added behind the largest mark and before the smallest."""
    found = [edge.largest for line in fit.lines for edge in line.edges]
    fitting = [value for value in found if value is not None] or [1]
    start, right = min(fitting) / 1.6, max(fitting) * 1.6
    right *= (right / start) ** for_numbers
    return _Scale(start / (right / start) ** for_gutter if None in found else start, start, max(fitting), right)


def _dress(axes: Axes, scale: _Scale, every_power: int) -> None:
    axes.set_xscale("log")
    axes.set_xlim(scale.left, scale.right)
    powers = [10**n for n in range(0, 9, every_power) if scale.start <= 10**n <= scale.most]
    gutter = [scale.gutter] if scale.left < scale.start else []
    axes.xaxis.set_major_locator(FixedLocator([*gutter, *powers]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([*("does\nnot fit" for _ in gutter), *(f"{power:,}" for power in powers)], linespacing=0.9)
    for power in powers:
        axes.axvline(power, color="#E2E2E2", linewidth=0.5, zorder=0)
    axes.tick_params(axis="both", length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _draw_row(
    axes: Axes, fit: Fit, memory: int, row: _Row, strokes: dict[str, Stroke], scale: _Scale, values: bool
) -> None:
    tall = len(strokes) * _LANE_INCHES
    axes.fill_between([scale.left, scale.start], row.top, row.top + tall, color=_GUTTER, linewidth=0, zorder=0)
    found = {name: line.edges[memory].largest for name, line in row.lines.items()}
    most = max((value for value in found.values() if value is not None), default=None)
    for lane, (name, stroke) in enumerate(strokes.items()):
        if name not in row.lines:
            continue
        y, value, line = row.top + (lane + 0.5) * _LANE_INCHES, found[name], row.lines[name]
        shape: dict[str, Any] = {
            "marker": stroke.marker,
            "markersize": _MARK_POINTS,
            "color": stroke.color,
            "zorder": 3,
        }
        if value is None:
            axes.plot(scale.gutter, y, markerfacecolor="white", markeredgewidth=0.8, **shape)
            continue
        axes.plot([scale.start, value], [y, y], color=stroke.color, linewidth=0.7, alpha=0.35, zorder=1)
        axes.plot(value, y, markeredgecolor="white", markeredgewidth=0.3, **shape)
        ratio = fit.ratio(line, memory) if line.method != "backprop" else None
        if value == most or (values and line.method == "backprop"):
            bound = "≥ " if line.edges[memory].following is None else ""
            words = f"{bound}{value:,}" + (f" ({ratio:.3g}×)" if ratio is not None else "")
            if not values and ratio is not None:
                words = f"{bound}{ratio:.3g}×"
            axes.annotate(
                words, (value, y), xytext=(5, 0), textcoords="offset points", va="center_baseline",
                color=stroke.color,
            )  # fmt: skip
