"""Cells that train in about a second, and a console that writes into a string."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console

from dbbench.harness.scheduler import run_suite
from dbbench.results.store import RunFolder
from dbbench.suite.cell import Budget, Cell, NetworkChoice, OptimizerChoice, TaskChoice


def make_cell(variant: str, method: str = "backprop", seed: int = 0, **changes: Any) -> Cell:
    """Return a cell of ten steps on the digits, which trains in about a second."""
    body = {
        "suite": "tiny",
        "variant": variant,
        "method": method,
        "options": {},
        "task": TaskChoice(name="digits"),
        "network": NetworkChoice(name="vit", size="tiny", depth=2, patch=4),
        "optimizer": OptimizerChoice(),
        "precision": "fp32",
        "budget": Budget(kind="samples", value=320),
        "batch_size": 32,
        "seed": seed,
        "threads": 1,
        "evaluations": 2,
        "timeout_seconds": 120,
    }
    return Cell(**(body | changes))


def quiet() -> Console:
    """Return a console that is no terminal and writes into a string, ``console.file.getvalue()``."""
    return Console(file=io.StringIO(), width=200)


def run_tiny(
    cells: list[Cell],
    out: Path,
    *,
    fresh: bool = False,
    trace: bool = False,
    report: bool = False,
    timing: bool = True,
) -> tuple[int, str]:
    """Run ``cells`` into ``out``, two at a time; return the exit status and what was shown.

    Without ``report`` only the tables are written at the end: drawing the figures takes longer than the cells do.
    """
    console = quiet()
    with contextlib.ExitStack() as patches:
        if not report:
            patches.enter_context(
                mock.patch("dbbench.report.summary.write_report", lambda folder, _: RunFolder(folder).write_tables())
            )
        status = run_suite(
            cells,
            suite_name="tiny",
            suite_file="suites/tiny.yaml",
            out=out,
            jobs=2,
            fresh=fresh,
            trace=trace,
            timing=timing,
            console=console,
        )
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()
