"""The report of a run: everything a reader needs to believe its table, built from the run's folder alone.

    write_report(Path("runs/vision"))

Building it twice gives the same bytes, so a committed report can be checked against its records.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from dbbench.errors import BadInput
from dbbench.report import sections, tables, text
from dbbench.report.document import Block, Bullets, markdown, markdown_section, plain
from dbbench.report.figure_style import NothingToDraw
from dbbench.report.figure_timeline import replay
from dbbench.report.figures import figures_of, write_figures
from dbbench.report.page import write_page
from dbbench.report.run import Run, load
from dbbench.report.verdict import bullets, verdict
from dbbench.results.roles import ROLES
from dbbench.results.store import write_atomically


def write_report(folder: Path) -> list[str]:
    """Build result tables, ``summary.md``, ``summary.csv``, ``report.html`` and ``figures/`` of the run in ``folder``.

    Returns one line for each file that could not be used; they are printed in the summary too, and the rest of the
    report is built without them. Raises BadInput where not one record can be read.
    """
    run = load(folder)
    run.problems.extend(_file_problems(run))
    table = tables.comparison(run)
    run.folder.write_tables()
    undrawn = write_figures(run, table)
    write_atomically(folder / "summary.csv", tables.to_csv(table))
    write_atomically(folder / "summary.md", summary_markdown(run, table, undrawn).encode())
    write_page(folder / "report.html", [run])
    return run.problems


def print_summary(folder: Path, console: Console) -> None:
    """Print the tables and the verdict that end a run."""
    run = load(folder)
    table = tables.comparison(run)
    for grid in tables.rich_tables(table):
        console.print(grid)
    console.print(plain(verdict(run, table)), markup=False, highlight=False)
    for problem in run.problems:
        console.print(f"left out: {problem}", markup=False, highlight=False)


def summary_markdown(run: Run, table: pd.DataFrame, undrawn: dict[str, str]) -> str:
    """Return ``summary.md``."""
    title = f"# {text.escaped(run.name)}: what training costs and what it learns"
    each = bullets(run, table)
    opening: list[Block] = [verdict(run, table), sections.unfinished(run), Bullets(each), sections.note_on_tests(each)]
    parts = [title, *(shown for block in opening if (shown := markdown(block)))]
    above, below = sections.of_report(run, table)
    parts += [*map(markdown_section, above), "## Figures", *_figures(table, undrawn), *map(markdown_section, below)]
    return "\n\n".join(parts) + "\n"


def _figures(table: pd.DataFrame, undrawn: dict[str, str]) -> list[str]:
    found = []
    for name, (_, caption) in figures_of(table).items():
        title = name.replace("_", " ")
        if name in undrawn:
            found.append(f"*{title}*: not drawn, {text.escaped(undrawn[name])}.")
        else:
            found.append(f"![{title}](figures/{name}.png)\n\n{caption} ([PDF](figures/{name}.pdf))")
    return found


def _file_problems(run: Run) -> list[str]:
    """Read every trace and curve once: what is torn is said, and a trace must rise to the peak its record names."""
    problems = []
    for record in run.records:
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
