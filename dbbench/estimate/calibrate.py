"""Estimates held against a device: every cell on fake tensors first, then on the device, each in a fresh process."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from dbbench.errors import BadInput, WorkerDied
from dbbench.estimate.bound import lower_bound
from dbbench.estimate.devices import DeviceModel, model_of_device
from dbbench.estimate.pool import estimate_cells
from dbbench.estimate.suite import merged_seeds
from dbbench.estimate.worker import Worker
from dbbench.harness.provenance import dbbench_version, device_class, git_commit
from dbbench.measure.allocator_settings import AllocatorSettings
from dbbench.results.calibration import Calibration, CalibrationCell, Measurement, Side, bytes_by_op
from dbbench.results.estimate import Estimate
from dbbench.results.roles import ROLES
from dbbench.suite.cell import Cell

#: Processes that have imported torch before their turn comes: to wait for that would take a third of the time.
AHEAD = 3
#: A device's allocator has figures that the CPU's has not.
_NOT_ON_CPU = {
    "allocated": "the CPU allocator does not round what it hands out",
    "reserved": "the CPU allocator keeps no cache of its own",
}
#: Called with what is done: a stage, how many cells of it, of how many, and the last one's variant.
Progress = Callable[[str, int, int, str], None]


def calibrate(
    cells: Sequence[Cell],
    where: str,
    *,
    seconds: float,
    processes: int | None = None,
    progress: Progress = lambda stage, done, of, variant: None,
) -> Calibration:
    """Estimate ``cells`` and measure them on their device; of those that differ in their seed the first is taken.

    No cell begins on the device once ``seconds`` have passed; the rest say so. Raises BadInput for a mistake in the
    suite.
    """
    began = time.monotonic()
    chosen = merged_seeds(cells)
    device = chosen[0].device
    estimates: dict[int, Estimate] = {}
    jobs = [(cell.model_copy(update={"device": "cpu"}), (AllocatorSettings(),)) for cell in chosen]
    for index, estimate in estimate_cells(jobs, where, processes):
        estimates[index] = estimate
        progress("estimated", len(estimates), len(chosen), chosen[index].variant)
    measured: list[Measurement] = []
    for measurement in _measurements(chosen, where, began + seconds):
        measured.append(measurement)
        progress("measured", len(measured), len(chosen), chosen[len(measured) - 1].variant)
    name = device_class(device)
    model = model_of_device(name)
    return Calibration(
        suite=chosen[0].suite,
        device=name,
        device_model=model.name if model else None,
        torch_version=version("torch"),
        cuda_version=_cuda_version() if device == "cuda" else None,
        dbbench_version=dbbench_version(),
        git_commit=git_commit(),
        seconds=time.monotonic() - began,
        unavailable=_NOT_ON_CPU if device == "cpu" else {},
        cells=[calibration_cell(cell, estimates[i], measured[i], model) for i, cell in enumerate(chosen)],
    )


def calibration_cell(
    cell: Cell, estimate: Estimate, measured: Measurement, model: DeviceModel | None
) -> CalibrationCell:
    """Put both sides of a cell beside each other."""
    bound = lower_bound(estimate, model) if model else None
    return CalibrationCell(
        variant=cell.variant,
        method=cell.method,
        network=cell.network.name,
        network_size=cell.network.size,
        batch_size=cell.batch_size,
        precision=cell.precision,
        estimated=_estimated_side(estimate),
        measured=measured,
        bound_seconds=bound.seconds if bound else None,
        bound_by=bound.binds if bound else None,
    )


def _estimated_side(estimate: Estimate) -> Side | None:
    row = estimate.record.row
    if row.status != "ok":
        return None
    assert row.peak_bytes is not None
    (figures,) = estimate.allocators
    return Side(
        totals={
            "peak": row.peak_bytes,
            "requested": figures.requested_bytes,
            "allocated": figures.allocated_bytes,
            "reserved": figures.reserved_bytes,
        },
        roles={role: getattr(row, f"{role}_bytes") for role in ROLES},
        ops=bytes_by_op(estimate.record.held_at_peak),
        peak_phase=row.peak_phase,
        attention_kernel=row.attention_kernel,
    )


def _measurements(cells: Sequence[Cell], where: str, until: float) -> Iterator[Measurement]:
    """Yield what the device says of each cell: on CUDA from a process of its own, started while others still work."""
    if cells[0].device == "cpu":
        from dbbench.estimate.on_device import measure_cell

        yield from (measure_cell(cell, where) for cell in cells)
        return
    with _workers(where) as start:
        ready = deque(start() for _ in cells[:AHEAD])
        for number, cell in enumerate(cells):
            worker = ready.popleft()
            if time.monotonic() < until:
                yield _asked(worker, cell, where)
            else:
                yield Measurement(error="not begun: the time for the calibration was over")
            worker.end()
            if number + AHEAD < len(cells):
                ready.append(start())


@contextmanager
def _workers(where: str) -> Iterator[Callable[[], Worker]]:
    """Give what starts a worker; all that are left are ended with the context."""
    started: list[Worker] = []

    def start() -> Worker:
        worker = Worker("dbbench.estimate.on_device", where)
        started.append(worker)
        return worker

    try:
        yield start
    finally:
        for worker in started:
            worker.end()


def _asked(worker: Worker, cell: Cell, where: str) -> Measurement:
    worker.send({"cell": cell.model_dump(mode="json"), "where": where})
    try:
        while (answer := worker.read()) is None:
            pass
    except WorkerDied as error:
        return Measurement(error=str(error))
    return Measurement.model_validate_json(answer)


def _cuda_version() -> str | None:
    import torch

    return torch.version.cuda


def check_calibration_folder(path: Path) -> None:
    """Raise BadInput where ``path`` is a file, or a folder that holds something else than a calibration."""
    if path.is_dir():
        strangers = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("calibration."))
        if strangers:
            raise BadInput(f"{path}: --out is a folder with other things in it ('{strangers[0]}'); nothing was written")
    elif path.exists():
        raise BadInput(f"{path}: --out is a file, not a folder; nothing was written")


def processes_here() -> int:
    """Return how many estimates to make at a time on a machine that calibrates: most of its cores, at most twelve."""
    return max(1, min(12, (os.cpu_count() or 2) - 2))
