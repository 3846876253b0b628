"""From what a run left, or an estimate says, to a `Measurement`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from dbbench.gate.cells import Cell, cell_name, cell_of, cells_of_run, notes_of, unseen_of
from dbbench.gate.check import Measurement
from dbbench.report.run import Run
from dbbench.results.record import Record

if TYPE_CHECKING:
    import pandas as pd

#: A cell's name, its record, and how to get its classified events (None for a cell that failed).
Estimated = tuple[str, Record, "Callable[[], pd.DataFrame] | None"]


def fake_names(suite: str, cells: Sequence[tuple[str, int | None]]) -> list[str]:
    """Return the names of a whole suite's cells, given as (variant, depth), seeds merged.

    They do not depend on which of the cells are measured then.
    """
    variants = [variant for variant, _ in cells]
    return [
        cell_name(suite, f"{variant} [network.depth={depth}]" if variants.count(variant) > 1 else variant)
        for variant, depth in cells
    ]


def from_estimates(what: str, suite: str, estimated: Iterable[Estimated], whole: bool, update: str) -> Measurement:
    """Return the figures of estimates, each taken up as it comes; of a cell that has none by nature there is a note."""
    cells: list[Cell] = []
    failed: dict[str, str] = {}
    notes: list[str] = []
    for name, record, events in estimated:
        notes += [f"{name}: {line}" for line in notes_of(record.row)]
        if unseen := unseen_of(record.row):
            failed[name] = unseen
        elif record.row.status == "ok" and events is not None:
            cells.append(cell_of(name, record, events()))
        elif record.not_measurable:
            notes.append(f"{name}: not measured: {record.not_measurable}")
        else:
            failed[name] = f"cannot be estimated: {record.row.error}"
    return Measurement(what, cells, failed, {suite}, {"fake"}, update, whole, notes)


def from_run(run: Run, update: str, with_seconds: bool) -> Measurement:
    """Return the figures of a run. It is of every suite and source that its records name."""
    cells, failed, notes = cells_of_run(run, with_seconds)
    rows = [record.row for record in run.records]
    return Measurement(
        what=str(run.folder.path),
        cells=cells,
        failed=failed,
        suites={row.suite for row in rows},
        sources={row.device for row in rows if row.status == "ok"} or {row.device for row in rows},
        update=update,
        notes=notes,
    )
