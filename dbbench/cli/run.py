"""The verbs that train and measure: ``run``, and ``report`` on what it left."""

from __future__ import annotations

import os
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dbbench.cli.app import INTERRUPTED, Force, Only, Plan, Settings, app, console, make_plan
from dbbench.errors import BadInput
from dbbench.files import check_outputs, check_own, probe

if TYPE_CHECKING:
    from dbbench.suite.cell import Cell


class Device(StrEnum):
    """Where a cell trains; ``auto`` is CUDA where torch sees it."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@app.command()
def run(
    suites: Annotated[list[str], typer.Argument(metavar="SUITE", help="A suite file, or a shipped suite's name.")],
    out: Annotated[Path | None, typer.Option(help="The run's folder. [default: runs/<suite>]")] = None,
    settings: Settings = None,
    only: Only = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the grid and what each cell would train.")] = False,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.auto,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cells at a time. [default: what the cores allow; 1 on CUDA]")
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Also write a torch.profiler trace per method.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Redo the cells that are already there.")] = False,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Time the variants against each other when all have trained.")
    ] = True,
    log: Annotated[
        list[str] | None, typer.Option("--log", metavar="TRACKER", help="Also to tensorboard, wandb or mlflow.")
    ] = None,
) -> None:
    """Train and measure a suite's cells, then report.

    Only those cells run that the run's folder does not hold yet.
    For example: dbbench run smoke --only method=backprop,greedy --out runs/try
    """
    if log:
        from dbbench.loggers import check_loggers, log_run

        check_loggers(log)
    chosen = _choose_device(device, dry_run)
    plans = [make_plan(suite, settings or [], only, chosen) for suite in suites]
    folders = [_folder(out, plan.cells[0].suite, len(plans)) for plan in plans]
    if len(set(folders)) < len(folders):
        raise BadInput("two of the suites have the same name, so they would share a folder; run them one by one")
    if dry_run:
        for plan in plans:
            _print_plan(plan)
        return

    from dbbench.harness.resolve import resolve
    from dbbench.harness.scheduler import run_suite

    for plan in plans:
        resolve(plan.cells, plan.where)
        if only:
            words = f"--only {only} takes {len(plan.cells)} of the {plan.of} cells of {plan.file}"
            console().print(words, markup=False, soft_wrap=True)
    carry_out = partial(run_suite, jobs=jobs, fresh=fresh, trace=trace, timing=timing, console=console())
    status = 0
    for plan, folder in zip(plans, folders, strict=True):
        name, cells = plan.cells[0].suite, plan.cells
        status = max(status, carry_out(cells, suite_name=name, suite_file=plan.file, out=folder, tuning=plan.tuning))
        if status == INTERRUPTED:
            break
        for line in log_run(folder, log) if log else ():
            console().print(line, markup=False, soft_wrap=True)
    raise typer.Exit(status)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="A folder of run, fit or scaling, such as runs/vision.")
    ],
    claims: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also hold the paper's claims against these runs, as Markdown.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the page of several runs together goes.")] = Path(
        "report"
    ),
    force: Force = False,
) -> None:
    """Rebuild the tables, figures and report.html of runs, and the tables of fits and scalings, from their folders.

    Several runs also get one page over all of them, in --out.
    """
    from dbbench.report.claims import write_claims
    from dbbench.results.fit import FIT_FILE
    from dbbench.results.scaling import SCALING_FILE

    others = (FIT_FILE, SCALING_FILE)
    trained = [folder for folder in runs if not any(os.path.lexists(folder / name) for name in others)]
    if len(trained) > 1:
        _check_out(out, runs)
        check_own(out / "report.html", "--out", [b'content="dbbench"', b'<meta http-equiv="Content-Security'], force)
        probe(out / "report.html")
    if claims is not None:
        check_outputs({"--claims": claims}, {f"the run {folder}": folder for folder in runs})
        check_own(claims, "--claims", [b"# The claims of DiffusionBlocks"], force)
        probe(claims)
    for folder in runs:
        _rebuild(folder)
    if len(trained) > 1:
        _write_joint_page(trained, out)
    if claims is not None:
        for problem in write_claims([folder for folder in runs if not (folder / FIT_FILE).exists()], claims):
            console().print(f"claims: {problem}", markup=False)


def _check_out(out: Path, runs: list[Path]) -> None:
    """Refuse a folder for the page of several runs that a run's own page, or a file, is in the way of."""
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {out}: is a file, not a folder")
    if os.path.realpath(out) in map(os.path.realpath, runs):
        raise BadInput(f"--out {out}: is one of the runs, which has a report.html of its own; name another folder")


def _write_joint_page(folders: list[Path], out: Path) -> None:
    from dbbench.report.page import write_page
    from dbbench.report.summary import load_checked

    write_page(out / "report.html", [load_checked(folder) for folder in folders])
    console().print(f"the page of {len(folders)} runs: {out / 'report.html'}")


def _rebuild(folder: Path) -> None:
    """Build a folder's tables and figures from its results, and print the tables."""
    from dbbench.results.fit import FIT_FILE, read_fit
    from dbbench.results.scaling import SCALING_FILE, read_scaling

    if os.path.lexists(folder / FIT_FILE):
        from dbbench.report import fit_table

        fit = read_fit(folder)
        fit_table.write_fit(folder, fit)
        tables = fit_table.rich_tables(fit)
    elif os.path.lexists(folder / SCALING_FILE):
        from dbbench.report import scaling_table

        scaling = read_scaling(folder)
        scaling_table.write_scaling(folder, scaling)
        tables = scaling_table.rich_tables(scaling)
    else:
        from dbbench.report.summary import write_report

        write_report(folder, console())
        return
    for table in tables:
        console().print(table)


def _choose_device(device: Device, dry_run: bool) -> Any:
    """Return ``cpu`` or ``cuda``; a dry run may ask for a device that is not here."""
    if device is Device.cpu or (dry_run and device is Device.cuda):
        return device.value
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device is Device.cuda:
        raise BadInput(f"--device cuda: torch {torch.__version__} sees no CUDA device here (dbbench doctor says more)")
    return "cpu"


def _folder(out: Path | None, suite: str, suites_count: int) -> Path:
    if out is None:
        return Path("runs") / suite
    return out / suite if suites_count > 1 else out


def _print_plan(plan: Plan) -> None:
    """Print a row for each set of cells that differ in their seed alone."""
    from rich.table import Table

    from dbbench.harness.resolve import describe

    seeds: dict[str, list[int]] = {}
    firsts: dict[str, Cell] = {}
    for cell in plan.cells:
        key = cell.model_dump_json(exclude={"seed"})
        firsts.setdefault(key, cell)
        seeds.setdefault(key, []).append(cell.seed)
    rows = [describe(cell, plan.where) | {"seeds": ", ".join(map(str, seeds[key]))} for key, cell in firsts.items()]
    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), overflow="fold")  # spaces let a heading wrap, and nothing is cut
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    out = console()
    out.print(f"{plan.where}: {len(plan.cells)} cells")
    out.print(table)
