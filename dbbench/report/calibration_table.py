"""A calibration as tables: each cell's error in total and by role, and every large one with where it sits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from dbbench.files import write_atomically
from dbbench.report import text
from dbbench.results.calibration import CALIBRATION_FILE, TOTALS, Calibration, CalibrationCell, Deviation
from dbbench.results.roles import ROLES
from dbbench.results.store import to_csv, to_json

MIB = 2**20
#: A larger error is listed, and explained.
LARGE_PERCENT = 1.0
TOTAL_NAMES = {
    "peak": "peak of the ledger",
    "requested": "requested of the allocator",
    "allocated": "allocated",
    "reserved": "reserved",
}


def percent(value: float | None) -> str:
    """A signed error in per cent."""
    return text.MISSING if value is None else "0" if value == 0 else f"{value:+.3f} %"


def cells_table(calibration: Calibration) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: a row a cell with its errors in total, its step's time and the bound."""
    header = ["variant", "network", "batch", "precision", "peak, MiB", *(f"{name}, error" for name in TOTALS)]
    header += ["step", "at least", "ratio"]
    return header, [_cell_row(cell, calibration) for cell in calibration.cells if cell.compared]


def _cell_row(cell: CalibrationCell, calibration: Calibration) -> list[str]:
    errors = {error.figure: error for error in calibration.errors() if error.variant == cell.variant}
    assert cell.measured.side is not None
    seconds, bound = cell.measured.step_seconds, cell.bound_seconds
    row = [cell.variant, f"{cell.network} {cell.network_size}", str(cell.batch_size), cell.precision]
    row.append(text.mib(cell.measured.side.totals["peak"]))
    row += [percent(errors[name].percent) if name in errors else text.MISSING for name in TOTALS]
    row += [_milliseconds(seconds), f"{_milliseconds(bound)} {cell.bound_by or ''}".strip()]
    row.append(f"{seconds / bound:.2f}×" if seconds and bound else text.MISSING)
    return row


def _milliseconds(seconds: float | None) -> str:
    return text.MISSING if seconds is None else f"{1000 * seconds:,.3g} ms"


def roles_table(calibration: Calibration) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: a row a cell with the signed error of each role in bytes, and in % of the peak."""
    errors = calibration.errors()
    present = [role for role in ROLES if any(error.figure == role for error in errors)]
    rows = []
    for cell in calibration.cells:
        mine = {error.figure: error for error in errors if error.variant == cell.variant}
        if cell.compared:
            rows.append([cell.variant, *(_both(mine.get(role)) for role in present)])
    return ["variant", *present], rows


def _both(error: Deviation | None) -> str:
    if error is None:
        return text.MISSING
    return "0" if not error.error_bytes else f"{error.error_bytes:+,} ({error.percent:+.3f} %)"


def large_errors(calibration: Calibration) -> list[str]:
    """Return a line for each error over `LARGE_PERCENT`, with where it sits."""
    lines = []
    for error in calibration.errors():
        if abs(error.percent) > LARGE_PERCENT:
            where = f": {error.where}" if error.where else ""
            what = TOTAL_NAMES.get(error.figure, f"{error.figure} at the peak")
            lines.append(f"{error.variant}, {what}: {error.error_bytes:+,} bytes ({error.percent:+.2f} %){where}")
    return lines


def summary(calibration: Calibration) -> list[str]:
    """Return the sentences above the tables: the device, the medians, and what is missing."""
    compared = sum(cell.compared for cell in calibration.cells)
    cuda = f", CUDA {calibration.cuda_version}" if calibration.cuda_version else ""
    lines = [
        f"{calibration.device}: {compared} of {len(calibration.cells)} cells compared in {calibration.seconds:.0f} s; "
        f"torch {calibration.torch_version}{cuda}, dbbench {calibration.dbbench_version}."
    ]
    for name in TOTALS:
        median = calibration.median_percent(name)
        if median is None:
            why = calibration.unavailable.get(name, "no cell has it on both sides")
            lines.append(f"{TOTAL_NAMES[name]}: no figure ({why}).")
        else:
            most = max(abs(error.percent) for error in calibration.errors() if error.figure == name)
            lines.append(f"{TOTAL_NAMES[name]}: median error {median:.3f} %, largest {most:.3f} %.")
    if calibration.device_model is None:
        lines.append("The device is in no table of models, so there is no bound on a step's time.")
    for cell in calibration.cells:
        if not cell.compared:
            side = "measured" if cell.measured.side is None else "estimated"
            lines.append(f"{cell.variant}: not {side} ({cell.measured.error or 'see dbbench estimate'}).")
    return lines


def markdown(calibration: Calibration) -> str:
    """Return ``calibration.md``."""
    parts = [f"# Estimates against {text.escaped(calibration.device)}"]
    parts.append("\n".join(f"- {text.escaped(line)}" for line in summary(calibration)))
    parts.append(
        "Errors are signed, estimated less measured. Estimated: fake tensors and the simulated allocator with its "
        "default settings. Measured: the ledger on the device by role (the peak and the roles at it), and the device "
        "allocator's own peaks over an untraced step. Step: the median of untraced steps, mean over blocks; at least: "
        "the bound of `dbbench estimate`."
    )
    for title, (header, rows), left in (
        ("In total", cells_table(calibration), 2),
        ("By role, in bytes and in per cent of the measured peak", roles_table(calibration), 1),
    ):
        shown = [[text.code(row[0]), *map(text.escaped, row[1:])] for row in rows]
        parts += [f"## {title}", text.markdown_table(header, shown, left=left)]
    large = large_errors(calibration)
    parts.append(f"## Errors over {LARGE_PERCENT:g} %")
    parts.append("\n".join(f"- {text.escaped(line)}" for line in large) or "None.")
    return "\n\n".join(parts) + "\n"


def rich_table(calibration: Calibration) -> Table:
    """Return what a terminal shows."""
    header, rows = cells_table(calibration)
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i < 2 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(text.printable, row))
    return table


def frame(calibration: Calibration) -> pd.DataFrame:
    """Return ``calibration.csv``: a row a cell and figure, both sides and the error in plain bytes."""
    rows = []
    cells = {cell.variant: cell for cell in calibration.cells}
    for error in calibration.errors():
        cell = cells[error.variant]
        row: dict[str, Any] = {
            "variant": cell.variant,
            "method": cell.method,
            "network": cell.network,
            "size": cell.network_size,
        }
        row |= {"batch_size": cell.batch_size, "precision": cell.precision, "figure": error.figure}
        row |= {"estimated_bytes": error.estimated_bytes, "measured_bytes": error.measured_bytes}
        row |= {"error_bytes": error.error_bytes, "error_percent": error.percent, "where": error.where}
        row |= {"step_seconds": cell.measured.step_seconds, "bound_seconds": cell.bound_seconds}
        rows.append(row)
    return pd.DataFrame(rows)


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write ``calibration.json``, ``calibration.csv`` and ``calibration.md`` into ``folder``."""
    write_atomically(folder / CALIBRATION_FILE, to_json(calibration))
    write_atomically(folder / "calibration.csv", to_csv(frame(calibration)))
    write_atomically(folder / "calibration.md", markdown(calibration).encode())
