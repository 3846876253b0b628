"""End-to-end backpropagation: the reference that every other method is measured against."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dbbench.errors import BadInput
from dbbench.limits import Layers
from dbbench.methods.base import Method, Plan, StepReport
from dbbench.networks import base as networks
from dbbench.networks.base import BaseOptions, State
from dbbench.tasks.base import Batch


class Backprop(Method):
    """One forward through all layers, one backward, one update of everything.

    ``truncate`` is for a network that runs its layers several times over: only the last so many of its K recurrences
    are backpropagated through, and those before run without a graph (truncated backpropagation through time).
    """

    class Options(networks.BaseOptions):
        truncate: Layers | None = None

    @classmethod
    def split(cls, options: BaseOptions, depth: int) -> list[int]:
        return [depth]

    def prepare(self) -> None:
        self.model = self.network
        times, kept = self.network.recurrences, self._truncate()
        if kept is not None and kept > times:
            often = f"{times} times" if times > 1 else "one time"
            raise BadInput(f"truncate: {kept} is more than the {often} that the network's layers run")
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
        return StepReport(loss.detach(), self.layers_per_block[0], batch.samples)

    def logits(self, inputs: Any) -> Tensor:
        """Return the outputs of the whole network: logits, or a denoiser's values."""
        state = self.network.embed(inputs)
        return self.network.outputs(self.run_layers(state), state.context)

    def run_layers(self, state: State) -> Tensor:
        """Return x behind the last layer."""
        state, order = self.begin(state)
        return self.network.run(state, order)

    def begin(self, state: State) -> tuple[State, list[int]]:
        """Run what gets no graph; return the state behind it and the layers that are left to run, in their order."""
        order, times = self.network.schedule(), self.network.recurrences
        skipped = len(order) // times * (times - (self._truncate() or times))
        if not skipped:
            return state, order
        with torch.no_grad():
            x = self.network.run(state, order[:skipped])
        return State(x, state.context), order[skipped:]

    def _truncate(self) -> int | None:
        return getattr(self.options, "truncate", None)  # a subclass may have options of its own altogether

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        self.model.eval()
        with self.autocast():
            outputs = self.network(inputs)
        return {"": self.task.prediction(outputs)}
