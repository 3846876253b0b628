"""The command line: one short function a verb, which composes the rooms that the verb needs.

Whatever is heavy is imported inside the verb, so that ``dbbench --help`` imports no torch, pandas or matplotlib.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from dbbench.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console

    from dbbench.suite.cell import Cell


INTERRUPTED = 130

# torch's profiler library announces each of its stages on stderr unless told not to before torch is imported
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


class _Verbs(TyperGroup):
    """Turns what ends a verb early into its exit status: 2 for bad input, with one line, and 130 for Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BadInput as error:
            typer.echo(f"dbbench: {error}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            typer.echo("dbbench: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    cls=_Verbs,
    help="Measures what memory-efficient training methods cost and what they learn.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@dataclass(frozen=True)
class _Plan:
    """A suite's file, that file with what ``--set`` changed (as messages name it), the cells to run, and where the
    trials behind the suite's numbers are."""

    file: str
    where: str
    cells: list[Cell]
    tuning: str | None


class Device(StrEnum):
    """Where a cell trains; ``auto`` is CUDA where torch sees it."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class ProfileDevice(StrEnum):
    """Where a profiled step runs; ``fake`` is fake tensors that stand for the CPU's."""

    cpu = "cpu"
    cuda = "cuda"
    fake = "fake"


@app.command()
def run(
    suites: Annotated[list[str], typer.Argument(metavar="SUITE", help="A suite file, or a shipped suite's name.")],
    out: Annotated[Path | None, typer.Option(help="The run's folder. [default: runs/<suite>]")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the suite; repeatable.")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="FILTER", help="Cells to run: method=a,b,seed=0.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the grid and what each cell would train.")] = False,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.auto,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cells at a time. [default: what the cores allow; 1 on CUDA]")
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Also write a torch.profiler trace per method.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Redo the cells that are already there.")] = False,
) -> None:
    """Train and measure a suite's cells, then report.

    Only those cells run that the run's folder does not hold yet.
    """
    chosen = _choose_device(device, dry_run)
    plans = [_plan(suite, settings or [], only, chosen) for suite in suites]
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
    carry_out = partial(run_suite, jobs=jobs, fresh=fresh, trace=trace, console=_console())
    status = 0
    for plan, folder in zip(plans, folders, strict=True):
        name, cells = plan.cells[0].suite, plan.cells
        status = max(status, carry_out(cells, suite_name=name, suite_file=plan.file, out=folder, tuning=plan.tuning))
        if status == INTERRUPTED:
            break
    raise typer.Exit(status)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="A run's folder, such as runs/vision.")],
    claims: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also hold the paper's claims against these runs, as Markdown.")
    ] = None,
) -> None:
    """Rebuild a run's tables and figures from its folder."""
    from dbbench.report.claims import write_claims
    from dbbench.report.summary import print_summary, write_report

    for folder in runs:
        write_report(folder)
        print_summary(folder, _console())  # with what write_report had to leave out
    if claims is not None:
        for problem in write_claims(runs, claims):
            _console().print(f"claims: {problem}", markup=False)


@app.command()
def profile(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:CALLABLE", help="Gives (model, optimizer, step); or file.py:…")
    ],
    steps: Annotated[int, typer.Option(min=1, help="Steps to trace.")] = 1,
    warmup: Annotated[int, typer.Option(min=0, help="Steps before those: optimizer state appears in the first.")] = 1,
    device: Annotated[
        ProfileDevice, typer.Option(help="Where the step runs; fake holds no memory.")
    ] = ProfileDevice.cpu,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep the profile, its trace and a plot.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on an op whose FLOPs cannot be counted.")] = False,
    rows: Annotated[int, typer.Option(min=1, help="Lines of what is held at the peak.")] = 20,
    peak_flops: Annotated[float | None, typer.Option(min=1, help="The device's FLOP/s, for MFU and HFU.")] = None,
    snapshot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="On CUDA: torch's record, for memory_viz.")
    ] = None,
) -> None:
    """Show what a training step of your own holds in memory, by role, module and op.

    The callable makes everything anew each time it is asked: for the traced steps, and for the untraced ones that the
    device's allocator and the clock see.
    """
    from dbbench.profile.command import Order, profile_step
    from dbbench.profile.folder import save_profile
    from dbbench.profile.table import MemoryTable

    order = Order(steps, warmup, device.value, strict=strict, peak_flops_per_second=peak_flops, snapshot=snapshot)
    done = profile_step(target, order)
    _console().print(MemoryTable(done.profile, rows))
    if out is not None:
        save_profile(out, done.profile, done.frame)
    if done.failure is not None:
        typer.echo(f"dbbench: {target}: {done.failure}", err=True)
        raise typer.Exit(1)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="RUN_A", help="A run, RUN:VARIANT, or a saved profile's folder.")],
    after: Annotated[str, typer.Argument(metavar="RUN_B", help="What to compare it with, likewise.")],
    rows: Annotated[int, typer.Option(min=1, help="Changes to show of each variant.")] = 20,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Say what grew and what shrank at the peak between two runs, largest first."""
    from dbbench.profile.compare import compare_folders

    comparison = compare_folders(before, after, rows)
    if markdown:
        typer.echo(comparison.markdown(), nl=False)
    else:
        _console().print(comparison)


@app.command(name="list")
def list_all() -> None:
    """List the methods, tasks, networks and suites."""
    from rich.table import Table

    from dbbench.suite.load import shipped_suites

    table = Table("kind", "name", "what it is", box=None, pad_edge=False)
    for group in ("methods", "tasks", "networks"):
        for name, summary in _summaries(group):
            table.add_row(group[:-1], name, summary)
    for name, path in shipped_suites().items():
        table.add_row("suite", name, path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# "))
    _console().print(table)


@app.command()
def doctor() -> None:
    """Say what this machine can measure.

    What is missing stands with the command that installs it. The status is 1 if the default suite cannot run.
    """
    from rich.table import Table

    from dbbench.doctor import examine

    table = Table("", "what", "found", "to mend it", box=None, pad_edge=False)
    findings = examine()
    for finding in findings:
        table.add_row(finding.state, finding.what, finding.found, finding.remedy)
    _console().print(table)
    raise typer.Exit(1 if any(finding.state == "broken" for finding in findings) else 0)


def _console() -> Console:
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=160)


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


def _plan(reference: str, settings: list[str], only: str | None, device: Any) -> _Plan:
    """Read, change, check and expand a suite; the options of its methods, task and network wait for torch."""
    from dbbench.suite.expand import expand
    from dbbench.suite.load import load_suite
    from dbbench.suite.overrides import select, with_settings
    from dbbench.suite.schema import Suite, check

    raw, file = load_suite(reference)
    where = file
    suite = check(Suite, raw, where)
    if settings:
        where = " ".join([file, "with", *(f"--set {setting}" for setting in settings)])
        suite = check(Suite, with_settings(raw, settings), where)
    cells = expand(suite, device, where)
    return _Plan(file, where, cells if only is None else select(cells, only), suite.tuning)


def _folder(out: Path | None, suite: str, suites_count: int) -> Path:
    if out is None:
        return Path("runs") / suite
    return out / suite if suites_count > 1 else out


def _print_plan(plan: _Plan) -> None:
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
    console = _console()
    console.print(f"{plan.where}: {len(plan.cells)} cells")
    console.print(table)


def _summaries(group: str) -> list[tuple[str, str]]:
    """Return the name and the first docstring line of everything in a plugin group; a broken one says why."""
    import inspect

    from dbbench.plugins import find, known

    found = []
    for name in sorted(known(group)):
        try:
            summary = (inspect.getdoc(find(group, name, group)) or "").partition("\n")[0]
        except BadInput as error:
            summary = str(error)
        found.append((name, summary))
    return found
