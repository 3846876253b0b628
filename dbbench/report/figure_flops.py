"""Arithmetic by phase: one training step, and the whole training under the run's budget."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dbbench.report import text
from dbbench.report.figure_style import (
    DOUBLE_COLUMN_INCHES,
    NothingToDraw,
    blank,
    legend_below,
    light_grid,
    stacked_bar,
    swatch,
    width_points,
    wrapped,
)
from dbbench.report.palette import FLOP_FILLS
from dbbench.report.run import Run

_ROW_INCHES = 0.27
_UNITS = ((1e18, "EFLOPs"), (1e15, "PFLOPs"), (1e12, "TFLOPs"), (1e9, "GFLOPs"), (1e6, "MFLOPs"), (1.0, "FLOPs"))


def draw(run: Run, table: pd.DataFrame) -> Figure:
    """Return two panels with the same rows: FLOPs of a step stacked by phase, and of a training."""
    shown = table[(table["status"] == "ok") & table["flops_step"].notna()]
    if shown.empty:
        raise NothingToDraw("no cell with a FLOP count finished")
    figure = blank(DOUBLE_COLUMN_INCHES, 0.85 + _ROW_INCHES * len(shown))
    legend_below(figure, [swatch(fill, phase) for phase, fill in FLOP_FILLS.items()], 72 * DOUBLE_COLUMN_INCHES)
    names = [wrapped(figure, name, 120) for name in shown["variant"]]
    inches = max(width_points(figure, name) for name in names) / 72 + 0.2
    left = inches / DOUBLE_COLUMN_INCHES
    height = figure.get_size_inches()[1]
    step, total = figure.subplots(
        1,
        2,
        sharey=True,
        gridspec_kw={"left": left, "right": 0.985, "bottom": 0.6 / height, "top": 1 - 0.22 / height, "wspace": 0.08},
    )
    _step_panel(step, shown)
    _total_panel(total, shown)
    step.set_yticks(range(len(names)), names)
    step.set_ylim(len(names) - 0.5, -0.5)
    for axes in (step, total):
        axes.tick_params(axis="y", length=0)
        light_grid(axes, "x")
    return figure


def _unit(largest: float) -> tuple[float, str]:
    return next(((scale, name) for scale, name in _UNITS if largest >= scale), _UNITS[-1])


def _step_panel(axes: Axes, shown: pd.DataFrame) -> None:
    scale, unit = _unit(float(shown["flops_step"].max()))
    ends: list[tuple[float, str]] = []
    for place, (_, row) in enumerate(shown.iterrows()):
        parts = [(row[f"flops_{phase}"] / scale, fill) for phase, fill in FLOP_FILLS.items()]
        left = stacked_bar(axes, place, 0.62, parts)
        ends.append((max(left, row["flops_step"] / scale), _words(row["flops_step_ratio"], row["flops_step"])))
    _annotate(axes, ends)
    axes.set_title("one training step (mean over blocks)", loc="left")
    axes.set_xlabel(unit, labelpad=2)


def _total_panel(axes: Axes, shown: pd.DataFrame) -> None:
    largest = shown["flops_train_total"].max()
    axes.set_title("the whole training", loc="left")
    if pd.isna(largest):
        axes.set_xlabel("not measured", labelpad=2)
        return
    scale, unit = _unit(float(largest))
    ends: list[tuple[float, str]] = []
    for place, (_, row) in enumerate(shown.iterrows()):
        count = row["flops_train_total"]
        if pd.notna(count):
            axes.barh(place, count / scale, height=0.62, color="#BBBBBB", edgecolor="#333333", linewidth=0.3)
        ends.append((0.0 if pd.isna(count) else count / scale, _words(row["flops_train_total_ratio"], count)))
    _annotate(axes, ends)
    axes.set_xlabel(unit, labelpad=2)


def _words(ratio: Any, count: Any) -> str:
    """The ratio to backprop, or the plain count where the run holds nothing to compare with."""
    if pd.isna(count):
        return "not measured"
    return f"{text.flops(count)}FLOPs" if pd.isna(ratio) else text.times(ratio)


def _annotate(axes: Axes, ends: list[tuple[float, str]]) -> None:
    """Write each bar's words behind its end, and leave room for them."""
    for place, (end, words) in enumerate(ends):
        axes.annotate(words, (end, place), xytext=(3, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, max(end for end, _ in ends) * 1.25 or 1.0)
