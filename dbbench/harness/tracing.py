"""The measuring passes of a cell: a ledger over a rehearsal, then the device's own account of the same rehearsal.

Each pass builds the method anew inside its watch, so that nothing pre-exists, and takes the steps that
`Method.rehearsal` names: every block is warm before one is traced.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from dbbench.harness.resolve import Resolved
from dbbench.harness.rows import method_columns
from dbbench.measure import account as accounts
from dbbench.measure import device
from dbbench.measure.account import Account
from dbbench.measure.fast_fakes import RememberingFakeMode
from dbbench.measure.ledger import BareLedger
from dbbench.methods.base import Method, Plan
from dbbench.phases import phase
from dbbench.results.roles import ROLES
from dbbench.results.trace import Trace
from dbbench.tasks.base import Task

if TYPE_CHECKING:
    import pandas as pd

#: How far along a rehearsal pretends to be: past the warm-up, so that no rate is zero.
_FRACTION = 0.5
#: How much of a training's plan is looked at for what is true of all of it.
_PLANNED_STEPS = 4096


@dataclass
class Measured:
    """What the measuring passes found. ``transfer_bytes_per_step`` go to the host or come back, mean over blocks."""

    trace: Trace
    account: Account
    peaks: device.DevicePeaks
    flops_by_block: dict[int, Counter[str]]
    masked_flops_by_block: dict[int, int]
    flops_inference: int
    uncounted: dict[str, int]
    attention: str
    parameters_count: int
    shared: list[str]
    shared_bytes: int
    staged: bool
    layers_per_block: list[int]
    transfer_bytes_per_step: float
    method_columns: dict[str, Any]
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def timeline(self) -> pd.DataFrame:
        """The classified events of the traced steps, made when asked for: an estimate has no use for them."""
        return accounts.timeline(self.trace)


def rehearsal(method: Method) -> Iterable[tuple[Plan, bool]]:
    """Yield (plan, traced?) of the steps that show every cost; ValueError where they leave out a block."""
    order = list(method.rehearsal())
    blocks = {block for block, traced in order if traced}
    if blocks != set(range(method.blocks)):
        raise ValueError(f"rehearsal() traces steps of blocks {sorted(blocks)}; there are {method.blocks}, from 0 on")
    taken: Counter[int] = Counter()
    for step, (block, traced) in enumerate(order):
        yield Plan(step, block, taken[block], _FRACTION, _FRACTION), traced
        taken[block] += 1


def measure(resolved: Resolved, task: Task, then: Callable[[Method], None] = lambda method: None) -> Measured:
    """Run both passes and return what they found; ``then`` gets the method of the second, warm, when that is over."""
    measured = ledger_pass(resolved, task)
    with device.watch(resolved.cell.device) as watch:
        method = resolved.build(task)
        for plan, traced in rehearsal(method):
            batch = task.train_batch(plan.block_step)
            with watch.step() if traced else nullcontext():
                method.step(batch, plan)
    measured.peaks = watch.peaks
    then(method)
    return measured


def ledger_pass(resolved: Resolved, task: Task, fake: bool = False) -> Measured:
    """Rehearse under the ledger and return its figures; with ``fake`` on fake tensors, which hold no memory."""
    with RememberingFakeMode() if fake else nullcontext(), BareLedger(resolved.cell.device, fake=fake) as ledger:
        method = resolved.build(task)
        parameters = dict(method.model.named_parameters())
        count, shared = sum(p.numel() for p in parameters.values()), method.shared()
        shared_bytes = sum(parameters[name].nbytes for name in shared)
        ledger.watch(method.model, lambda: method.optimizers, method.held)
        ledger.trace.built = len(ledger.trace.event_op)
        transferred = 0.0
        for plan, traced in rehearsal(method):
            batch = task.train_batch(plan.block_step)
            ledger.declare("inputs", "inputs", batch.inputs)
            ledger.declare("inputs", "targets", batch.targets)
            moved = method.transferred_bytes
            with ledger.step(plan.step, plan.block) if traced else nullcontext():
                method.step(batch, plan)
            transferred += (method.transferred_bytes - moved) * traced
        for optimizer in method.optimizers:
            optimizer.state.clear()
        with ledger.step(-1, kind="inference"), phase("inference"), torch.no_grad():
            method.predict_own(batch.inputs)
        transferred *= _share_of_changes(method) / method.blocks
    flops = {window.block: by_phase for window, by_phase in ledger.flops if window.kind == "step"}
    masked = {window.block: flops for window, flops in ledger.masked_flops if window.kind == "step"}
    inference = sum(sum(by_phase.values()) for window, by_phase in ledger.flops if window.kind == "inference")
    return Measured(
        ledger.trace, ledger.account(), device.DevicePeaks(), flops, masked, inference, ledger.uncounted,
        ledger.attention, count, shared, shared_bytes, method.staged, method.layers_per_block, transferred,
        method_columns(method),
    )  # fmt: skip


def _share_of_changes(method: Method) -> float:
    """Return the share of a training's steps whose block is not that of the step before: in a rehearsal all are."""
    blocks = [method.plan(step, _FRACTION) for step in range(_PLANNED_STEPS)]
    return sum(block != before for block, before in pairwise(blocks)) / (_PLANNED_STEPS - 1)


def memory_columns(measured: Measured) -> dict[str, Any]:
    """Return the columns of `dbbench.results.record.Row` that a rehearsal gives, the roles checked against the peak."""
    account, peaks = measured.account, measured.peaks
    if sum(account.split.values()) != account.peak_bytes:
        raise RuntimeError("the roles do not sum to the peak")
    columns: dict[str, Any] = {
        "peak_bytes": account.peak_bytes,
        "peak_phase": account.peak_phase,
        "peak_step": account.peak_step,
        "peak_block": account.peak_block,
        "inference_peak_bytes": account.inference_peak_bytes,
        "shared_parameters_bytes": measured.shared_bytes,
        "parameters_count": measured.parameters_count,
        "device_peak_bytes": peaks.device_peak_bytes,
        "allocated_bytes": peaks.allocated_bytes,
        "reserved_bytes": peaks.reserved_bytes,
        "nvml_process_peak_bytes": peaks.nvml_process_peak_bytes,
        "flops_inference": measured.flops_inference,
        "attention_kernel": measured.attention,
        "uncounted_ops": json.dumps(measured.uncounted, sort_keys=True) if measured.uncounted else "",
        "unmeasured_work": json.dumps(measured.trace.left, sort_keys=True) if measured.trace.left else "",
    }
    if peaks.device_peak_bytes is not None:
        columns["kernel_workspace_bytes"] = peaks.device_peak_bytes - account.peak_bytes
    for role in ROLES:
        columns[f"{role}_bytes"] = account.split[role]
        columns[f"{role}_own_peak_bytes"] = account.own_peaks[role]
    return columns


def flops_columns(measured: Measured, steps_by_block: Mapping[int, int]) -> dict[str, Any]:
    """Return the FLOP columns for a training that takes so many steps of each block.

    A step's figures are the mean over those steps, rounded to an integer; the total is exact.
    """
    steps = sum(steps_by_block.values())
    totals: Counter[str] = Counter()
    for block, times in steps_by_block.items():
        for name, flops in measured.flops_by_block[block].items():
            totals[name] += flops * times
    columns = {f"flops_{name}": round(totals[name] / steps) for name in ("forward", "backward", "recompute")}
    whole = sum(totals.values())
    return columns | {"flops_step": round(whole / steps), "flops_train_total": whole}
