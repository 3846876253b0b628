"""The headline figure: the peak of a training step by role, a bar a variant, total and ratio at its side."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dbbench.report import text
from dbbench.report.figure_style import (
    DOUBLE_COLUMN_INCHES,
    MIB,
    NOTE_INCHES,
    SINGLE_COLUMN_INCHES,
    NothingToDraw,
    blank,
    drawable,
    height_inches,
    legend_below,
    light_grid,
    say_left_out,
    shortened,
    stacked_bar,
    swatch,
    width_points,
    wrapped,
)
from dbbench.report.palette import ROLE_FILLS, ROLE_NAMES
from dbbench.report.run import Run
from dbbench.report.tables import trained
from dbbench.results.roles import ROLES

_ABOVE_ROW_INCHES, _BESIDE_ROW_INCHES = 0.33, 0.27
_NAME_POINTS = 130.0
_EDGE_INCHES = 0.08


def draw(run: Run, table: pd.DataFrame, width_inches: float = DOUBLE_COLUMN_INCHES) -> Figure:
    """Return the figure; a variant none of whose cells finished keeps its row and says why.

    In one column a label stands above its bar, so that its length takes nothing from the bars' scale.
    """
    finished = trained(table[(table["status"] == "ok") & table["peak_bytes"].notna()])
    if finished.empty:
        raise NothingToDraw("no cell with a peak finished")
    lost = table[(table["status"] != "ok") & ~table["variant"].isin(table.loc[table["status"] == "ok", "variant"])]
    lost = lost.drop_duplicates("variant")
    places = [("ok", i) for i in range(len(finished))] + [("lost", i) for i in range(len(lost))]
    rows = [(finished if kind == "ok" else lost).iloc[i] for kind, i in drawable(places)]
    roles = [role for role in ROLES if (finished[f"{role}_bytes"].fillna(0) > 0).any()]

    figure = blank(width_inches, 1.0)
    figures = [_figures(row) for row in rows]
    above = width_inches <= SINGLE_COLUMN_INCHES
    names = [] if above else [wrapped(figure, row["variant"], _NAME_POINTS) for row in rows]
    left = right = _EDGE_INCHES
    if not above:
        left = max(width_points(figure, name) for name in names) / 72 + 0.14
        right = max(width_points(figure, words) for words in figures) / 72 + 0.14
    room = 72 * (width_inches - 2 * _EDGE_INCHES)
    legend = legend_below(figure, [swatch(ROLE_FILLS[r], ROLE_NAMES[r]) for r in roles], room)
    foot = height_inches(figure, legend) + 0.44
    bars = (_ABOVE_ROW_INCHES if above else _BESIDE_ROW_INCHES) * len(rows)
    height = foot + bars + 0.05 + (NOTE_INCHES if len(rows) < len(places) else 0)
    figure.set_size_inches(width_inches, height)
    axes = figure.add_axes(
        (left / width_inches, foot / height, (width_inches - left - right) / width_inches, bars / height)
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max((float(row["peak_bytes"]) for row in rows if row["status"] == "ok"), default=1) / MIB * 1.01)
    for place, row in enumerate(rows):
        _bar(axes, place + 0.2 if above else place, 0.46 if above else 0.62, row, roles)
        if above:
            name = shortened(figure, row["variant"], room - width_points(figure, figures[place]) - 8)
            _label(axes, place - 0.25, name, figures[place])
        else:
            axes.annotate(
                figures[place], (1, place), xycoords=axes.get_yaxis_transform(), xytext=(6, 0),
                textcoords="offset points", va="center_baseline",
            )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(not above)
    axes.set_xlabel("live tensor bytes at the peak of a training step (MiB)", labelpad=2)
    light_grid(axes, "x")
    say_left_out(figure, len(rows), len(places))
    return figure


def _bar(axes: Axes, place: float, height: float, row: pd.Series, roles: list[str]) -> None:
    shown = roles if row["status"] == "ok" else []
    left = stacked_bar(axes, place, height, [(row[f"{role}_bytes"] / MIB, ROLE_FILLS[role]) for role in shown])
    if row["status"] == "ok" and not left:  # a total without a split is drawn as what it is
        axes.barh(place, row["peak_bytes"] / MIB, height=height, color="white", edgecolor="#333333", linewidth=0.6)


def _figures(row: pd.Series) -> str:
    """What stands beside a bar: the total and its ratio, or why there is none."""
    if row["status"] != "ok":
        return str(row["status"]).replace("_", " ")
    ratio = "" if pd.isna(row["peak_ratio"]) else f"   {text.times(row['peak_ratio'])}"
    return f"{text.mib(row['peak_bytes'])} MiB{ratio}"


def _label(axes: Axes, place: float, name: str, figures: str) -> None:
    for x, words, side in ((0.0, name, "left"), (1.0, figures, "right")):
        axes.text(
            x,
            place,
            words,
            ha=side,
            va="center",
            transform=axes.get_yaxis_transform(),
            bbox={"facecolor": "white", "linewidth": 0, "pad": 0.6},
        )
