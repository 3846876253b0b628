"""The report of a run: everything a reader needs to believe its table, built from the run's folder alone.

    write_report(Path("runs/vision"))

Building it twice gives the same bytes, so a committed report can be checked against its records.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from dbbench.errors import BadInput
from dbbench.files import write_atomically
from dbbench.report import latex, sections, tables, text
from dbbench.report.document import Block, Bullets, code, markdown, markdown_section, plain
from dbbench.report.figure_style import NothingToDraw, evenly
from dbbench.report.figure_timeline import replay
from dbbench.report.figures import Figures, figures_of, write_figures
from dbbench.report.page import write_page
from dbbench.report.run import Run, load
from dbbench.report.verdict import bullets, verdict
from dbbench.results.frames import in_order, metrics_frame, rows_frame, suite_order
from dbbench.results.roles import ROLES
from dbbench.results.store import to_csv

#: Rows of a table in ``summary.md`` and in the terminal: beyond that it is ``summary.csv`` that is read.
_ROWS_WRITTEN, _ROWS_PRINTED = 300, 60


def write_report(folder: Path, console: Console | None = None) -> list[str]:
    """Build result tables, ``summary.md``, ``summary.csv``, ``report.html``, ``figures/`` and ``tables/`` of a run.

    What `print_summary` prints goes to ``console`` where one is given, without reading the folder a second time.
    Returns one line for each file that could not be used; they are printed in the summary too, and the rest of the
    report is built without them. Raises BadInput where not one record can be read.
    """
    run = load_checked(folder)
    table = tables.comparison(run)
    order = suite_order(run.info)
    run.folder.write_frames(rows_frame(in_order(run.records, order)), metrics_frame(run.records, order))
    figures = Figures(run, table)
    undrawn = write_figures(figures)
    latex.write_tables(folder, run, table)
    write_atomically(folder / "summary.csv", to_csv(table))
    write_atomically(folder / "summary.md", summary_markdown(run, table, undrawn).encode())
    write_page(folder / "report.html", [run], figures)
    if console is not None:
        _print(run, table, console)
    return run.problems


def load_checked(folder: Path) -> Run:
    """Read the run in ``folder`` and its traces and curves; those that cannot be used are among its problems."""
    run = load(folder)
    run.problems.extend(_file_problems(run))
    return run


def print_summary(folder: Path, console: Console) -> None:
    """Print the tables and the verdict that end a run."""
    run = load(folder)
    _print(run, tables.comparison(run), console)


def _print(run: Run, table: pd.DataFrame, console: Console) -> None:
    shown = _some(table, _ROWS_PRINTED)
    for grid in tables.rich_tables(shown):
        console.print(grid)
    if len(shown) < len(table):
        console.print(f"{_share(shown, table)}; all of them: summary.csv", markup=False, highlight=False)
    console.print(plain(verdict(run, table)), markup=False, highlight=False)
    for problem in run.problems:
        console.print(f"left out: {problem}", markup=False, highlight=False)


def summary_markdown(run: Run, table: pd.DataFrame, undrawn: dict[str, str]) -> str:
    """Return ``summary.md``."""
    shown = _some(table, _ROWS_WRITTEN)
    kept = set(shown["variant"])
    part = replace(run, configurations=[c for c in run.configurations if c.label in kept])
    title = f"# {text.escaped(run.name)}: what training costs and what it learns"
    each = bullets(run, shown)
    opening: list[Block] = [verdict(run, table), sections.unfinished(run)]
    if len(shown) < len(table):
        opening.append(f"The tables below show {_share(shown, table)}. All of them stand in {code('summary.csv')}.")
    opening += [Bullets(each), sections.note_on_tests(each)]
    parts = [title, *(said for block in opening if (said := markdown(block)))]
    above, below = sections.of_report(part, shown, whole=run)
    parts += [*map(markdown_section, above), "## Figures", *_figures(table, undrawn), *map(markdown_section, below)]
    return "\n\n".join(parts) + "\n"


def _figures(table: pd.DataFrame, undrawn: dict[str, str]) -> list[str]:
    found = []
    for name, (_, caption) in figures_of(table).items():
        title = name.replace("_", " ")
        if name in undrawn:
            found.append(f"*{title}*: not drawn, {text.escaped(undrawn[name])}.")
        else:
            files = f"[PDF](figures/{name}.pdf), [in one column](figures/{name}_one_column.pdf)"
            found.append(f"![{title}](figures/{name}.png)\n\n{text.escaped(caption)} ({files})")
    return found


def _some(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return the rows that a page can show: all, or ``most`` of them evenly over the run's order."""
    return table.iloc[evenly(range(len(table)), most)]


def _share(shown: pd.DataFrame, table: pd.DataFrame) -> str:
    return f"{len(shown):,} of {len(table):,} rows, evenly over the run's order"


def _file_problems(run: Run) -> list[str]:
    """Read traces and curves: what is torn is said, and a trace must rise to the peak its record names.

    Of a run of thousands of cells some are looked at, evenly over its order; `sections.provenance` says of how many.
    """
    problems = []
    for record in evenly(run.records, sections.FILES_READ):
        name = record.row.config_hash
        try:
            run.folder.read_curves(name)
        except BadInput as error:
            problems.append(str(error))
        try:
            trace = run.folder.read_trace(name)
            if trace is None or record.row.peak_bytes is None:
                continue
            problem = _trace_problem(trace, record.row.model_dump())
            problems += [f"traces/{name}.parquet: {problem}"] if problem else []
        except (BadInput, NothingToDraw) as error:
            problems.append(str(error))
    return problems


def _trace_problem(trace: pd.DataFrame, row: dict[str, object]) -> str:
    step = replay(trace)
    highest = int(step.total.max())
    if highest != row["peak_bytes"]:
        return f"rises to {highest} bytes, its record's peak is {row['peak_bytes']}"
    split = dict(zip(ROLES, np.asarray(step.live[step.peak_event]).tolist(), strict=True))
    wrong = [role for role in ROLES if row[f"{role}_bytes"] is not None and split[role] != row[f"{role}_bytes"]]
    return f"holds other bytes of {', '.join(wrong)} at the peak than its record" if wrong else ""
