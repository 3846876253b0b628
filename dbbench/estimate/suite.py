"""A suite's cells estimated and held against a memory: what ``dbbench estimate`` shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version

from dbbench.errors import BadInput
from dbbench.estimate.bound import fits, lower_bound
from dbbench.estimate.devices import DeviceModel
from dbbench.estimate.pool import estimate_cells
from dbbench.harness.provenance import dbbench_version
from dbbench.measure.allocator_settings import AllocatorSettings
from dbbench.results.estimate import Budget, Estimate, EstimateLine, Estimates
from dbbench.results.record import Record
from dbbench.suite.cell import Cell

#: Called with how many cells are done, of how many, and the last one's variant.
Progress = Callable[[int, int, str], None]


def merged_seeds(cells: Sequence[Cell]) -> list[Cell]:
    """Return the first of the cells that differ in their seed alone: memory and FLOPs are the same for all."""
    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(cell.model_dump_json(exclude={"seed"}), cell)
    return list(first.values())


def memory_budget(device: DeviceModel | None, memory_bytes: int | None, headroom_bytes: int) -> Budget | None:
    """Return what to hold cells against: ``memory_bytes``, else the device's own; None without either."""
    size = memory_bytes if memory_bytes is not None else device.memory_bytes if device else None
    if size is None:
        return None
    if size <= headroom_bytes:
        raise BadInput(f"--memory: {size:,} bytes are no more than the headroom of {headroom_bytes:,} (--headroom)")
    sources = []
    if device is not None:
        sources = [f"bandwidth, cache and link: {device.source}"]
        sources += [f"{precision} products: {device.rate(precision)[1]}" for precision in ("fp32", "bf16")]
        if memory_bytes is None:
            sources.insert(0, f"memory: {device.memory_source}")
    name = device.name if device else None
    return Budget(memory_bytes=size, headroom_bytes=headroom_bytes, device_model=name, sources=sources)


def estimate_suite(
    cells: Sequence[Cell],
    where: str,
    *,
    allocator: str = "",
    budget: Budget | None = None,
    device: DeviceModel | None = None,
    processes: int | None = None,
    progress: Progress = lambda done, of, variant: None,
) -> tuple[Estimates, list[Record]]:
    """Estimate ``cells`` with the allocator's settings ``allocator`` (as PYTORCH_ALLOC_CONF has them).

    Of cells that differ in their seed the first is taken. Each line's ``allocators`` begin with what is asked for in
    a memory without end; with a budget the same follows within it. Returns the lines and the cells' records, in order.
    """
    chosen = merged_seeds(cells)
    capacities = [None] if budget is None else [None, budget.memory_bytes - budget.headroom_bytes]
    settings = [AllocatorSettings.parse(allocator, capacity) for capacity in capacities]
    found: dict[int, Estimate] = {}
    for index, estimate in estimate_cells([(cell, settings) for cell in chosen], where, processes):
        found[index] = estimate
        progress(len(found), len(chosen), estimate.record.row.variant)
    ordered = [found[index] for index in range(len(chosen))]
    estimates = Estimates(
        suite=chosen[0].suite,
        allocator=settings[0].text(),
        budget=budget,
        torch_version=version("torch"),
        dbbench_version=dbbench_version(),
        lines=[_line(estimate, budget, device) for estimate in ordered],
    )
    return estimates, [estimate.record for estimate in ordered]


def _line(estimate: Estimate, budget: Budget | None, device: DeviceModel | None) -> EstimateLine:
    row = estimate.record.row
    return EstimateLine(
        config_hash=row.config_hash,
        variant=row.variant,
        bound=lower_bound(estimate, device) if device else None,
        fits=fits(estimate.allocators[-1]) if budget and estimate.allocators else None,
        **estimate.model_dump(exclude={"record"}),
    )
