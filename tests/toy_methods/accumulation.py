"""A stranger's method: backpropagation over the batch in parts, whose gradients add up to the batch's own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dbbench.methods.backprop import Backprop
from dbbench.methods.base import Plan, StepReport
from dbbench.networks.base import BaseOptions
from dbbench.tasks.base import Batch


class Accumulation(Backprop):
    """One update a batch, from the gradients of its parts."""

    class Options(BaseOptions):
        """``parts``: into how many pieces a batch is cut; one piece's activations are alive at a time."""

        parts: Annotated[int, Field(ge=1)] = 2

    options: Options

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        (optimizer,) = self.optimizers
        self.setting.optimizer.set_rate(optimizer, plan.fraction)
        self.model.train()
        losses = []
        parts = self.options.parts
        for inputs, targets in zip(batch.inputs.chunk(parts), batch.targets.chunk(parts), strict=True):
            loss = self.task.loss(self.logits(inputs), targets).sum() / len(batch.targets)
            loss.backward()
            losses.append(loss.detach())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return StepReport(sum(losses), self.layers_per_block[0], len(batch.targets))
