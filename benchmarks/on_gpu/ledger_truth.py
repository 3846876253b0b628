"""Stage 3: is the ledger true on this device? Every method on four networks, beside three independent figures.

The ledger's peak and roles stand beside the CPU's and fake tensors' for the same cell; beside the allocator's own peak
of untraced steps; and that peak beside one replayed from the allocator's history. What the device took more than the
ledger saw is put down to cuBLAS and to the ops inside which it was taken.
"""

from __future__ import annotations

from functools import cache

from benchmarks.on_gpu.cells import CHECKED, CHECKED_TOYS, METHODS, cell
from benchmarks.on_gpu.stage import Result, Setting, Stage
from dbbench.suite.cell import Cell


@cache
def _cells(setting: Setting) -> dict[str, Cell]:
    checked = CHECKED_TOYS if setting.toy else CHECKED
    found = {}
    for network, (task, body, batch) in checked.items():
        for precision in ("fp32", "autocast_bf16"):
            for method in METHODS:
                if setting.toy and (precision != "fp32" or method in ("blocks_state", "greedy")):
                    continue
                name = f"{network} {precision} {method}"
                found[name] = cell(name, method, task, body, setting, precision=precision, batch_size=batch)
    return found


def _items(setting: Setting) -> list[str]:
    return list(_cells(setting))


def run(item: str, setting: Setting) -> Result:
    """Measure one cell on the device, on fake tensors and on the CPU."""
    import torch

    from benchmarks.on_gpu.verdict import compare
    from dbbench.estimate.on_device import side_of
    from dbbench.harness.resolve import resolve_cell
    from dbbench.harness.tracing import ledger_pass, measure

    chosen = _cells(setting)[item]
    torch.set_num_threads(chosen.threads)
    here = resolve_cell(chosen, "on_gpu")
    task = here.load_task()
    device = measure(here, task)
    side = side_of(device)
    elsewhere = resolve_cell(chosen.model_copy(update={"device": "cpu"}), "on_gpu")
    others = {"fake": side_of(ledger_pass(elsewhere, elsewhere.load_task(), fake=True))}
    if setting.toy:
        others["cpu"] = side_of(ledger_pass(elsewhere, elsewhere.load_task()))
    peaks, ledger = device.peaks, device.account.peak_bytes
    assert peaks.device_peak_bytes is not None
    found: Result = {
        "method": chosen.method,
        "precision": chosen.precision,
        "batch_size": chosen.batch_size,
        "ledger_peak_bytes": ledger,
        "sum_of_roles_bytes": sum(device.account.split.values()),
        "device_peak_bytes": peaks.device_peak_bytes,
        "allocated_bytes": peaks.allocated_bytes,
        "reserved_bytes": peaks.reserved_bytes,
        "nvml_process_peak_bytes": peaks.nvml_process_peak_bytes,
        "kernel_workspace_bytes": peaks.device_peak_bytes - ledger,
        "transfer_bytes_per_step": device.transfer_bytes_per_step,
        "attention_kernel": device.attention,
        "unmeasured_work": dict(device.trace.left),
        "roles": {name: compare(side, other) for name, other in others.items()},
    }
    if setting.device == "cuda":
        found |= {"cublas_workspace_bytes": peaks.cublas_workspace_bytes} | _workspace(chosen)
    return found


def _workspace(chosen: Cell) -> Result:
    """Take the untraced steps again: once under the allocator's history, once with an eye on every op."""
    from contextlib import nullcontext

    from benchmarks.on_gpu.workspace import WorkspaceMode, witness
    from dbbench.harness.resolve import resolve_cell
    from dbbench.harness.tracing import rehearsal

    resolved = resolve_cell(chosen, "on_gpu")
    task = resolved.load_task()
    replayed = counted = 0
    method = resolved.build(task)
    for plan, traced in rehearsal(method):
        batch = task.train_batch(plan.block_step)
        if traced:
            pair = witness(lambda batch=batch, plan=plan: method.step(batch, plan))  # type: ignore[misc]
            replayed, counted = max(replayed, pair[0]), max(counted, pair[1])
        else:
            method.step(batch, plan)
    method = resolved.build(task)
    mode = WorkspaceMode()
    for plan, traced in rehearsal(method):
        batch = task.train_batch(plan.block_step)
        with mode if traced else nullcontext():
            method.step(batch, plan)
    return {
        "replayed_peak_bytes": replayed,
        "counted_peak_bytes": counted,
        "workspace_by_op_bytes": mode.largest(),
        "kept_by_op_bytes": {name: size for name, size in mode.kept.most_common(5) if size > 0},
        "peak_op": mode.peak_op,
        "peak_op_workspace_bytes": mode.peak_within_bytes,
    }


STAGE = Stage("ledger_truth", "Is the ledger true here?", 0.25, 90, _items, run)
