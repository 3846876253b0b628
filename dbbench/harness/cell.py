"""One cell from its configuration to its record: measure, train, evaluate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dbbench.harness import tracing
from dbbench.harness.budget import course
from dbbench.harness.referee import Referee, method_speaks
from dbbench.harness.resolve import resolve_cell
from dbbench.harness.rows import environment, identity_row, method_columns
from dbbench.harness.training import Loop, Training, train
from dbbench.methods.base import Method
from dbbench.results.record import Document, MetricValue, Record, Samples
from dbbench.suite.cell import Cell
from dbbench.tasks.base import Metric, Products, Split, Task

#: What a device cannot say, and why; the record carries it beside the null.
_NOT_ON_CPU = {
    "allocated_bytes": "the CPU allocator does not round what it hands out",
    "reserved_bytes": "the CPU allocator keeps no cache of its own",
    "nvml_process_peak_bytes": "no NVIDIA device was used",
    "energy_joules": "no NVIDIA device was used, and nothing else here counts energy",
}


@dataclass
class CellResult:
    """A finished cell: its record, its classified trace, its learning curve, and what its method then made."""

    record: Record
    trace: pd.DataFrame
    curves: pd.DataFrame
    samples: Samples | None


def run_cell(cell: Cell, config_hash: str, report: Callable[[dict[str, Any]], None]) -> CellResult:
    """Run ``cell`` in this process and return its result; it raises whatever goes wrong.

    ``report`` gets dictionaries with ``stage`` (``trace``, ``train``, ``test``), ``step``, ``steps``, ``fraction``,
    ``loss``, ``metric_name`` and ``metric``.
    """
    resolved = resolve_cell(cell, cell.suite)
    task = resolved.load_task()
    report({"stage": "trace", "step": 0, "steps": None, "fraction": 0.0})
    with method_speaks(task):
        measured = tracing.measure(resolved, task)
        method = resolved.build(task)
        plans = None
        if cell.budget.kind != "seconds":
            flops = {block: sum(by_phase.values()) for block, by_phase in measured.flops_by_block.items()}
            plans = course(method, cell.budget, cell.batch_size, flops)
    loop = Loop(method, task, cell)
    done, referee = train(loop, plans, report), loop.referee
    report({"stage": "test", "step": done.steps, "steps": done.steps, "fraction": 1.0})
    metrics = _final_metrics(referee, cell, done)
    made = referee.after_training(cell.final_split)
    referee.end()
    row = identity_row(resolved, config_hash, task.dataset_sha256, "ok")
    row |= tracing.memory_columns(measured) | tracing.flops_columns(measured, Counter(done.blocks))
    row |= _training_columns(method, task, done, metrics)
    if made is not None:
        for way, figures in made.figures.items():
            metrics += _values(cell.final_split, done, made.metrics, way, figures)
    record = Record(
        row=row,  # type: ignore[arg-type]  # pydantic makes the Row
        cell=cell.model_dump(mode="json"),
        metrics=metrics,
        held_at_peak=measured.account.held,
        shared_parts=measured.shared,
        uncounted=measured.uncounted,
        unavailable=_unavailable(row, cell),
        environment=environment(resolved),
    )
    return CellResult(record, measured.timeline, done.curves(), _samples(cell, config_hash, made))


def _samples(cell: Cell, config_hash: str, made: Products | None) -> Samples | None:
    if made is None:
        return None
    documents = [Document(**vars(document)) for document in made.documents]
    return Samples(
        config_hash=config_hash, variant=cell.variant, seed=cell.seed, split=cell.final_split, documents=documents
    )


def _final_metrics(referee: Referee, cell: Cell, done: Training) -> list[MetricValue]:
    """Evaluate once on the split that the cell ends on, and keep the last validation figures beside it."""
    splits: list[Split] = ["validation"] if cell.final_split == "validation" else ["validation", "test"]
    found = []
    for split in splits:
        for way, figures in referee.evaluate(split, referee.method.predict, closely=True).items():
            found += _values(split, done, referee.task.metrics, way, figures)
    return found


def _values(
    split: Split, done: Training, metrics: Iterable[Metric], way: str, figures: Mapping[str, float]
) -> list[MetricValue]:
    """Return ``figures`` for a record, those of ``metrics`` that were found."""
    return [
        MetricValue(
            split=split,
            step=done.steps,
            name=metric.name,
            variant=way,
            value=figures[metric.name],
            unit=metric.unit,
            direction=metric.direction,
            lowest=metric.lowest,
            highest=metric.highest,
        )
        for metric in metrics
        if metric.name in figures
    ]


def _training_columns(method: Method, task: Task, done: Training, metrics: list[MetricValue]) -> dict[str, Any]:
    headline = task.metrics[0].name
    last = [m for m in metrics if m.name == headline and m.variant == ""][-1]
    return method_columns(method) | {
        "metric": f"{last.split}_{headline}",
        "metric_value": last.value,
        "samples": done.samples,
        "layer_updates": done.layer_updates,
        "shared_updates": done.steps if method.shared() else 0,
        "train_seconds": done.seconds,
        "host_transfer_bytes_per_step": round(done.transferred_bytes / done.steps),
    }


def _unavailable(row: dict[str, Any], cell: Cell) -> dict[str, str]:
    reasons = dict(_NOT_ON_CPU) if cell.device == "cpu" else {}
    if cell.device == "cuda":
        reasons["energy_joules"] = "measured by the timing pass"
        if row.get("nvml_process_peak_bytes") is None:
            reasons["nvml_process_peak_bytes"] = "NVML did not name this process"
    return reasons
