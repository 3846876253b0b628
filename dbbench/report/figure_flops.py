"""Arithmetic by phase: one training step, and the whole training under the run's budget."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from dbbench.report import text
from dbbench.report.figure_style import (
    DOUBLE_COLUMN_INCHES,
    NOTE_INCHES,
    SINGLE_COLUMN_INCHES,
    NothingToDraw,
    blank,
    drawable,
    legend_below,
    light_grid,
    say_left_out,
    shortened,
    stacked_bar,
    swatch,
    width_points,
    wrapped,
)
from dbbench.report.palette import FLOP_FILLS
from dbbench.report.run import Run
from dbbench.report.tables import trained

_ABOVE_ROW_INCHES, _BESIDE_ROW_INCHES = 0.34, 0.27
_NAME_POINTS = 120.0
_UNITS = ((1e18, "EFLOPs"), (1e15, "PFLOPs"), (1e12, "TFLOPs"), (1e9, "GFLOPs"), (1e6, "MFLOPs"), (1.0, "FLOPs"))


def draw(run: Run, table: pd.DataFrame, width_inches: float = DOUBLE_COLUMN_INCHES) -> Figure:
    """Return two panels with the same rows: FLOPs of a step stacked by phase, and of a training.

    In one column a label stands above its two bars, so that its length takes nothing from their scale.
    """
    counted = trained(table[(table["status"] == "ok") & table["flops_step"].notna()])
    if counted.empty:
        raise NothingToDraw("no cell with a FLOP count finished")
    shown = counted.iloc[drawable(range(len(counted)))]
    above = width_inches <= SINGLE_COLUMN_INCHES
    bars = (_ABOVE_ROW_INCHES if above else _BESIDE_ROW_INCHES) * len(shown)
    head = (0.36 if above else 0.22) + (NOTE_INCHES if len(shown) < len(counted) else 0)
    height = 0.6 + bars + head
    figure = blank(width_inches, height)
    legend_below(figure, [swatch(fill, phase) for phase, fill in FLOP_FILLS.items()], 72 * width_inches)
    names = [] if above else [wrapped(figure, name, _NAME_POINTS) for name in shown["variant"]]
    left = 0.08 if above else max(width_points(figure, name) for name in names) / 72 + 0.2
    step, total = figure.subplots(
        1,
        2,
        sharey=True,
        gridspec_kw={
            "left": left / width_inches,
            "right": 1 - 0.1 / width_inches,
            "bottom": 0.6 / height,
            "top": 1 - head / height,
            "wspace": 0.14 if above else 0.08,
        },
    )
    place, tall = (0.2, 0.42) if above else (0.0, 0.62)
    _step_panel(step, shown, place, tall)
    _total_panel(total, shown, place, tall)
    broken = "\n" if above else " "
    step.set_title(f"one training step{broken}(mean over blocks)", loc="left")
    total.set_title("the whole training", loc="left")
    step.set_ylim(len(shown) - 0.5, -0.5)
    step.set_yticks(range(len(names)), names)
    if above:
        _name_rows(figure, step, list(shown["variant"]), 72 * (width_inches - 0.2))
    for axes in (step, total):
        axes.tick_params(axis="y", length=0)
        light_grid(axes, "x")
    say_left_out(figure, len(shown), len(counted))
    return figure


def _name_rows(figure: Figure, axes: Axes, names: list[str], limit_points: float) -> None:
    """Write each label above its bars, over both panels and their grids."""
    across = blended_transform_factory(figure.transFigure, axes.transData)
    for place, name in enumerate(names):
        figure.text(
            axes.get_position().x0,
            place - 0.24,
            shortened(figure, name, limit_points),
            transform=across,
            va="center",
            bbox={"facecolor": "white", "linewidth": 0, "pad": 0.6},
        )


def _unit(largest: float) -> tuple[float, str]:
    return next(((scale, name) for scale, name in _UNITS if largest >= scale), _UNITS[-1])


def _step_panel(axes: Axes, shown: pd.DataFrame, shift: float, height: float) -> None:
    scale, unit = _unit(float(shown["flops_step"].max()))
    ends: list[tuple[float, str]] = []
    for place, (_, row) in enumerate(shown.iterrows()):
        parts = [(row[f"flops_{phase}"] / scale, fill) for phase, fill in FLOP_FILLS.items()]
        left = stacked_bar(axes, place + shift, height, parts)
        ends.append((max(left, row["flops_step"] / scale), _words(row["flops_step_ratio"], row["flops_step"], row)))
    _annotate(axes, ends, shift)
    axes.set_xlabel(unit, labelpad=2)


def _total_panel(axes: Axes, shown: pd.DataFrame, shift: float, height: float) -> None:
    largest = shown["flops_train_total"].max()
    if pd.isna(largest):
        axes.set_xlabel("not measured", labelpad=2)
        return
    scale, unit = _unit(float(largest))
    ends: list[tuple[float, str]] = []
    for place, (_, row) in enumerate(shown.iterrows()):
        count = row["flops_train_total"]
        if pd.notna(count):
            axes.barh(place + shift, count / scale, height=height, color="#BBBBBB", edgecolor="#333333", linewidth=0.3)
        ends.append((0.0 if pd.isna(count) else count / scale, _words(row["flops_train_total_ratio"], count, row)))
    _annotate(axes, ends, shift)
    axes.set_xlabel(unit, labelpad=2)


def _words(ratio: Any, count: Any, row: Any) -> str:
    """The ratio to backprop, or the plain count where the run holds nothing to compare with."""
    if pd.isna(count):
        return "not measured"
    return text.flop_words(count, uncounted=row["uncounted_ops"]) if pd.isna(ratio) else text.times(ratio)


def _annotate(axes: Axes, ends: list[tuple[float, str]], shift: float) -> None:
    """Write each bar's words behind its end, and leave room for them."""
    for place, (end, words) in enumerate(ends):
        axes.annotate(words, (end, place + shift), xytext=(3, 0), textcoords="offset points", va="center")
    figure = axes.get_figure(root=True)
    assert figure is not None
    room = max(width_points(figure, words) for _, words in ends) + 5
    width = axes.get_window_extent().width * 72 / figure.dpi
    axes.set_xlim(0, max(end for end, _ in ends) * width / max(width - room, width / 4) or 1.0)
