"""The researcher's project in a copy, with a regression seeded into it, measured in this process."""

from __future__ import annotations

import importlib
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from dbbench.cli.app import make_plan
from dbbench.estimate.in_process import estimate_in_process
from dbbench.estimate.suite import merged_seeds
from dbbench.gate.baseline import Baseline, read
from dbbench.gate.check import Measurement
from dbbench.gate.measure import fake_names, from_estimates
from dbbench.gate.update import update
from dbbench.harness.resolve import resolve_cell
from dbbench.harness.rows import identity_row
from dbbench.harness.tracing import flops_columns, ledger_pass, memory_columns
from dbbench.results.record import Record
from dbbench.suite.cell import Cell

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Regression:
    """An entry of ``tests/regressions.yaml``; ``sign`` is + or -."""

    name: str
    cell: str
    edits: list[tuple[str, str, str]]
    role: str
    module: str
    sign: str


def regressions() -> list[Regression]:
    raw = yaml.safe_load((HERE.parent / "regressions.yaml").read_text())
    return [Regression(**(entry | {"edits": [tuple(edit) for edit in entry["edits"]]})) for entry in raw]


def copy_project(into: Path, regression: Regression | None = None) -> Path:
    """Copy the project below ``into``, seed the regression, and make it the one that is imported; return the suite."""
    folder = into / "researcher"
    shutil.copytree(HERE / "researcher", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file, find, replacement in regression.edits if regression else ():
        text = (folder / file).read_text()
        assert text.count(find) == 1, f"{regression}: '{find}' stands {text.count(find)} times in {file}"
        (folder / file).write_text(text.replace(find, replacement))
    forget()
    return folder / "suite.yaml"


def forget() -> None:
    """Have the project imported afresh by whoever imports it next."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "researcher"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def measured(suite: Path, fake: bool = True, seed: int = 0, cell: str | None = None) -> Measurement:
    """Measure the project's cells, or one of them, as ``dbbench check`` does; without ``fake`` on real tensors."""
    plan = make_plan(str(suite), [f"seeds=[{seed}]"], None if cell is None else f"variant={cell}", "cpu")
    cells = merged_seeds(plan.cells)
    names = fake_names(cells[0].suite, [(one.variant, one.network.depth) for one in cells])
    passes = estimate_in_process(cells, plan.where) if fake else (_traced(one, plan.where) for one in cells)
    estimated = ((name, record, events) for name, (_, record, events) in zip(names, passes, strict=True))
    found = from_estimates("researcher", cells[0].suite, estimated, cell is None, "")
    return replace(found, sources={"fake" if fake else "cpu"})


def _traced(cell: Cell, where: str) -> tuple[Cell, Record, Any]:
    """Take the ledger's pass of a run, on real tensors; of its training there is none."""
    resolved = resolve_cell(cell, where)
    task = resolved.load_task()
    found = ledger_pass(resolved, task)
    row = identity_row(resolved, "0" * 16, task.dataset_sha256, "ok")
    row |= memory_columns(found) | flops_columns(found, dict.fromkeys(found.flops_by_block, 1))
    record = Record(row=row, cell=cell.model_dump(mode="json"), held_at_peak=found.account.held)
    return cell, record, lambda: found.timeline


def baseline_of(measurement: Measurement, path: Path) -> Baseline:
    """Write a baseline as ``--update`` does, and return it as read back: what is not in the file is not known."""
    update(Baseline(path), measurement)[0].write()
    found = read(path)
    assert found is not None
    return found
