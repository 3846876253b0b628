"""From the ledger's peak to what the driver books on the process: a bar a step of the way, on CUDA.

The rows are the ledger's peak; what the kernels ask for besides (requested − ledger); the rounding to the allocator's
blocks (allocated − requested); what it keeps free or cannot use (reserved − allocated); and the CUDA context with its
libraries (NVML's figure for the process − reserved). Each bar starts where the one above it ends.
"""

from __future__ import annotations

from typing import NamedTuple

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
    evenly,
    light_grid,
    say_left_out,
    shortened,
    width_points,
)
from dbbench.report.palette import STAGE_FILLS
from dbbench.report.run import Run
from dbbench.results.profile import Profile

_ROW_INCHES = 0.19
_MOST_PANELS = 10
_TOTAL = "process (NVML)"
_NEEDED = ("peak_bytes", "device_peak_bytes", "allocated_bytes", "reserved_bytes", "nvml_process_peak_bytes")


class Way(NamedTuple):
    """One waterfall: its title and the five figures of `_NEEDED`, each the end of a bar, in bytes."""

    title: str
    ends: tuple[int, ...]


def draw(run: Run, table: pd.DataFrame, width_inches: float = DOUBLE_COLUMN_INCHES) -> Figure:
    """Return a panel for each variant whose five figures are all known, on one scale."""
    finished = table[table["status"] == "ok"]
    known = finished[finished[list(_NEEDED)].notna().all(axis=1)]
    if known.empty:
        absent = [name for name in _NEEDED if finished[name].isna().all()]
        reason = f"no variant has {absent[0]}" if absent else "no variant has all five figures"
        raise NothingToDraw(reason.replace("_", " "))
    most = _MOST_PANELS if width_inches > SINGLE_COLUMN_INCHES else _MOST_PANELS // 2
    rows = [known.iloc[i] for i in evenly(range(len(known)), most)]
    ways = [Way(row["variant"], tuple(int(row[name]) for name in _NEEDED)) for row in rows]
    return _figure(ways, width_inches, len(known))


def draw_profile(profile: Profile, width_inches: float = SINGLE_COLUMN_INCHES) -> Figure:
    """Return the waterfall of one profile. Raises NothingToDraw, with the reason, where a figure is not known."""
    figures = profile.device_figures
    if figures is None:
        raise NothingToDraw("the profile has no figures of a device allocator")
    ends = [profile.peak_bytes, *(getattr(figures, name) for name in _NEEDED[1:])]
    for name, end in zip(_NEEDED, ends, strict=True):
        if end is None:
            raise NothingToDraw(f"{name.replace('_', ' ')}: {figures.reasons.get(name, 'not measured')}")
    return _figure([Way(profile.name, tuple(ends))], width_inches, 1)


def _figure(ways: list[Way], page_inches: float, known: int) -> Figure:
    columns = 1 if len(ways) == 1 or page_inches <= SINGLE_COLUMN_INCHES else 2
    rows = -(-len(ways) // columns)
    figure = blank(page_inches, 1.0)
    panel_inches = _ROW_INCHES * (len(STAGE_FILLS) + 1)
    foot, head, gap = 0.38, 0.2 + (NOTE_INCHES if len(ways) < known else 0), 0.25
    height = foot + rows * panel_inches + (rows - 1) * gap + head
    figure.set_size_inches(page_inches, height)
    names = max(width_points(figure, name) for name in [*map(_sum, STAGE_FILLS), _equals(_TOTAL)]) / 72 + 0.12
    grid = figure.subplots(
        rows,
        columns,
        sharex=True,
        sharey=True,
        squeeze=False,
        gridspec_kw={
            "left": names / page_inches,
            "right": 1 - 0.08 / page_inches,
            "bottom": foot / height,
            "top": 1 - head / height,
            "hspace": gap / panel_inches,
            "wspace": 0.06,
        },
    )
    largest = max(max(way.ends) for way in ways)
    room = _width_points(figure, grid.flat[0])
    beside = width_points(figure, text.signed_mib(largest)) + 6
    for axes, way in zip(grid.flat, ways, strict=False):
        axes.set_xlim(0, largest / MIB * room / max(room - beside, 1))
        _panel(figure, axes, way)
    for axes in grid.flat[len(ways) :]:
        axes.set_axis_off()
    for axes in grid.flat[max(0, len(ways) - columns) : len(ways)]:
        axes.tick_params(axis="x", labelbottom=True)
    middle = (names / page_inches + 1 - 0.08 / page_inches) / 2
    figure.supxlabel("bytes on the device (MiB)", x=middle, y=0.02 / height, fontsize="medium", va="bottom")
    say_left_out(figure, len(ways), known)
    return figure


def _panel(figure: Figure, axes: Axes, way: Way) -> None:
    start = 0
    for place, (end, fill) in enumerate(zip(way.ends, STAGE_FILLS.values(), strict=True)):
        size = end - start
        axes.barh(
            place,
            size / MIB,
            left=start / MIB,
            height=0.62,
            color=fill.color,
            hatch=fill.hatch,
            edgecolor="#333333",
            linewidth=0.3,
        )
        axes.plot([end / MIB] * 2, [place + 0.31, place + 0.69], color="#777777", linewidth=0.5)
        _value(axes, place, max(start, end), text.mib(size) if not place else text.signed_mib(size))
        start = end
    axes.barh(len(way.ends), start / MIB, height=0.62, color="white", edgecolor="#333333", linewidth=0.5)
    _value(axes, len(way.ends), start, text.mib(start))
    names = [_sum(name) if place else name for place, name in enumerate(STAGE_FILLS)]
    axes.set_yticks(range(len(names) + 1), [*names, _equals(_TOTAL)])
    axes.set_ylim(len(names) + 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    light_grid(axes, "x")
    axes.set_title(shortened(figure, text.printable(way.title), _width_points(figure, axes)), loc="left", pad=3)


def _width_points(figure: Figure, axes: Axes) -> float:
    box = axes.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    return float(box.width * 72 / figure.dpi)


def _value(axes: Axes, place: int, end: int, words: str) -> None:
    """Write ``words`` behind the end of a bar."""
    axes.annotate(
        words,
        (end / MIB, place),
        xytext=(3, 0),
        textcoords="offset points",
        va="center_baseline",
        bbox={"facecolor": "white", "linewidth": 0, "pad": 0.4},
    )


def _sum(name: str) -> str:
    return f"+ {name}"


def _equals(name: str) -> str:
    return f"= {name}"
