"""One cell on fake tensors: the measuring pass of a run, its allocator simulated, and nothing trained."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from importlib.metadata import version
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from dbbench.errors import BadInput
from dbbench.foreign import guarded
from dbbench.harness.budget import step_costs
from dbbench.harness.resolve import Resolved, resolve_cell
from dbbench.harness.resolve import describe as describe_cell
from dbbench.harness.rows import environment, identity_row
from dbbench.harness.tracing import Measured, flops_columns, ledger_pass, memory_columns
from dbbench.harness.worker import describe
from dbbench.measure.account import gradient_bytes_by_block, own_peaks_within
from dbbench.measure.allocator import AllocatorPeaks, replay
from dbbench.measure.allocator_settings import AllocatorSettings
from dbbench.results.estimate import AllocatorFigures, Estimate
from dbbench.results.record import SCHEMA_VERSION, Record, Row
from dbbench.suite.cell import Cell

if TYPE_CHECKING:
    import pandas as pd

DEFAULT = (AllocatorSettings(),)
#: Where a network's layers hang, whatever a method hangs the network into.
_IN_LAYERS = re.compile(r"(^|\.)layers\.")

_TOO_LARGE = 2**63

_NO_DEVICE = "an estimate has no device"
_NOT_TRAINED = "an estimate trains nothing"
UNAVAILABLE = {
    "device_peak_bytes": _NO_DEVICE,
    "kernel_workspace_bytes": f"{_NO_DEVICE}: what libraries take inside an op is not in it",
    "nvml_process_peak_bytes": _NO_DEVICE,
    "energy_joules": _NO_DEVICE,
    "swap_share": f"{_NO_DEVICE} to time",
    "train_seconds": f"{_NO_DEVICE} to time",
    "samples_per_second": f"{_NO_DEVICE} to time",
    "metric_value": _NOT_TRAINED,
    "samples": _NOT_TRAINED,
    "layer_updates": _NOT_TRAINED,
    "shared_updates": _NOT_TRAINED,
}


def estimate_cell(cell: Cell, where: str, settings: Sequence[AllocatorSettings] = DEFAULT) -> Estimate:
    """Take the measuring pass of ``cell`` on fake tensors in this process, and replay it for each of ``settings``.

    It takes memory for Python's objects alone, whatever the cell's size. The row's allocated and reserved bytes are
    those of the default settings. Raises what the cell raises, BadInput (opened by ``where``) for a mistake in it.
    """
    resolved = resolve_cell(cell, where)
    with guarded():
        task = resolved.load_task()
        measured = ledger_pass(resolved, task, fake=True)
    return _estimate(resolved, task.dataset_sha256, measured, settings)


def estimate_or_failure(cell: Cell, where: str, settings: Sequence[AllocatorSettings] = DEFAULT) -> Estimate:
    """Return `estimate_cell`'s answer, or a failed record of a cell that is well described and cannot be estimated.

    So end a task whose data are not here, and an op that needs numbers. A method that has no step on fake tensors is
    not asked for one: its record is `Record.not_measurable`. BadInput is raised for a mistake in the suite.
    """
    return estimate_with_timeline(cell, where, settings)[0]


def estimate_with_timeline(
    cell: Cell, where: str, settings: Sequence[AllocatorSettings] = DEFAULT
) -> tuple[Estimate, Callable[[], pd.DataFrame] | None]:
    """Return what `estimate_or_failure` does, and how to get the classified events; None for a cell that failed."""
    resolved = resolve_cell(cell, where)
    if resolved.method.not_on_fakes:
        return _not_measurable(resolved), None
    data = ""
    try:
        with guarded():
            task = resolved.load_task()
            data = task.dataset_sha256
    except Exception as error:
        return failure(resolved, data, describe(error)[1]), None
    try:
        with guarded():
            measured = ledger_pass(resolved, task, fake=True)
        return _estimate(resolved, data, measured, settings), lambda: measured.timeline
    except BadInput:
        raise
    except Exception as error:
        return failure(resolved, data, describe(error)[1]), None


def failure(resolved: Resolved, dataset_sha256: str, error: str) -> Estimate:
    """Return the estimate of a cell that has none: its record says why."""
    row = Row(**_identity(resolved, dataset_sha256, "failed"), error=error)
    return Estimate(record=Record(row=row, cell=resolved.cell.model_dump(mode="json")))


def _not_measurable(resolved: Resolved) -> Estimate:
    """Return the estimate of a cell whose method has no step here; BadInput where the cell could not be built."""
    describe_cell(resolved.cell, resolved.where)
    why = resolved.method.not_on_fakes
    estimate = failure(resolved, "", why)
    estimate.record.unavailable["peak_bytes"] = why
    return estimate


def _identity(resolved: Resolved, dataset_sha256: str, status: str) -> dict[str, Any]:
    name = resolved.cell.config_hash(dataset_sha256, version("torch"), SCHEMA_VERSION, "fake")
    return identity_row(resolved, name, dataset_sha256, status) | {"source": "fake", "device": "fake"}


def _estimate(
    resolved: Resolved, dataset_sha256: str, measured: Measured, settings: Sequence[AllocatorSettings]
) -> Estimate:
    peaks = cache(lambda asked: replay(measured.trace, asked))
    default = peaks(AllocatorSettings())
    steps = _steps_by_block(resolved, measured)
    row = _identity(resolved, dataset_sha256, "ok")
    row |= memory_columns(measured) | measured.method_columns | _flops(measured, steps)
    row |= {
        "allocated_bytes": default.allocated_bytes,
        "reserved_bytes": default.reserved_bytes,
        "reserved_expandable_bytes": peaks(AllocatorSettings(expandable_segments=True)).reserved_bytes,
        "host_transfer_bytes_per_step": round(measured.transfer_bytes_per_step),
    }
    unavailable = dict(UNAVAILABLE)
    total = row["flops_train_total"]
    if total is None or total >= _TOO_LARGE:
        no_steps, too_large = "the budget says no number of steps", "{} is more than a column of 64 bits holds"
        unavailable["flops_train_total"] = no_steps if total is None else too_large.format(total)
        row["flops_train_total"] = None
    record = Record(
        row=row,  # type: ignore[arg-type]  # pydantic makes the Row
        cell=resolved.cell.model_dump(mode="json"),
        held_at_peak=measured.account.held,
        shared_parts=measured.shared,
        uncounted=measured.uncounted,
        unavailable=unavailable,
        environment=environment(resolved),
    )
    updated = gradient_bytes_by_block(measured.trace)
    training_ends = max(window.end for window in measured.trace.windows if window.kind == "step")
    return Estimate(
        record=record,
        allocators=[_figures(one, peaks(one), training_ends) for one in settings],
        layers_own_peaks=own_peaks_within(measured.trace, lambda path: bool(_IN_LAYERS.search(path))),
        updated_bytes_per_step=int(_mean(updated, steps)),
        masked_flops_per_step=math.ceil(_mean(measured.masked_flops_by_block, steps)),
    )


def _figures(settings: AllocatorSettings, peaks: AllocatorPeaks, training_ends: int) -> AllocatorFigures:
    """Return the figures; what runs out from event ``training_ends`` on is the prediction, which comes last."""
    at = peaks.out_of_memory_at
    trains = at is None or at >= training_ends
    return AllocatorFigures(
        settings=settings.text(),
        capacity_bytes=settings.capacity_bytes,
        requested_bytes=peaks.requested_bytes,
        allocated_bytes=peaks.allocated_bytes,
        reserved_bytes=peaks.reserved_bytes,
        retries=peaks.retries,
        out_of_memory=not trains,
        prediction_fits=at is None if trains else None,
    )


def _steps_by_block(resolved: Resolved, measured: Measured) -> dict[int, Fraction] | None:
    """Return how many steps of each block the budget allows, None for a budget in seconds.

    A stage gets what its share of the budget buys. Blocks that take turns get an equal number of steps each, which is
    what a training comes to that draws them at random.
    """
    budget, blocks = resolved.cell.budget, sorted(measured.flops_by_block)
    if budget.kind == "seconds":
        return None
    shape: Any = SimpleNamespace(layers_per_block=measured.layers_per_block, blocks=len(blocks))
    flops = {block: sum(by_phase.values()) for block, by_phase in measured.flops_by_block.items()}
    costs = [Fraction(cost) for cost in step_costs(shape, budget, resolved.cell.batch_size, flops)]
    value = Fraction(budget.value)
    if measured.staged:
        steps = {block: Fraction(value / len(blocks) // cost) for block, cost in zip(blocks, costs, strict=True)}
        return steps if all(steps.values()) else None
    return dict.fromkeys(blocks, Fraction(value * len(costs) // sum(costs, Fraction()), len(blocks)))


def _flops(measured: Measured, steps: Mapping[int, Fraction] | None) -> dict[str, Any]:
    """Return the FLOP columns: means over the steps of a training, or over blocks where those cannot be counted."""
    if steps is None or not sum(steps.values()):
        return flops_columns(measured, dict.fromkeys(measured.flops_by_block, 1)) | {"flops_train_total": None}
    scale = max(step.denominator for step in steps.values())
    columns = flops_columns(measured, {block: int(step * scale) for block, step in steps.items()})
    return columns | {"flops_train_total": columns["flops_train_total"] // scale}


def _mean(by_block: Mapping[int, int], steps: Mapping[int, Fraction] | None) -> Fraction:
    weights = steps if steps and sum(steps.values()) else dict.fromkeys(by_block, Fraction(1))
    return sum((by_block[block] * weight for block, weight in weights.items()), Fraction()) / sum(weights.values())
