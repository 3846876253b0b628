"""Stage 5: the time of a step. All methods take turns, so that a change of clock or temperature meets every one."""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Any

from benchmarks.on_gpu.cells import IMAGES_32, METHODS, cell
from benchmarks.on_gpu.machine import seconds_of
from benchmarks.on_gpu.stage import Result, Setting, Stage

#: DiffusionBlocks' table of costs (arXiv 2506.14202): a block's step and end-to-end backprop's, on an H100.
PUBLISHED_SECONDS = {"diffusion_blocks": 0.0181, "backprop": 0.0507}


def _items(setting: Setting) -> list[str]:
    return ["autocast_bf16", "fp32", "ledger"]


def run(item: str, setting: Setting) -> Result:
    """Time every method's step at one precision, or a step under the ledger beside a bare one."""
    if item == "ledger":
        return _ledger(setting)
    return _methods(item, setting)


def _build(method: str, precision: str, setting: Setting) -> tuple[Any, Any, list[Any]]:
    from dbbench.harness.resolve import resolve_cell
    from dbbench.harness.tracing import rehearsal

    network = {"name": "vit", "size": "micro"} if setting.toy else {"name": "vit", "size": "cifar"}
    task = {"name": "images", "image_size": 16, "classes": 10} if setting.toy else IMAGES_32
    chosen = cell(method, method, task, network, setting, precision=precision, batch_size=8 if setting.toy else 256)
    resolved = resolve_cell(chosen, "on_gpu")
    data = resolved.load_task()
    built = resolved.build(data)
    plans = []
    for plan, last in rehearsal(built):
        built.step(data.train_batch(plan.block_step), plan)
        if last:
            plans.append(plan)
    return built, data, plans


def _methods(precision: str, setting: Setting) -> Result:
    """Return each method's median seconds a step, mean over its blocks; a method in stages is timed in its last one."""
    built = {method: _build(method, precision, setting) for method in METHODS}
    rounds: dict[str, list[float]] = {method: [] for method in METHODS}
    moved: dict[str, float] = {}
    for round_ in range(3 if setting.toy else 20):
        names = list(built) if round_ % 2 == 0 else list(reversed(built))
        for name in names:
            method, task, plans = built[name]
            plans = plans[-1:] if method.staged else plans
            before, batches = method.transferred_bytes, [task.train_batch(plan.block_step) for plan in plans]
            seconds = [
                seconds_of(partial(method.step, batch, plan), setting.device)
                for batch, plan in zip(batches, plans, strict=True)
            ]
            rounds[name].append(statistics.fmean(seconds))
            moved[name] = (method.transferred_bytes - before) / len(plans)
    return {
        "precision": precision,
        "batch_size": 8 if setting.toy else 256,
        "rounds": len(rounds["backprop"]),
        "seconds": {name: statistics.median(found) for name, found in rounds.items()},
        "least_seconds": {name: min(found) for name, found in rounds.items()},
        "most_seconds": {name: max(found) for name, found in rounds.items()},
        "transfer_bytes_per_step": moved,
        "staged_last_stage_alone": [name for name, (method, _, _) in built.items() if method.staged],
    }


def _ledger(setting: Setting) -> Result:
    """Return the seconds of a backprop step bare and under the ledger, in turns, and the ledger's cost an op."""
    import torch

    from dbbench.measure.ledger import BareLedger

    method, task, plans = _build("backprop", "fp32", setting)
    bare, traced, ops = [], [], 0

    def step(found: list[float]) -> None:
        batch = task.train_batch(0)
        if setting.device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        method.step(batch, plans[-1])
        if setting.device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)

    for _ in range(3 if setting.toy else 9):
        step(bare)
        with BareLedger(setting.device) as ledger:
            ledger.watch(method.model, lambda: method.optimizers, method.held)
            with ledger.step(0, 0):
                step(traced)
        ops = len(set(ledger.trace.event_op))
    medians = statistics.median(bare), statistics.median(traced)
    return {"bare_seconds": medians[0], "ledger_seconds": medians[1], "ratio": medians[1] / medians[0], "ops": ops}


STAGE = Stage("step_time", "Time of a step", 0.15, 120, _items, run)
