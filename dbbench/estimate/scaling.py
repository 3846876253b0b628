"""How memory grows along an axis: estimates at a few values, and the exponents that fit them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version

import numpy as np

from dbbench.errors import BadInput
from dbbench.estimate.axis import Dial, check, default_values, dial, labelled
from dbbench.estimate.pool import estimate_cells
from dbbench.harness.provenance import dbbench_version
from dbbench.results.estimate import Estimate
from dbbench.results.roles import ROLES
from dbbench.results.scaling import (
    QUANTITIES,
    STATE_ROLES,
    PowerLaw,
    Scaling,
    ScalingAxis,
    ScalingLine,
    ScalingPoint,
)
from dbbench.suite.cell import Cell

#: Along these, a step's memory is a fixed part and something for every unit.
LINEAR_AXES = ("batch", "depth", "sequence")
#: Called with how many estimates are done, and of how many.
Progress = Callable[[int, int], None]


def scale(
    cells: Sequence[Cell],
    axis: ScalingAxis,
    values: Sequence[int] | None,
    where: str,
    processes: int | None = None,
    progress: Progress = lambda done, of: None,
) -> Scaling:
    """Estimate every variant of ``cells`` at every value (by default some around the suite's own), and fit exponents.

    Seeds do not change memory: of cells that differ by theirs, the first counts. A variant that cannot be estimated
    goes to ``failed`` with the reason. ``where`` (the suite's file) opens a BadInput's line, raised before anything is
    estimated where a value does not suit a variant.
    """
    named = labelled(cells)
    dials = [dial(axis, cell, where) for _, cell in named]
    if not any(d.turn for d in dials):
        raise BadInput(f"{where}: no variant's method has blocks to choose, so --over {axis} has nothing to vary")
    values = sorted(values) if values else default_values(axis, dials, where)
    if len(values) < 2:
        raise BadInput(f"--values {values[0]}: a growth needs two values or more")
    turned = [(line, value) for line, d in enumerate(dials) for value in (values if d.turn else [d.own])]
    # the largest first, so that no process is left with a long one at the end
    turned.sort(key=lambda job: -job[1])
    jobs = [_cell(dials[line], named[line][1], value) for line, value in turned]
    for (_, value), cell in zip(turned, jobs, strict=True):
        check(cell, f"{where} at {axis} {value}")
    points: list[list[ScalingPoint]] = [[] for _ in named]
    failed: dict[str, str] = {}
    for done, (job, estimate) in enumerate(estimate_cells([(cell, ()) for cell in jobs], where, processes), 1):
        line, value = turned[job]
        if estimate.record.row.status == "ok":
            points[line].append(_point(value, jobs[job], estimate))
        else:
            failed.setdefault(named[line][0], f"at {axis} {value}: {estimate.record.row.error}")
        progress(done, len(jobs))
    lines = [
        _line(label, cell, d, sorted(found, key=lambda point: point.value), axis in LINEAR_AXES)
        for (label, cell), d, found in zip(named, dials, points, strict=True)
        if label not in failed
    ]
    return Scaling(
        suite=cells[0].suite,
        axis=axis,
        values=list(values),
        torch_version=version("torch"),
        dbbench_version=dbbench_version(),
        lines=lines,
        failed=failed,
    )


def _cell(turning: Dial, cell: Cell, value: int) -> Cell:
    return cell if turning.turn is None else turning.at(value)


def _point(value: int, cell: Cell, estimate: Estimate) -> ScalingPoint:
    row = estimate.record.row
    sizes = {quantity: getattr(row, quantity, None) for quantity in QUANTITIES}
    sizes |= {f"layers_{role}_own_peak_bytes": estimate.layers_own_peaks.get(role, 0) for role in ROLES}
    own = [sizes[f"{role}_own_peak_bytes"] for role in STATE_ROLES]
    sizes["state_own_peak_bytes"] = None if None in own else sum(size for size in own if size is not None)
    return ScalingPoint(
        value=value, options=cell.options, bytes={q: size for q, size in sizes.items() if size is not None}
    )


def _line(label: str, cell: Cell, turning: Dial, points: list[ScalingPoint], linear: bool) -> ScalingLine:
    line = ScalingLine(
        variant=label,
        method=cell.method,
        network=cell.network.name,
        network_size=cell.network.size,
        task=cell.task.name,
        precision=cell.precision,
        residency=cell.options.get("residency"),
        varies=turning.turn is not None,
        points=points,
        laws=[],
    )
    found = (power_law(quantity, line.series(quantity), linear) for quantity in QUANTITIES)
    line.laws = [law for law in found if law is not None]
    return line


def power_law(quantity: str, series: Iterable[tuple[int, int]], linear: bool) -> PowerLaw | None:
    """Fit ``bytes = c·value^a`` to (value, bytes), by least squares of log bytes on log value; see `PowerLaw`.

    With residuals r of n points, the standard error of a is √(Σr²/(n−2) / Σ(log value − mean)²). ``linear`` asks for
    the line beside it. None where fewer than two points are above zero.
    """
    points = list(series)
    positive = np.array([(value, size) for value, size in points if size > 0], dtype=float).reshape(-1, 2)
    if len(positive) < 2:
        return None
    exponent, residuals, spread = _least_squares(*np.log(positive).T)
    count = len(positive)
    error = math.sqrt(float(np.sum(residuals**2)) / (count - 2) / spread) if count > 2 else None
    law = PowerLaw(quantity=quantity, points=count, exponent=exponent, error=error)
    if linear:
        x, y = np.array(points, dtype=float).T
        law.bytes_per_unit, residuals, _ = _least_squares(x, y)
        law.fixed_bytes = float(np.mean(y) - law.bytes_per_unit * np.mean(x))
        law.off_line = float(np.max(np.abs(residuals) / np.maximum(y, 1)))
    return law


def _least_squares(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Return the slope of y on x, the residuals, and the sum of squares of x about its mean."""
    dx, dy = x - x.mean(), y - y.mean()
    spread = float(np.sum(dx**2))
    slope = float(np.sum(dx * dy)) / spread
    return slope, dy - slope * dx, spread
