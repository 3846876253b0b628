"""What the harness costs: its training loop around `backprop` against the loop that a user would write.

    python benchmarks/training_throughput.py --out throughput.csv

Both loops train the same network from the same weights on the same batches, one thread, in interleaved blocks of steps
whose order alternates, so that a busy neighbour or a warm processor meets both. The figure is the median over the pairs
of (seconds of the bare block / seconds of the harness's block): the harness's throughput as a part of the bare one's.
The same of processor times stands beside it, for a machine that is not idle. That both loops did the same work is
checked by their last losses.
"""

from __future__ import annotations

import argparse
import copy
import csv
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dbbench.data import load_images, split_validation
from dbbench.harness.budget import course
from dbbench.harness.resolve import resolve_cell
from dbbench.harness.training import Loop
from dbbench.streams import Streams
from dbbench.suite.cell import Budget, Cell, NetworkChoice, OptimizerChoice, TaskChoice

TASK, SEED, LR, WEIGHT_DECAY, WARMUP = "fashion_mnist_10k", 0, 1e-3, 0.01, 0.05


class HarnessLoop:
    """`dbbench.harness.training.Loop` along the course of its budget, as a cell runs it."""

    def __init__(self, cell: Cell) -> None:
        resolved = resolve_cell(cell, "benchmark")
        task = resolved.load_task()
        self.method = resolved.build(task)
        self.loop = Loop(self.method, task, cell)
        self.plans = iter(course(self.method, cell.budget, cell.batch_size))
        self.loss = math.nan

    def run(self, steps: int) -> None:
        """Train for ``steps`` steps."""
        for _ in range(steps):
            loss = self.loop.step(next(self.plans))
        self.loss = loss.item()


class BareLoop:
    """Plain PyTorch: arrays to tensors, forward, loss, backward, AdamW, a schedule, gradients to None."""

    def __init__(self, model: nn.Module, batch_size: int, total_steps: int) -> None:
        images = load_images(TASK, folder=None, where="benchmark")
        train, _ = split_validation(images.train_labels, 0.1, seed=0)
        self.images, self.labels = images.train_images[train], images.train_labels[train]
        pixels = self.images / 255.0
        self.mean, self.std = float(pixels.mean()), float(pixels.std())
        self.model, self.batch_size, self.step = model, batch_size, 0
        decayed = [p for p in model.parameters() if p.dim() >= 2]
        others = [p for p in model.parameters() if p.dim() < 2]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=LR, fused=True)

        def rate(step: int) -> float:
            fraction = step / total_steps
            if fraction < WARMUP:
                return max(fraction, 1e-3) / WARMUP
            return (1 + math.cos(math.pi * (fraction - WARMUP) / (1 - WARMUP))) / 2

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)
        self.loss = math.nan

    def order(self, epoch: int) -> np.ndarray:
        """Return the epoch's order: the harness's own, so that both see the same batches."""
        key = Streams(SEED).key("batches", epoch)
        return np.random.Generator(np.random.PCG64(key)).permutation(len(self.labels))

    def run(self, steps: int) -> None:
        """Train for ``steps`` steps."""
        per_epoch = len(self.labels) // self.batch_size
        for _ in range(steps):
            epoch, position = divmod(self.step, per_epoch)
            if position == 0:
                self.permutation = self.order(epoch)
            rows = self.permutation[position * self.batch_size : (position + 1) * self.batch_size]
            inputs = torch.from_numpy(self.images[rows]).permute(0, 3, 1, 2).float()
            inputs = (inputs / 255.0 - self.mean) / self.std
            targets = torch.from_numpy(self.labels[rows])
            self.model.train()
            loss = F.cross_entropy(self.model(inputs), targets)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            self.step += 1
        self.loss = loss.item()


def seconds_a_step(work: Callable[[int], None], steps: int) -> tuple[float, float]:
    """Return the wall time and the processor time of a step, over one block of ``steps``."""
    began, began_cpu = time.perf_counter(), time.process_time()
    work(steps)
    return (time.perf_counter() - began) / steps, (time.process_time() - began_cpu) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=11, help="pairs of blocks (at least 9)")
    parser.add_argument("--steps", type=int, default=50, help="steps in a block (at least 50)")
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--out", type=Path, help="a CSV file for the pairs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warm_up = 5
    total = warm_up + given.pairs * given.steps
    cell = Cell(
        suite="benchmark", variant="backprop", method="backprop", options={}, task=TaskChoice(name=TASK),
        network=NetworkChoice(name="vit", size="tiny", depth=given.depth),
        optimizer=OptimizerChoice(lr=LR, weight_decay=WEIGHT_DECAY, warmup=WARMUP), precision="fp32",
        budget=Budget(kind="samples", value=total * given.batch_size), batch_size=given.batch_size, seed=SEED,
        threads=1, evaluations=1, timeout_seconds=3600,
    )  # fmt: skip
    harness = HarnessLoop(cell)
    bare = BareLoop(copy.deepcopy(harness.method.network), given.batch_size, total)
    harness.run(warm_up)
    bare.run(warm_up)
    rows = []
    print("pair   harness ms      bare ms   ratio   ratio of processor times")
    for pair in range(given.pairs):
        order = (harness, bare) if pair % 2 == 0 else (bare, harness)
        times = {loop: seconds_a_step(loop.run, given.steps) for loop in order}
        (ours, ours_cpu), (theirs, theirs_cpu) = times[harness], times[bare]
        rows.append((pair, ours, theirs, theirs / ours, theirs_cpu / ours_cpu))
        print(f"{pair:4d} {ours * 1e3:12.2f} {theirs * 1e3:12.2f} {theirs / ours:7.4f} {theirs_cpu / ours_cpu:7.4f}")
    assert math.isclose(harness.loss, bare.loss, rel_tol=0.02), (harness.loss, bare.loss)
    wall, cpu = (statistics.median(row[column] for row in rows) for column in (3, 4))
    print(f"median of {given.pairs} pairs of {given.steps} steps: {wall:.4f} of the bare loop's throughput")
    print(f"by processor time, which no neighbour slows: {cpu:.4f}; last losses {harness.loss:.6f}, {bare.loss:.6f}")
    if given.out is not None:
        with given.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ("pair", "harness_seconds_per_step", "bare_seconds_per_step", "throughput_ratio", "processor_ratio")
            )
            writer.writerows(rows)


if __name__ == "__main__":
    main()
