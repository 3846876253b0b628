"""One figure of one or several runs, or of a scaling, into a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from dbbench.errors import BadInput, did_you_mean
from dbbench.report import figure_scaling, tables
from dbbench.report.figure_style import (
    DOUBLE_COLUMN_INCHES,
    SINGLE_COLUMN_INCHES,
    SUFFIXES,
    NothingToDraw,
    page,
    save_as,
)
from dbbench.report.figures import CUDA_FIGURES, FIGURES, Drawing
from dbbench.report.run import Run, load
from dbbench.report.together import folder_names, together
from dbbench.results.scaling import SCALING_FILE, read_scaling

_DRAWINGS: dict[str, Drawing] = {name.replace("_", "-"): draw for name, (draw, _) in (FIGURES | CUDA_FIGURES).items()}
SCALING = "scaling"
NAMES = (*_DRAWINGS, SCALING)
#: The figures that are drawn from traces or curves, not from records alone.
READ_FILES = ("timeline", "learning")


def write_figure(
    name: str,
    folders: Sequence[Path],
    out: Path | None = None,
    columns: int = 2,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Draw the figure ``name`` (one of `NAMES`) of ``folders`` and return the file it is in, ``NAME.pdf`` by default.

    ``columns`` is 1 or 2: how many of a paper's columns it spans. ``tell`` gets a line for each file of a run that
    cannot be read, and is left out. Raises BadInput, one line, for an unknown name or
    kind of file, a folder of another kind, or where there is nothing to draw, with the reason.
    """
    name = name.replace("_", "-")
    if name not in NAMES:
        raise BadInput(f"figure: no figure '{name}'{did_you_mean(name, NAMES)}")
    path = Path(f"{name}.pdf") if out is None else out
    if path.suffix.lower() not in SUFFIXES:
        raise BadInput(f"--out {path}: a figure is a {', '.join(SUFFIXES)} file, not '{path.suffix}'")
    if path.is_dir():
        raise BadInput(f"--out {path}: is a folder")
    drawing = _scaling(folders) if name == SCALING else _of_runs(name, folders, tell)
    width_inches = SINGLE_COLUMN_INCHES if columns == 1 else DOUBLE_COLUMN_INCHES
    with page():
        try:
            figure = drawing(width_inches)
        except NothingToDraw as reason:
            where = ", ".join(map(str, folders))
            raise BadInput(f"{where}: no figure {name}: {reason}; nothing was written") from reason
        save_as(figure, path)
    return path


def _of_runs(name: str, folders: Sequence[Path], tell: Callable[[str], None]) -> Callable[[float], Figure]:
    for folder in folders:
        if (folder / SCALING_FILE).exists():
            raise BadInput(f"{folder}: is a scaling, and {name} is a figure of runs; name the figure {SCALING}")
    runs = [_read(name, folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        for problem in run.problems:
            tell(f"left out of {folder}: {problem}")
    run = together(runs)
    table = tables.comparison(run)
    return lambda width_inches: _DRAWINGS[name](run, table, width_inches)


def _read(name: str, folder: Path) -> Run:
    """Return the run in ``folder``, its traces and curves looked at where the figure is drawn from them."""
    if name not in READ_FILES:
        return load(folder)
    from dbbench.report.summary import load_checked  # with all that a page needs

    return load_checked(folder)


def _scaling(folders: Sequence[Path]) -> Callable[[float], Figure]:
    scalings = [read_scaling(folder) for folder in folders]
    first = scalings[0]
    for folder, other in zip(folders[1:], scalings[1:], strict=True):
        if other.axis != first.axis:
            where = f"{folder}: is over {other.axis}, and {folders[0]} over {first.axis}"
            raise BadInput(f"{where}; one figure has one axis")
    if len(scalings) == 1:
        return lambda width_inches: figure_scaling.draw(first, width_inches)
    lines = [
        line.model_copy(update={"variant": f"{name}: {line.variant}"})
        for name, scaling in zip(folder_names(folders), scalings, strict=True)
        for line in scaling.lines
    ]
    values = sorted({value for scaling in scalings for value in scaling.values})
    whole = first.model_copy(update={"lines": lines, "values": values})
    return lambda width_inches: figure_scaling.draw(whole, width_inches)
