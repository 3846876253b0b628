"""The headline figure: the peak of a training step by role, a bar a variant, total and ratio at its side."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dbbench.report import text
from dbbench.report.figure_style import (
    MIB,
    SINGLE_COLUMN_INCHES,
    NothingToDraw,
    blank,
    height_inches,
    legend_below,
    light_grid,
    shortened,
    stacked_bar,
    swatch,
    width_points,
)
from dbbench.report.palette import ROLE_FILLS, ROLE_NAMES
from dbbench.report.run import Run
from dbbench.results.roles import ROLES

_ROW_INCHES = 0.33
_LEFT_INCHES, _RIGHT_INCHES = 0.08, 0.08


def draw(run: Run, table: pd.DataFrame) -> Figure:
    """Return the figure; a variant none of whose cells finished keeps its row and says why.

    A label stands above its bar, so that its length takes nothing from the bars' scale.
    """
    shown = table[(table["status"] == "ok") & table["peak_bytes"].notna()]
    if shown.empty:
        raise NothingToDraw("no cell with a peak finished")
    lost = table[(table["status"] != "ok") & ~table["variant"].isin(table.loc[table["status"] == "ok", "variant"])]
    lost = lost.drop_duplicates("variant")
    rows = [row for _, row in shown.iterrows()] + [row for _, row in lost.iterrows()]
    roles = [role for role in ROLES if (shown[f"{role}_bytes"].fillna(0) > 0).any()]

    figure = blank(SINGLE_COLUMN_INCHES, 1.0)
    width = SINGLE_COLUMN_INCHES - _LEFT_INCHES - _RIGHT_INCHES
    legend = legend_below(figure, [swatch(ROLE_FILLS[r], ROLE_NAMES[r]) for r in roles], 72 * width)
    foot, axis_room = height_inches(figure, legend) + 0.08, 0.36
    height = foot + axis_room + _ROW_INCHES * len(rows) + 0.05
    figure.set_size_inches(SINGLE_COLUMN_INCHES, height)
    axes = figure.add_axes(
        (
            _LEFT_INCHES / SINGLE_COLUMN_INCHES,
            (foot + axis_room) / height,
            width / SINGLE_COLUMN_INCHES,
            _ROW_INCHES * len(rows) / height,
        )
    )
    for place, row in enumerate(rows):
        _bar(axes, place, row, roles)
        _label(figure, axes, place, row, 72 * width)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, float(shown["peak_bytes"].max()) / MIB * 1.01)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("live tensor bytes at the peak of a training step (MiB)", labelpad=2)
    light_grid(axes, "x")
    return figure


def _bar(axes: Axes, place: int, row: pd.Series, roles: list[str]) -> None:
    shown = roles if row["status"] == "ok" else []
    left = stacked_bar(axes, place + 0.2, 0.46, [(row[f"{role}_bytes"] / MIB, ROLE_FILLS[role]) for role in shown])
    if row["status"] == "ok" and not left:  # a total without a split is drawn as what it is
        axes.barh(place + 0.2, row["peak_bytes"] / MIB, height=0.46, color="white", edgecolor="#333333", linewidth=0.6)


def _label(figure: Figure, axes: Axes, place: int, row: pd.Series, width: float) -> None:
    if row["status"] == "ok":
        ratio = "" if pd.isna(row["peak_ratio"]) else f"   {text.times(row['peak_ratio'])}"
        figures = f"{text.mib(row['peak_bytes'])} MiB{ratio}"
    else:
        figures = row["status"].replace("_", " ")
    name = shortened(figure, row["variant"], width - width_points(figure, figures) - 8)
    for x, words, side in ((0.0, name, "left"), (1.0, figures, "right")):
        axes.text(
            x,
            place - 0.25,
            words,
            ha=side,
            va="center",
            transform=axes.get_yaxis_transform(),
            bbox={"facecolor": "white", "linewidth": 0, "pad": 0.6},
        )
