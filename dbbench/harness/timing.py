"""The timing pass: every variant in one process, in turn, round after round, alone on the machine.

Timings of one variant after another would compare the machine's moods. Here each round times a few steps of every
variant, so that ratios are taken within a round; the report gives their median.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from dbbench.harness.resolve import resolve_cell
from dbbench.harness.tracing import rehearsal
from dbbench.measure.device import EnergyMeter
from dbbench.methods.base import Method, Plan
from dbbench.results.record import Timing
from dbbench.suite.cell import Cell
from dbbench.tasks.base import Task

ROUNDS = 11
STEPS_PER_ROUND = 6


class _Runner:
    """A variant that takes a few steps when asked. A staged method has an instance for each of its stages."""

    def __init__(self, cell: Cell, config_hash: str) -> None:
        resolved = resolve_cell(cell, cell.suite)
        self.cell, self.config_hash = cell, config_hash
        self.task: Task = resolved.load_task()
        first = resolved.build(self.task)
        more = first.blocks - 1 if first.staged else 0
        self.methods: list[Method] = [first, *(resolved.build(self.task) for _ in range(more))]
        self.taken = 0
        self.seconds: list[float] = []
        self.swap_seconds = 0.0
        self.joules: list[float] = []
        for stage, method in enumerate(self.methods):
            for plan, _ in rehearsal(method):
                if not method.staged or plan.block == stage:
                    method.step(self.task.train_batch(plan.block_step), plan)

    def round(self, meter: EnergyMeter) -> None:
        """Time `STEPS_PER_ROUND` steps of each instance and note the seconds a step takes on average."""
        swapped = sum(method.transfer_seconds for method in self.methods)
        _synchronise(self.cell.device)
        meter.start()
        began = time.perf_counter()
        for stage, method in enumerate(self.methods):
            for i in range(STEPS_PER_ROUND):
                step = self.taken + i
                block = stage if method.staged else method.plan(step, 0.5)
                method.step(self.task.train_batch(step), Plan(step, block, step, 0.5, 0.5))
        _synchronise(self.cell.device)
        steps = STEPS_PER_ROUND * len(self.methods)
        self.seconds.append((time.perf_counter() - began) / steps)
        joules = meter.joules()
        if joules is not None:
            self.joules.append(joules / steps)
        self.taken += STEPS_PER_ROUND
        self.swap_seconds += sum(method.transfer_seconds for method in self.methods) - swapped

    def timing(self) -> Timing:
        """Return what was seen."""
        steps = STEPS_PER_ROUND * len(self.methods)
        return Timing(
            config_hash=self.config_hash,
            variant=self.cell.variant,
            steps_per_round=steps,
            seconds_per_step=self.seconds,
            samples_per_step=self.cell.batch_size,
            swap_share=self.swap_seconds / (sum(self.seconds) * steps),
            energy_joules_per_step=sum(self.joules) / len(self.joules) if self.joules else None,
        )


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def run_timing(cells: list[tuple[Cell, str]], report: Callable[[dict[str, Any]], None]) -> list[Timing]:
    """Time every cell of ``cells`` (with its hash) in interleaved rounds; nothing else should be running."""
    runners = [_Runner(cell, config_hash) for cell, config_hash in cells]
    meter = EnergyMeter()
    for number in range(ROUNDS):
        report({"stage": "timing", "step": number, "steps": ROUNDS, "fraction": number / ROUNDS})
        for runner in runners:
            runner.round(meter)
    return [runner.timing() for runner in runners]
