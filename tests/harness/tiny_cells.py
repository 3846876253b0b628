"""Cells that train in about a second, and a console that writes into a string."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from dbbench.harness.scheduler import run_suite
from dbbench.suite.cell import Budget, Cell, NetworkChoice, OptimizerChoice, TaskChoice


def make_cell(variant: str, method: str = "backprop", seed: int = 0, **changes: Any) -> Cell:
    """Return a cell of ten steps on the digits, which trains in about a second."""
    body = {
        "suite": "tiny",
        "variant": variant,
        "method": method,
        "options": {},
        "task": TaskChoice(name="digits"),
        "network": NetworkChoice(name="vit", size="tiny", depth=2),
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
    cells: list[Cell], out: Path, *, jobs: int = 2, fresh: bool = False, trace: bool = False
) -> tuple[int, str]:
    """Run ``cells`` into ``out``; return the exit status and what was shown."""
    console = quiet()
    status = run_suite(
        cells,
        suite_name="tiny",
        suite_file="suites/tiny.yaml",
        out=out,
        jobs=jobs,
        fresh=fresh,
        trace=trace,
        console=console,
    )
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()
