"""The training loop: the same few lines for every method, with nothing measured inside it but the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from dbbench.errors import Diverged
from dbbench.harness.budget import course_in_seconds
from dbbench.harness.referee import Referee
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
    """What a training run did.

    ``blocks`` is the active block of each step; ``curve`` are rows of ``curves/<hash>.parquet``.
    """

    samples: int = 0
    layer_updates: int = 0
    seconds: float = 0.0
    transferred_bytes: int = 0
    blocks: list[int] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return len(self.blocks)

    def curves(self) -> pd.DataFrame:
        """Return the learning curve as a data frame."""
        return pd.DataFrame(self.curve)


def train(loop: Loop, plans: list[Plan] | None, report: Callable[[dict[str, Any]], None]) -> Training:
    """Train along ``plans`` (None: until the budget's seconds are spent), evaluating as the cell says.

    Raises BrokenContract where the method does not do what it says, and Diverged as `Loop.evaluate` does.
    """
    cell, referee, watch, told, evaluated = loop.cell, loop.referee, Stopwatch(), 0.0, 0
    steps: Iterable[Plan]
    steps = course_in_seconds(loop.method, cell.budget.value, watch.seconds) if plans is None else plans
    watch.pause(partial(loop.evaluate, 0.0))
    for plan in steps:
        if int(plan.fraction * cell.evaluations) > evaluated:
            evaluated = int(plan.fraction * cell.evaluations)
            watch.pause(partial(loop.evaluate, plan.fraction))
        if referee.is_due(plan.step):
            watch.pause(partial(referee.look, plan))
            loss = loop.step(plan)
            watch.pause(referee.judge)
        else:
            loss = loop.step(plan)
        if time.perf_counter() - told > REPORT_EVERY_SECONDS:
            told = time.perf_counter()
            report(loop.progress(plan.fraction, None if plans is None else len(plans), loss.item()))
    loop.done.seconds = watch.seconds()
    loop.evaluate(1.0)
    return loop.done


class Loop:
    """The state of a training loop: what is done, and the loss since the last evaluation."""

    def __init__(self, method: Method, task: Task, cell: Cell) -> None:
        self.method, self.task, self.cell, self.done = method, task, cell, Training()
        self.referee = Referee(method, task, cell.precision, method.setting.streams.key("referee"))
        self._loss_sum = torch.zeros((), device=cell.device)
        self._losses = 0
        self._first_bad = torch.full((), torch.inf, device=cell.device)  # step; no step waits for the device

    def step(self, plan: Plan) -> Tensor:
        """Take one step and return its loss.

        The global generator is set anew from (seed, block, step of the block), so that a layer that draws from it
        (dropout) does not tie blocks together.
        """
        method, done = self.method, self.done
        torch.manual_seed(method.setting.streams.key("global", plan.block, plan.block_step))
        moved = method.transferred_bytes
        result = self.referee.step(plan)
        done.transferred_bytes += method.transferred_bytes - moved
        done.samples += result.samples
        done.layer_updates += result.layers_updated
        done.blocks.append(plan.block)
        self._loss_sum += result.loss
        self._losses += 1
        bad_now = torch.where(torch.isfinite(result.loss), torch.inf, float(done.steps))
        self._first_bad = torch.minimum(self._first_bad, bad_now)
        return result.loss

    def evaluate(self, fraction: float) -> None:
        """Add a point to the curve: the validation split, and the mean training loss since the point before.

        Raises Diverged where a loss since then, a parameter or the figure of merit is not finite.
        """
        done = self.done
        self._require_finite_training()
        values = self.referee.evaluate("validation", self._own, closely=not done.steps)[""]
        headline = self.task.metrics[0].name
        if not math.isfinite(values[headline]):
            raise Diverged(f"validation {headline} is {values[headline]} after step {done.steps}")
        rows = [("validation", name, value) for name, value in values.items()]
        if self._losses:
            rows.append(("train", "loss", self._loss_sum.item() / self._losses))
        at: dict[str, Any] = {"step": done.steps, "samples": done.samples, "layer_updates": done.layer_updates}
        at["budget_fraction"] = fraction
        done.curve += [at | {"split": split, "name": name, "value": value} for split, name, value in rows]
        self._loss_sum.zero_()
        self._losses = 0

    def _own(self, inputs: Any) -> dict[str, Tensor]:
        return {"": self.method.predict_own(inputs)}

    def _require_finite_training(self) -> None:
        first = self._first_bad.item()
        if math.isfinite(first):
            raise Diverged(f"the training loss is not finite, first at step {first:.0f}")
        for name, parameter in self.method.model.named_parameters():
            if not parameter.is_meta and not torch.isfinite(parameter.detach()).all():
                raise Diverged(f"parameter '{name}' is not finite, first seen after step {self.done.steps}")

    def progress(self, fraction: float, steps: int | None, loss: float) -> dict[str, Any]:
        """Return what a display wants to know."""
        metric = self.task.metrics[0].name
        values = [row["value"] for row in self.done.curve if row["split"] == "validation" and row["name"] == metric]
        return {
            "stage": "train",
            "step": self.done.steps,
            "steps": steps,
            "fraction": fraction,
            "loss": loss,
            "metric_name": metric,
            "metric": values[-1],
        }
