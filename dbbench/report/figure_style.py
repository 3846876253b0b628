"""The page every figure is drawn on: column widths, fonts, and a file that is the same bytes on every build."""

from __future__ import annotations

import bisect
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from dbbench.errors import BadInput
from dbbench.files import write_atomically
from dbbench.report.palette import Fill
from dbbench.report.svg import smaller

SINGLE_COLUMN_INCHES = 3.35
DOUBLE_COLUMN_INCHES = 6.9
#: What a figure's file adds to its name at each width.
WIDTHS = {"": DOUBLE_COLUMN_INCHES, "_one_column": SINGLE_COLUMN_INCHES}
FONT_POINTS = 7.0
#: Values of which one is so many times another are many times apart: their axis is logarithmic.
_LOG_ABOVE = 8.0
#: A figure with a row or a line a variant shows so many: what fits a page, and what can be told apart. Of more than
#: that it is a sample, which need not fill the page.
MOST_VARIANTS, SAMPLE = 24, 12
MIB = 2**20
QUIET = "#6E6E6E"
#: The room that `say_left_out` takes.
NOTE_INCHES = 0.17
PNG_DPI = 200

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so a figure does not depend on the machine's fonts
    "font.size": FONT_POINTS,
    "axes.titlesize": FONT_POINTS,
    "axes.labelsize": FONT_POINTS,
    "xtick.labelsize": FONT_POINTS,
    "ytick.labelsize": FONT_POINTS,
    "legend.fontsize": FONT_POINTS,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "hatch.linewidth": 0.4,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.2,
    "pdf.fonttype": 42,
    "pdf.compression": 6,
    "path.simplify": True,
    "svg.hashsalt": "dbbench",
    "text.parse_math": False,  # a variant may be called "a$b$"
}

#: What is written into a file of each kind: nothing that another build would write otherwise.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    ".svg": {"Creator": None, "Date": None, "Format": None, "Type": None},
}
#: What a figure can be.
SUFFIXES = tuple(_METADATA)
_SAVED = (".png", ".pdf")


Item = TypeVar("Item")


class NothingToDraw(Exception):
    """A figure has no data; its text says which, and stands in the report in the figure's place."""


@contextmanager
def page() -> Iterator[None]:
    """Draw under matplotlib's own defaults and ours, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def blank(width_inches: float, height_inches: float) -> Figure:
    """A figure of that size with a canvas, unknown to pyplot, so that nothing is shown or leaked."""
    figure = Figure(figsize=(width_inches, height_inches))
    FigureCanvasAgg(figure)
    return figure


def drawable(items: Sequence[Item]) -> list[Item]:
    """Return the variants to draw: all, or a sample of `SAMPLE` evenly over their order where no page holds them."""
    return evenly(items, MOST_VARIANTS if len(items) <= MOST_VARIANTS else SAMPLE)


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most ``most`` of the items, the first and the last among them, evenly spaced in their order."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def say_left_out(figure: Figure, shown: int, of: int, words: str = "variants, evenly over the run's order") -> None:
    """Write at the head of a figure that it shows ``shown`` of ``of``; nothing where it shows all."""
    if shown < of:
        inches = figure.get_size_inches()[1]
        figure.text(0.01, 1 - 0.03 / inches, f"{shown:,} of {of:,} {words}", va="top", color=QUIET)


def save(figure: Figure, stem: Path) -> None:
    """Write ``stem.png`` (200 dpi) and ``stem.pdf`` (fonts embedded as Type 42), without dates or versions."""
    for suffix in _SAVED:
        save_as(figure, stem.with_suffix(suffix))


def save_as(figure: Figure, path: Path) -> None:
    """Write the one file ``path``, PNG, PDF or SVG by its suffix. Raises BadInput for another suffix."""
    suffix = path.suffix.lower()
    if suffix not in _METADATA:
        raise BadInput(f"{path}: a figure is a {' or a '.join(SUFFIXES)} file, not '{path.suffix}'")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix[1:], dpi=PNG_DPI, metadata=_METADATA[suffix])
    write_atomically(path, buffer.getvalue())


def as_svg(figure: Figure) -> str:
    """Return ``figure`` as an SVG document, glyphs as paths, without dates or versions: the same text on every build.

    Its ids are hashes salted alike in every figure, so several of these go into one page as images, not inline.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata=_METADATA[".svg"])
    return smaller(buffer.getvalue().decode("utf-8"))


def width_points(figure: Figure, words: str) -> float:
    """Return how wide ``words`` are, in points, as the page sets them."""
    probe = Text(0, 0, words, figure=figure)
    return _points(figure, probe.get_window_extent(_renderer(figure)).width)


def shortened(figure: Figure, words: str, limit_points: float) -> str:
    """Return ``words``, cut in the middle with an ellipsis until they fit: both ends of a label tell it apart."""
    if width_points(figure, words) <= limit_points:
        return words

    def cut(keep: int) -> str:
        return f"{words[: (keep + 1) // 2]}…{words[len(words) - keep // 2 :]}" if keep > 1 else "…"

    fits = bisect.bisect_left(range(2, len(words)), True, key=lambda k: width_points(figure, cut(k)) > limit_points)
    return cut(fits + 1)


def wrapped(figure: Figure, words: str, limit_points: float, lines: int = 2) -> str:
    """Return ``words`` broken after underscores and spaces into at most ``lines`` lines, the last one shortened."""
    rows: list[str] = []
    rest = words
    while rest and len(rows) < lines - 1 and width_points(figure, rest) > limit_points:
        breaks = [
            i + 1
            for i, c in enumerate(rest[:-1])
            if c in "_ ,[" and width_points(figure, rest[: i + 1]) <= limit_points
        ]
        if not breaks:
            break
        rows.append(rest[: breaks[-1]].rstrip())
        rest = rest[breaks[-1] :]
    return "\n".join([*rows, shortened(figure, rest, limit_points)])


def first_fitting(figure: Figure, candidates: Sequence[str], limit_points: float) -> str:
    """Return the first of ``candidates`` that is no wider than the limit as the page sets it, else the last."""
    return next((words for words in candidates if width_points(figure, words) <= limit_points), candidates[-1])


def swatch(fill: Fill, label: str) -> Patch:
    """A legend's patch for an area filled as ``fill``."""
    return Patch(facecolor=fill.color, hatch=fill.hatch, edgecolor="#333333", linewidth=0.4, label=label)


def legend_below(figure: Figure, handles: list[Any], limit_points: float) -> Legend:
    """Put a legend at the foot of the figure in as many columns as fit its width."""
    return _legend(figure, handles, limit_points, loc="lower center")


def legend_at_top(figure: Figure, handles: list[Any], limit_points: float) -> Legend:
    """Put a legend at the head of the figure in as many columns as fit its width."""
    return _legend(figure, handles, limit_points, loc="upper left", handletextpad=0.3)


def _legend(figure: Figure, handles: list[Any], limit_points: float, **options: Any) -> Legend:
    count = len(handles)
    for columns in dict.fromkeys(-(-count // rows) for rows in range(1, count + 1)):  # columns of even length
        legend = figure.legend(handles=handles, ncols=columns, borderaxespad=0.2, **options)
        if columns == 1 or _points(figure, legend.get_window_extent(_renderer(figure)).width) <= limit_points:
            return legend
        legend.remove()
    raise ValueError("a legend needs a handle")


def _renderer(figure: Figure) -> Any:
    return figure.canvas.get_renderer()  # type: ignore[attr-defined]


def _points(figure: Figure, pixels: float) -> float:
    return float(pixels * 72 / figure.dpi)


def height_inches(figure: Figure, artist: Any) -> float:
    """Return how tall an artist of the figure is when drawn."""
    return _points(figure, artist.get_window_extent(_renderer(figure)).height) / 72


def logarithmic_if_wide(axes: Axes, which: Literal["x", "y"], values: Iterable[float]) -> bool:
    """Make an axis logarithmic, in plain numbers, where all values are positive and one is many times another.

    On a linear one the small would lie on top of one another. Returns whether it did; the limits are left to others.
    """
    found = [float(value) for value in values]
    if not found or min(found) <= 0 or max(found) <= _LOG_ABOVE * min(found):
        return False
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    return True


def light_grid(axes: Axes, axis: Any) -> None:
    """Draw hairlines behind the data along one axis."""
    axes.grid(axis=axis, color="#DDDDDD", linewidth=0.4)
    axes.set_axisbelow(True)


def stacked_bar(axes: Axes, place: float, height: float, parts: Iterable[tuple[float, Fill]]) -> float:
    """Draw ``parts`` (length, fill) end to end as a horizontal bar; return their sum. Nulls and zeros are left out."""
    left = 0.0
    for length, fill in parts:
        if pd.isna(length) or not length:
            continue
        axes.barh(
            place,
            length,
            left=left,
            height=height,
            color=fill.color,
            hatch=fill.hatch,
            edgecolor="#333333",
            linewidth=0.3,
        )
        left += length
    return left
