"""The verbs on a stranger's step: ``profile`` measures one, ``diff`` compares two."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dbbench.cli.app import Force, absolute, app, check_out, console, warn
from dbbench.files import check_own, probe


class ProfileDevice(StrEnum):
    """Where a profiled step runs; ``fake`` is fake tensors that stand for the CPU's."""

    cpu = "cpu"
    cuda = "cuda"
    fake = "fake"


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
    force: Force = False,
) -> None:
    """Show what a training step of your own holds in memory, by role, module and op.

    The callable makes everything anew each time it is asked: for the traced steps, and for the untraced ones that the
    device's allocator and the clock see.
    """
    from dbbench.profile.command import Order, profile_step
    from dbbench.profile.folder import save_profile
    from dbbench.profile.table import MemoryTable

    check_out(out, "profile", force)
    check_own(snapshot, "--snapshot", [b"\x80"], force)
    out, snapshot = absolute(out), absolute(snapshot)
    for path in (out and out / "profile.json", snapshot):
        if path is not None:
            probe(path)
    order = Order(steps, warmup, device.value, strict=strict, peak_flops_per_second=peak_flops, snapshot=snapshot)
    done = profile_step(target, order)
    console().print(MemoryTable(done.profile, rows))
    if out is not None:
        save_profile(out, done.profile, done.frame)
    if done.failure is not None:
        warn(f"{target}: {done.failure}")
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
        console().print(comparison)
