"""The verbs that look beyond a suite's own cells on fake tensors: ``fit`` and ``scaling``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dbbench.cli.app import (
    HEADROOM,
    AllocConf,
    AsMarkdown,
    Force,
    Headroom,
    Only,
    Processes,
    Settings,
    absolute,
    app,
    check_out,
    console,
    make_plan,
    warn,
)
from dbbench.files import probe


class SearchOver(StrEnum):
    """What ``fit`` makes as large as it can."""

    batch = "batch"
    depth = "depth"
    sequence = "sequence"


class ScalingOver(StrEnum):
    """What ``scaling`` follows memory along."""

    depth = "depth"
    blocks = "blocks"
    batch = "batch"
    width = "width"
    sequence = "sequence"


Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep the results, tables and a figure there.")]


@app.command()
def fit(
    suites: Annotated[list[str], typer.Argument(metavar="SUITE", help="Suite files, or shipped suites' names.")],
    memory: Annotated[list[str], typer.Option(metavar="SIZE", help="A device's memory, such as 24GiB; repeatable.")],
    over: Annotated[SearchOver, typer.Option(help="What to make as large as fits.")] = SearchOver.batch,
    headroom: Headroom = HEADROOM,
    alloc_conf: AllocConf = "",
    highest: Annotated[
        int | None, typer.Option("--max", min=1, help="Where to stop. [default: 65536, 512 layers, 1048576 tokens]")
    ] = None,
    settings: Settings = None,
    only: Only = None,
    out: Out = None,
    processes: Processes = None,
    markdown: AsMarkdown = False,
    force: Force = False,
) -> None:
    """Find the largest batch, depth or length with which the training of each variant fits in a memory.

    Beside it stands whether a prediction on as large a batch fits too. Nothing is trained and no GPU is needed: steps
    run on fake tensors, and their allocations through a simulation of torch's caching allocator.
    """
    from dbbench.estimate.fit import find_largest
    from dbbench.report import fit_table
    from dbbench.sizes import parse_size

    sizes = sorted({parse_size(size, "--memory") for size in memory})
    left = parse_size(headroom, "--headroom", least=0)
    plans = [make_plan(suite, settings or [], only, "cpu") for suite in suites]
    check_out(out, "fit", force)
    out = absolute(out)
    if out is not None:
        probe(out / "fit.json")
    options: dict[str, Any] = {"allocator": alloc_conf, "highest": highest, "processes": processes}
    found = []
    for plan in plans:
        with _progress(plan.cells[0].suite) as progress:
            found.append(find_largest(plan.cells, over.value, sizes, left, plan.where, progress=progress, **options))
    lines = [line for one in found for line in one.lines]
    failed = {variant: why for one in found for variant, why in one.failed.items()}
    whole = found[0].model_copy(update={"lines": lines, "failed": failed})
    _show(fit_table.markdown(whole) if markdown else fit_table.rich_tables(whole), fit_table.method_of_search(whole))
    if out is not None and whole.lines:
        fit_table.write_fit(out, whole)
    _end(whole.failed)


@app.command()
def scaling(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or a shipped suite's name.")],
    over: Annotated[ScalingOver, typer.Option(help="The axis to follow memory along.")] = ScalingOver.depth,
    values: Annotated[
        str | None, typer.Option(metavar="N,N,…", help="Where on the axis. [default: around the suite's own value]")
    ] = None,
    settings: Settings = None,
    only: Only = None,
    out: Out = None,
    processes: Processes = None,
    markdown: AsMarkdown = False,
    force: Force = False,
) -> None:
    """Show how the peak and each role grow along an axis, with fitted exponents and the claims that they test."""
    from dbbench.estimate.axis import parse_values
    from dbbench.estimate.scaling import scale
    from dbbench.report import scaling_table

    plan = make_plan(suite, settings or [], only, "cpu")
    wanted = parse_values(values) if values is not None else None
    check_out(out, "scaling", force)
    out = absolute(out)
    if out is not None:
        probe(out / "scaling.json")
    with _progress(plan.cells[0].suite) as progress:
        found = scale(plan.cells, over.value, wanted, plan.where, processes, progress)
    _show(scaling_table.markdown(found) if markdown else scaling_table.rich_tables(found))
    if out is not None and found.lines:
        scaling_table.write_scaling(out, found)
    _end(found.failed)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal how many estimates are done; yields what is to be called with them."""
    with console(stderr=True).status(f"{name}: estimating") as status:
        yield lambda done, of: status.update(f"{name}: {done} of {of} estimates")


def _show(what: str | list[Any], words: str = "") -> None:
    if isinstance(what, str):
        typer.echo(what, nl=False)
        return
    for table in what:
        console().print(table)
        console().print()
    if words:
        console().print(words.replace("`", ""))


def _end(failed: dict[str, str]) -> None:
    for variant, why in failed.items():
        warn(f"{variant} {why}")
    if failed:
        raise typer.Exit(1)
