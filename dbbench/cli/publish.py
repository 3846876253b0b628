"""The verbs for a paper and for two runs: ``figure`` draws one, ``compare`` says what differs between two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dbbench.cli.app import AsMarkdown, Force, app, console, warn
from dbbench.files import check_own, probe

#: How a figure's file begins: a PDF, a PNG, an SVG.
FIGURE_MARKS = (b"%PDF-", b"\x89PNG", b"<svg", b"<?xml")


@app.command()
def figure(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="memory-split, pareto, timeline, flops, learning, waterfall (CUDA), or scaling."
        ),
    ],
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Runs' folders, one figure over all; of scaling for scaling.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .pdf, .png or .svg. [default: NAME.pdf here]")
    ] = None,
    columns: Annotated[int, typer.Option(min=1, max=2, help="A paper's columns that it spans.")] = 2,
    force: Force = False,
) -> None:
    """Draw one figure of one or several runs, for a paper: embedded fonts, the same bytes every time."""
    from dbbench.report.one_figure import write_figure

    path = Path(f"{name.replace('_', '-')}.pdf") if out is None else out
    check_own(path, "--out", FIGURE_MARKS, force)
    if all(run.is_dir() for run in runs) and path.suffix and not path.is_dir():
        probe(path)
    path = write_figure(name, runs, out, columns, warn)
    console().print(f"{path}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(metavar="RUN_A", help="A run's folder.")],
    after: Annotated[Path, typer.Argument(metavar="RUN_B", help="The folder of what to compare with it.")],
    markdown: AsMarkdown = False,
    mismatched: Annotated[
        bool, typer.Option("--mismatched", help="Compare although configurations differ; they are named.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Also show what is the same, or differs within noise.")] = False,
) -> None:
    """Say which figures of two runs differ: peaks by role, FLOPs, speed and metric, with a verdict on each.

    What grew inside a peak, by module and op, is what `dbbench diff` shows.
    """
    from dbbench.report import run_comparison_table
    from dbbench.report.run import load
    from dbbench.report.run_comparison import NOTES, compare_runs

    one, two = load(before), load(after)
    comparison = compare_runs(one, two, mismatched)
    problems = [f"left out of {path}: {line}" for path, run in ((before, one), (after, two)) for line in run.problems]
    if markdown:
        typer.echo(run_comparison_table.markdown(comparison, every), nl=False)
        for line in problems:
            warn(f"{line}")
        return
    out = console()
    if run_comparison_table.shown_rows(comparison, every):
        out.print(run_comparison_table.rich_table(comparison, every))
    out.print(run_comparison_table.count_of_rest(comparison) + ("" if every else " --all shows every one."))
    for line in [*comparison.notes, *problems]:
        out.print(line, soft_wrap=True)
    out.print(NOTES)
