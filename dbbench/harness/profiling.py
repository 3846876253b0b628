"""A ``torch.profiler`` trace of a few steps of one variant, for Perfetto and for TensorBoard's profiler page.

It is its own process and pass: nothing that a record reports is measured under it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule, tensorboard_trace_handler

from dbbench.harness.resolve import resolve_cell
from dbbench.methods.base import Plan
from dbbench.suite.cell import Cell

FEWEST_STEPS = 3


def profile_cell(cell: Cell, folder: Path) -> None:
    """Write a trace of one step a block (at least `FEWEST_STEPS`) of ``cell`` into ``folder``, with memory."""
    resolved = resolve_cell(cell, cell.suite)
    task = resolved.load_task()
    method = resolved.build(task)
    blocks = [block for block, _ in method.rehearsal()]
    warm, wanted = (1, FEWEST_STEPS) if method.staged else (method.blocks, max(FEWEST_STEPS, method.blocks))
    order = (blocks * FEWEST_STEPS)[: warm + wanted]
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cell.device == "cuda" else [])
    folder.mkdir(parents=True, exist_ok=True)
    with profile(
        activities=activities,
        schedule=schedule(wait=0, warmup=warm, active=wanted),
        on_trace_ready=tensorboard_trace_handler(str(folder), worker_name=cell.variant),
        profile_memory=True,
        record_shapes=True,
    ) as profiler:
        for step, block in enumerate(order):
            method.step(task.train_batch(step), Plan(step, block, step, 0.5, 0.5))
            if cell.device == "cuda":
                torch.cuda.synchronize()
            profiler.step()
