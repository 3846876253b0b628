"""The verbs that need no run: ``estimate`` says what one would take, ``calibrate`` holds that against a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dbbench.cli.app import (
    HEADROOM,
    AllocConf,
    AsMarkdown,
    Headroom,
    Only,
    Processes,
    Settings,
    absolute,
    app,
    console,
    make_plan,
)
from dbbench.errors import BadInput
from dbbench.files import probe

if TYPE_CHECKING:
    from dbbench.report.estimate_table import EstimateTable


@app.command()
def estimate(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or a shipped suite's name.")],
    device_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="A device to hold it against, such as h100-80gb.")
    ] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="A memory to fit in, such as 24GiB.")] = None,
    headroom: Headroom = HEADROOM,
    alloc_conf: AllocConf = "",
    settings: Settings = None,
    only: Only = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep it all, a folder like a run's.")] = None,
    processes: Processes = None,
    markdown: AsMarkdown = False,
) -> None:
    """Say what a suite's cells would take, without a GPU and without their memory.

    Peak memory by role, what the CUDA allocator would hold, FLOPs, and on a device whether that fits and how long a
    step takes at least. Exit status: 1 where a cell that has a cost could not be estimated, or there is none.
    """
    from dbbench.estimate.devices import device_model as named
    from dbbench.estimate.suite import estimate_suite, memory_budget
    from dbbench.harness.folder import check_folder
    from dbbench.sizes import parse_size

    device = None if device_model is None else named(device_model)
    size = None if memory is None else parse_size(memory, "--memory")
    budget = memory_budget(device, size, parse_size(headroom, "--headroom", least=0))
    plan = make_plan(suite, settings or [], only, "cpu")
    if out is not None:
        check_folder(out, "estimate")
        probe(out / "run.json")
    out = absolute(out)
    with _counting() as progress:
        estimates, records = estimate_suite(
            plan.cells, plan.where, allocator=alloc_conf, budget=budget, device=device, processes=processes,
            progress=progress,
        )  # fmt: skip

    from dbbench.report.estimate_table import table_of  # it imports pandas: not before the workers have ended

    table = table_of(estimates, records)
    if out is not None:
        _keep(out, plan.file, table)
    _show(table, markdown)
    failed = any(record.row.status != "ok" and not record.not_measurable for record in records)
    raise typer.Exit(1 if failed or not table.pairs else 0)


class CalibrationDevice(StrEnum):
    """What the estimates are held against; on the CPU it is a check of the program, without an allocator's figures."""

    cuda = "cuda"
    cpu = "cpu"


@app.command()
def calibrate(
    suite: Annotated[
        str, typer.Option("--suite", metavar="SUITE", help="A suite file, or a shipped suite's name.")
    ] = "calibration",
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the results go.")] = Path("runs/calibration"),
    device: Annotated[CalibrationDevice, typer.Option(help="What to measure on.")] = CalibrationDevice.cuda,
    seconds: Annotated[float, typer.Option(min=1, help="Begin no cell on the device after so long.")] = 480.0,
    settings: Settings = None,
    only: Only = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Estimates at a time. [default: by the cores]")] = None,
) -> None:
    """Hold estimates against a GPU: the error of every role, of allocated and of reserved bytes.

    Each cell is estimated first, then measured in a process of its own, with the time of its step.
    """
    from dbbench.estimate.calibrate import calibrate as run_calibration
    from dbbench.estimate.calibrate import check_calibration_folder, processes_here

    if device is CalibrationDevice.cuda:
        import torch

        if not torch.cuda.is_available():
            raise BadInput(
                f"calibrate needs a CUDA device, and torch {torch.__version__} sees none here; "
                "--device cpu checks small models against the CPU"
            )
    plan = make_plan(suite, settings or [], only, device.value)
    check_calibration_folder(out)
    out = out.absolute()
    probe(out / "calibration.json")
    with _counting() as progress:
        found = run_calibration(
            plan.cells,
            plan.where,
            seconds=seconds,
            processes=processes or processes_here(),
            progress=lambda stage, done, of, variant: progress(done, of, f"{variant}, {stage}"),
        )

    from dbbench.report.calibration_table import large_errors, rich_table, summary, write_calibration

    screen = console()
    screen.print(rich_table(found))
    for line in [*summary(found), *(f"over 1 %: {line}" for line in large_errors(found))]:
        screen.print(line)
    write_calibration(out, found)
    raise typer.Exit(0 if all(cell.compared for cell in found.cells) else 1)


@contextmanager
def _counting() -> Iterator[Callable[[int, int, str], None]]:
    """Give what shows, on a terminal, how many cells are done, of how many, and the last one."""
    screen = console()
    if not screen.is_terminal:
        yield lambda done, of, variant: None
        return
    with screen.status("estimating …") as status:
        yield lambda done, of, last: status.update(f"{done} of {of}, the last {last}")


def _show(table: EstimateTable, markdown: bool) -> None:
    if markdown:
        typer.echo(table.markdown(), nl=False)
        return
    screen = console()
    screen.print(table.rich())
    for note in [*(f"not estimated: {failure}" for failure in table.failures), *table.notes()]:
        screen.print(note)


def _keep(out: Path, suite_file: str, table: EstimateTable) -> None:
    from dbbench.harness.folder import locked
    from dbbench.harness.provenance import git_commit
    from dbbench.report.estimate_table import write_estimates
    from dbbench.results.record import SCHEMA_VERSION

    info = {
        "schema_version": SCHEMA_VERSION,
        "suite": table.estimates.suite,
        "suite_file": Path(suite_file).name if Path(suite_file).is_absolute() else suite_file,
        "estimated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "torch_version": table.estimates.torch_version,
        "dbbench_version": table.estimates.dbbench_version,
    }
    with locked(out, "estimate"):
        write_estimates(out, table, info)
