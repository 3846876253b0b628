"""Estimates beside what a device measured: one cell's two sets of figures, and how far apart they are."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dbbench.results.record import Held
from dbbench.results.roles import ROLES

CALIBRATION_FILE = "calibration.json"
#: The ledger's total, then what the device's allocator counts: asked for, in blocks handed out, in segments held.
TOTALS = ("peak", "requested", "allocated", "reserved")
Total = Literal["peak", "requested", "allocated", "reserved"]


class Side(BaseModel):
    """One side's figures in bytes. ``totals`` lacks what the side does not have.

    ``peak`` is the ledger's and is the sum of the roles at it; ``ops`` are each role's bytes by the op that made them.
    """

    totals: dict[Total, int]
    roles: dict[str, int]
    ops: dict[str, dict[str, int]] = Field(default_factory=dict)
    peak_phase: str | None = None
    attention_kernel: str | None = None


class Measurement(BaseModel):
    """What a device said of a cell: ``side``, or ``error`` where it did not get that far.

    ``step_seconds`` is the median over rounds of an untraced step, mean over blocks.
    """

    side: Side | None = None
    error: str | None = None
    step_seconds: float | None = None
    rounds: int = 0
    nvml_process_peak_bytes: int | None = None


class CalibrationCell(BaseModel):
    """One cell: which one, both sides, and the bound on its step's time where the device is a known model."""

    variant: str
    method: str
    network: str
    network_size: str
    batch_size: int
    precision: str
    estimated: Side | None
    measured: Measurement
    bound_seconds: float | None = None
    bound_by: str | None = None

    @property
    def compared(self) -> bool:
        """Whether both sides have figures."""
        return self.estimated is not None and self.measured.side is not None


class Calibration(BaseModel):
    """``calibration.json``. ``unavailable`` says why a total is missing on this device."""

    model_config = ConfigDict(extra="forbid")

    calibration_version: int = 1
    suite: str
    device: str
    device_model: str | None
    torch_version: str
    cuda_version: str | None
    dbbench_version: str
    git_commit: str | None
    seconds: float
    unavailable: dict[str, str]
    cells: list[CalibrationCell]

    def errors(self) -> list[Deviation]:
        """Return every figure's error, cell by cell: totals first, then roles."""
        return [error for cell in self.cells if cell.compared for error in errors_of(cell)]

    def median_percent(self, figure: str) -> float | None:
        """Return the median over cells of the error's size in per cent, None where no cell has the figure."""
        sizes = [abs(error.percent) for error in self.errors() if error.figure == figure]
        return statistics.median(sizes) if sizes else None


class Deviation(BaseModel):
    """One figure's signed error: estimated less measured.

    ``percent`` is of the measured total: a role's of the measured peak, a total's of itself. ``where`` says in which op
    the most of a role's error sits, or what a total's consists of.
    """

    variant: str
    figure: str
    estimated_bytes: int
    measured_bytes: int
    percent: float
    where: str

    @property
    def error_bytes(self) -> int:
        return self.estimated_bytes - self.measured_bytes


def errors_of(cell: CalibrationCell) -> list[Deviation]:
    """Return the errors of a cell that has both sides."""
    ours, theirs = cell.estimated, cell.measured.side
    assert ours is not None and theirs is not None
    found = []
    for total in TOTALS:
        if total in ours.totals and total in theirs.totals:
            pair = ours.totals[total], theirs.totals[total]
            found.append(_deviation(cell, total, pair, pair[1], _sources_of_total(total, ours, theirs)))
    for role in ROLES:
        pair = ours.roles.get(role, 0), theirs.roles.get(role, 0)
        if any(pair):
            found.append(_deviation(cell, role, pair, theirs.totals["peak"], largest_op(ours, theirs, (role,))))
    return found


def _deviation(cell: CalibrationCell, figure: str, pair: tuple[int, int], whole: int, where: str) -> Deviation:
    percent = 100 * (pair[0] - pair[1]) / whole if whole else 0.0
    where = where if pair[0] != pair[1] else ""
    return Deviation(
        variant=cell.variant,
        figure=figure,
        estimated_bytes=pair[0],
        measured_bytes=pair[1],
        percent=percent,
        where=where,
    )


def _sources_of_total(total: Total, ours: Side, theirs: Side) -> str:
    """Say what a total's error consists of: the roles', or what the step before it in `TOTALS` does not explain."""
    if total == "peak":
        return largest_op(ours, theirs, ROLES)
    before = TOTALS[TOTALS.index(total) - 1]
    if before not in ours.totals or before not in theirs.totals:
        return ""
    ours_more, theirs_more = (side.totals[total] - side.totals[before] for side in (ours, theirs))
    what = {"requested": "outside the ledger", "allocated": "rounding", "reserved": "free in segments"}[total]
    return f"{what}: {ours_more:,} bytes estimated, {theirs_more:,} measured"


def largest_op(ours: Side, theirs: Side, roles: Sequence[str]) -> str:
    """Return the role and op that differ most in what is held at the peak, with the bytes of both sides."""
    pairs = {
        (role, op): (ours.ops.get(role, {}).get(op, 0), theirs.ops.get(role, {}).get(op, 0))
        for role in roles
        for op in {**ours.ops.get(role, {}), **theirs.ops.get(role, {})}
    }
    if not pairs:
        return ""
    (role, op), (estimated, measured) = max(pairs.items(), key=lambda item: abs(item[1][0] - item[1][1]))
    return f"{role} of {op or 'no op'}: {estimated:,} bytes estimated, {measured:,} measured"


def bytes_by_op(held: Sequence[Held]) -> dict[str, dict[str, int]]:
    """Return each role's bytes by the op that made them; the op's namespace goes."""
    sums: dict[str, dict[str, int]] = {}
    for line in held:
        ops = sums.setdefault(line.role, {})
        op = line.op.rpartition(".")[2]
        ops[op] = ops.get(op, 0) + line.bytes
    return sums
