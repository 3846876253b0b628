"""The figures of a report, each a PNG for the screen and a PDF for the paper, one and two columns wide.

`FIGURES` names them in the order of the report, and `CUDA_FIGURES` those that only a run on CUDA has. A drawing is a
function of the run and its comparison table, and raises `NothingToDraw` where there is nothing to show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pandas as pd
from matplotlib.figure import Figure

from dbbench.report import (
    figure_flops,
    figure_learning,
    figure_memory_split,
    figure_pareto,
    figure_timeline,
    figure_waterfall,
)
from dbbench.report.figure_style import DOUBLE_COLUMN_INCHES, WIDTHS, NothingToDraw, page, save
from dbbench.report.run import Run
from dbbench.report.tables import trains_nothing


class Drawing(Protocol):
    """Draws a run's comparison at one of `WIDTHS`; raises NothingToDraw, with the reason, where nothing is there."""

    def __call__(self, run: Run, table: pd.DataFrame, width_inches: float = DOUBLE_COLUMN_INCHES) -> Figure: ...


#: name: (drawing, caption)
FIGURES: dict[str, tuple[Drawing, str]] = {
    "memory_split": (
        figure_memory_split.draw,
        "Live tensor bytes at the peak of a training step, by role; the total, and its ratio to backprop on the same "
        "network.",
    ),
    "pareto": (
        figure_pareto.draw,
        "The figure of merit against the peak; bars are one sample standard deviation over seeds.",
    ),
    "timeline": (
        figure_timeline.draw,
        "Live bytes over the traced step that holds the peak, by role, one scale for all panels; the background is "
        "the phase, the triangle the peak. The abscissa counts allocations and frees, not time.",
    ),
    "flops": (
        figure_flops.draw,
        "Floating-point operations by phase, and of the whole training; ratios are to backprop.",
    ),
    "learning": (
        figure_learning.draw,
        "The validation metric over the share of the budget spent: mean over seeds, band of one sample standard "
        "deviation. Variants with another budget are drawn over their own.",
    ),
}

#: Figures of what a network costs: without the rows of `dbbench.report.tables.trains_nothing`.
COSTS = ("memory_split", "pareto", "flops")
#: A caption names so many of them.
_NAMED = 12

CUDA_FIGURES: dict[str, tuple[Drawing, str]] = {
    "waterfall": (
        figure_waterfall.draw,
        "From the ledger's peak to what NVML books on the process: what kernels ask for besides, the allocator's "
        "rounding, what it keeps free or cannot use, and the CUDA context with its libraries.",
    ),
}


def figures_of(table: pd.DataFrame) -> dict[str, tuple[Drawing, str]]:
    """Return the figures that a run's report has; on a run without a cell on CUDA those of CUDA are not missing.

    The captions of `COSTS` name the rows that those leave out.
    """
    found = FIGURES | (CUDA_FIGURES if (table["source"] == "cuda").any() else {})
    absent = trains_nothing(table)
    if absent:
        rest = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
        note = f" Left out, for they train no parameters: {', '.join(absent[:_NAMED])}{rest}."
        found |= {name: (found[name][0], found[name][1] + note) for name in COSTS}
    return found


class Figures:
    """The figures of a run's comparison, each drawn once at each width, however many files and pages show it.

    A figure is drawn, and saved, under `figure_style.page`. Saving it leaves it as it was: what it is saved as next has
    the bytes that a fresh drawing would have.
    """

    def __init__(self, run: Run, table: pd.DataFrame) -> None:
        self.run, self.table = run, table
        self._drawn: dict[tuple[str, float], Figure | str] = {}

    @property
    def captions(self) -> dict[str, str]:
        """What stands below each figure, by name, in the order of the report."""
        return {name: caption for name, (_, caption) in figures_of(self.table).items()}

    def figure(self, name: str, width_inches: float) -> Figure:
        """Return one figure. Raises NothingToDraw, with the reason, where nothing is there."""
        if (name, width_inches) not in self._drawn:
            self._drawn[name, width_inches] = self._draw(name, width_inches)
        drawn = self._drawn[name, width_inches]
        if isinstance(drawn, str):
            raise NothingToDraw(drawn)
        return drawn

    def _draw(self, name: str, width_inches: float) -> Figure | str:
        try:
            return figures_of(self.table)[name][0](self.run, self.table, width_inches)
        except NothingToDraw as reason:
            return str(reason)


def write_figures(figures: Figures) -> dict[str, str]:
    """Write ``<name>.png`` and ``.pdf`` (two columns wide), ``<name>_one_column.png`` and ``.pdf`` into ``figures/``.

    Returns ``{name: reason}`` of those that had nothing to draw. An older drawing of such a figure is removed, for it
    would show another run than the tables do.
    """
    missing = {}
    for name in figures.captions:
        for ending, width_inches in WIDTHS.items():
            stem: Path = figures.run.folder.path / "figures" / f"{name}{ending}"
            with page():
                try:
                    save(figures.figure(name, width_inches), stem)
                except NothingToDraw as reason:
                    missing[name] = str(reason)
                    for suffix in (".png", ".pdf"):
                        stem.with_suffix(suffix).unlink(missing_ok=True)
    return missing
