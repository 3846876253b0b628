"""Backprop that recomputes the first half of the layers and watches how its outputs move."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dbbench.methods.backprop import Backprop
from dbbench.methods.base import Plan, StepReport
from dbbench.networks.base import State
from dbbench.tasks.base import Batch


class Trainer(Backprop):
    """One update a batch; ``outputs_norm`` is a diagnostic on a quarter of it."""

    def prepare(self) -> None:
        super().prepare()
        self.outputs_norm: Tensor | None = None
        self.history: list[Tensor] = []

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        (optimizer,) = self.optimizers
        self.setting.optimizer.set_rate(optimizer, plan.fraction)
        self.model.train()
        with self.autocast():
            loss = self.task.loss(self.logits(batch.inputs), batch.targets).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad(), self.autocast():
            self.outputs_norm = self.logits(batch.inputs[: len(batch.inputs) // 4]).square().mean()
        return StepReport(loss.detach(), self.layers_per_block[0], len(batch.targets))

    def run_layers(self, state: State) -> Tensor:
        x = state.x
        for index in self.network.schedule():
            if index < 3:
                x = checkpoint(self.network.layers[index], x, state.context, use_reentrant=False)
            else:
                x = self.network.layers[index](x, state.context)
        return x

    def held(self) -> Iterable[tuple[str, str, Tensor]]:
        return ()
