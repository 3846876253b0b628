"""One cell measured on a device for a calibration: the ledger, the allocator's own figures, and a step's time.

As a program, ``python -m dbbench.estimate.on_device DESCRIPTOR``, it is a worker (`dbbench.estimate.worker`) that
measures one cell: on CUDA the allocator of a process that has held another cell is not as a fresh one.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from dbbench.errors import BadInput
from dbbench.estimate.worker import serve
from dbbench.foreign import guarded
from dbbench.harness.resolve import Resolved, resolve_cell
from dbbench.harness.tracing import Measured, measure, rehearsal
from dbbench.harness.worker import describe
from dbbench.methods.base import Method, Plan
from dbbench.results.calibration import Measurement, Side, Total, bytes_by_op
from dbbench.results.roles import ROLES
from dbbench.suite.cell import Cell
from dbbench.tasks.base import Task

ROUNDS = 7
#: A slow step is timed in fewer rounds, at least three.
MOST_SECONDS = 4.0


def measure_cell(cell: Cell, where: str) -> Measurement:
    """Measure ``cell`` on its device in this process; an error of the step is in the answer, BadInput is raised."""
    resolved = resolve_cell(cell, where)
    seconds: list[float] = []
    try:
        with guarded():
            task = resolved.load_task()
            measured = measure(resolved, task, lambda method: seconds.extend(_in_turn(method, task)))
            seconds = seconds or _stage_by_stage(resolved, task)
    except BadInput:
        raise
    except Exception as error:  # a device that is too small, most of all
        return Measurement(error=describe(error)[1])
    return Measurement(
        side=side_of(measured),
        step_seconds=statistics.median(seconds),
        rounds=len(seconds),
        nvml_process_peak_bytes=measured.peaks.nvml_process_peak_bytes,
    )


def side_of(measured: Measured) -> Side:
    """Return the figures of a measured cell."""
    account, peaks = measured.account, measured.peaks
    totals: dict[Total, int | None] = {
        "peak": account.peak_bytes,
        "requested": peaks.device_peak_bytes,
        "allocated": peaks.allocated_bytes,
        "reserved": peaks.reserved_bytes,
    }
    return Side(
        totals={name: size for name, size in totals.items() if size is not None},
        roles={role: account.split[role] for role in ROLES},
        ops=bytes_by_op(account.held),
        peak_phase=account.peak_phase,
        attention_kernel=measured.attention,
    )


def _in_turn(method: Method, task: Task) -> list[float]:
    """Return the seconds of a step round by round, mean over blocks that take turns, so that swaps are in it.

    Empty for a method in stages, of which only the last is left.
    """
    if method.staged:
        return []
    plans = [plan for plan, last in rehearsal(method) if last]
    return _rounds(lambda: [_timed(method, task, plan) for plan in plans])


def _stage_by_stage(resolved: Resolved, task: Task) -> list[float]:
    """Return the same for a method in stages, each timed while it is in training."""
    method = resolved.build(task)
    stages: list[list[float]] = []
    for plan, last in rehearsal(method):
        method.step(task.train_batch(plan.block_step), plan)
        if last:
            stages.append(_rounds(partial(_timed_alone, method, task, plan)))
    return [statistics.fmean(seconds) for seconds in zip(*stages, strict=False)]


def _timed_alone(method: Method, task: Task, plan: Plan) -> list[float]:
    return [_timed(method, task, plan)]


def _rounds(take: Callable[[], list[float]]) -> list[float]:
    began, found = time.perf_counter(), list[float]()
    while len(found) < 3 or (len(found) < ROUNDS and time.perf_counter() - began < MOST_SECONDS):
        found.append(statistics.fmean(take()))
    return found


def _timed(method: Method, task: Task, plan: Plan) -> float:
    batch = task.train_batch(plan.block_step)
    _synchronise(method.setting.device)
    began = time.perf_counter()
    method.step(batch, plan)
    _synchronise(method.setting.device)
    return time.perf_counter() - began


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main(descriptor: int) -> None:
    """Answer one order."""

    def answer(order: dict[str, Any]) -> bytes:
        cell = Cell.model_validate(order["cell"])
        torch.set_num_threads(cell.threads)
        return measure_cell(cell, order["where"]).model_dump_json().encode()

    serve(descriptor, answer)


if __name__ == "__main__":
    main(int(sys.argv[1]))
