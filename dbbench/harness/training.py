"""The training loop: the same few lines for every method, with nothing measured inside it but the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch

from dbbench.harness.budget import course_in_seconds
from dbbench.methods.base import Method, Plan
from dbbench.suite.cell import Cell
from dbbench.tasks.base import Task

REPORT_EVERY_SECONDS = 0.25


class Stopwatch:
    """Wall time of training alone: it stands still while the validation split is read."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._paused = 0.0

    def seconds(self) -> float:
        """Return the seconds spent so far, pauses left out."""
        return time.perf_counter() - self._started - self._paused

    def pause(self, work: Callable[[], None]) -> None:
        """Run ``work`` off the clock."""
        began = time.perf_counter()
        work()
        self._paused += time.perf_counter() - began


@dataclass
class Training:
    """What a training run did, and its learning curve as rows of ``curves/<hash>.parquet``."""

    samples: int = 0
    layer_updates: int = 0
    steps: int = 0
    seconds: float = 0.0
    steps_by_block: dict[int, int] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)

    def curves(self) -> pd.DataFrame:
        """Return the learning curve as a data frame."""
        return pd.DataFrame(self.curve)


def train(
    method: Method, task: Task, cell: Cell, plans: list[Plan] | None, report: Callable[[dict[str, Any]], None]
) -> Training:
    """Train ``method`` along ``plans`` (None: until the budget's seconds are spent), evaluating as the cell says.

    The global generator is set anew before each step from (seed, block, step of the block), so that a layer that
    draws from it (dropout) does not tie blocks together.
    """
    done, watch = Training(), Stopwatch()
    steps: Iterable[Plan] = course_in_seconds(method, cell.budget.value, watch.seconds) if plans is None else plans
    losses = torch.zeros((), device=cell.device)
    since, next_evaluation, told = 0, 1, 0.0

    def evaluate(fraction: float) -> None:
        nonlocal losses, since
        values = task.evaluate("validation", method.predict)[""]
        rows = [("validation", name, value) for name, value in values.items()]
        if since:
            rows.append(("train", "loss", losses.item() / since))
        for split, name, value in rows:
            done.curve.append(
                {"step": done.steps, "samples": done.samples, "layer_updates": done.layer_updates}
                | {"budget_fraction": fraction, "split": split, "name": name, "value": value}
            )
        losses, since = torch.zeros((), device=cell.device), 0

    watch.pause(lambda: evaluate(0.0))
    for plan in steps:
        if plan.fraction * cell.evaluations >= next_evaluation:
            watch.pause(lambda: evaluate(plan.fraction))
            next_evaluation = int(plan.fraction * cell.evaluations) + 1
        torch.manual_seed(method.setting.streams.key("global", plan.block, plan.block_step))
        result = method.step(task.train_batch(plan.block_step), plan)
        losses += result.loss
        since += 1
        done.steps += 1
        done.samples += result.samples
        done.layer_updates += result.layers_updated
        done.steps_by_block[plan.block] = done.steps_by_block.get(plan.block, 0) + 1
        if time.perf_counter() - told > REPORT_EVERY_SECONDS:
            told = time.perf_counter()
            report(_progress(done, plan, None if plans is None else len(plans), result.loss.item()))
    done.seconds = watch.seconds()
    evaluate(1.0)
    return done


def _progress(done: Training, plan: Plan, steps: int | None, loss: float) -> dict[str, Any]:
    headline = [row for row in done.curve if row["split"] == "validation"]
    metric = headline[0]["name"] if headline else None
    values = [row["value"] for row in headline if row["name"] == metric]
    return {
        "stage": "train",
        "step": done.steps,
        "steps": steps,
        "fraction": plan.fraction,
        "loss": loss,
        "metric_name": metric,
        "metric": values[-1] if values else None,
    }
