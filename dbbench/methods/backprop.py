"""End-to-end backpropagation: the reference that every other method is measured against."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dbbench.methods.base import Method, Plan, StepReport
from dbbench.networks.base import BaseOptions, State
from dbbench.tasks.base import Batch


class Backprop(Method):
    """One forward through all layers, one backward, one update of everything."""

    @classmethod
    def split(cls, options: BaseOptions, depth: int) -> list[int]:
        return [depth]

    def prepare(self) -> None:
        self.model = self.network
        self.optimizers = [self.setting.optimizer.make({"all": self.model.parameters()})]

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        (optimizer,) = self.optimizers
        self.setting.optimizer.set_rate(optimizer, plan.fraction)
        self.model.train()
        with self.autocast():
            loss = self.task.loss(self.logits(batch.inputs), batch.targets).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return StepReport(loss.detach(), self.layers_per_block[0], len(batch.targets))

    def logits(self, inputs: Any) -> Tensor:
        """Return the outputs of the whole network: logits, or a denoiser's values."""
        state = self.network.embed(inputs)
        return self.network.outputs(self.run_layers(state), state.context)

    def run_layers(self, state: State) -> Tensor:
        """Return x behind the last layer."""
        return self.network.run(state, self.network.schedule())

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        self.model.eval()
        with self.autocast():
            outputs = self.network(inputs)
        return {"": self.task.prediction(outputs)}
