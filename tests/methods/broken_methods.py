"""Methods that break one promise each, so that the contract test can be seen to notice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dbbench.methods.backprop import Backprop
from dbbench.methods.base import Plan, StepReport
from dbbench.tasks.base import Batch


class KeepsGradients(Backprop):
    """Forgets to release its gradients."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        report = super().step(batch, plan)
        parameter = next(self.model.parameters())
        parameter.grad = torch.zeros_like(parameter)
        return report


class GivesLogits(Backprop):
    """Predicts numbers that are no log-probabilities."""

    def predict(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"": self.network(inputs)}


class SaysTwoThings(Backprop):
    """Predicts something else for those who want its own prediction alone."""

    def predict_own(self, inputs: Tensor) -> Tensor:
        return self.predict(inputs)[""].flip(-1)


class ClaimsTooLittle(Backprop):
    """Trains the head and says it does not."""

    def may_change(self, plan: Plan) -> set[str]:
        return {name for name in super().may_change(plan) if not name.startswith("head.")}


class ClaimsToBeAbsent(Backprop):
    """Says that the head is off the device, and leaves it there."""

    def residents(self, plan: Plan) -> set[str]:
        return {name for name in super().residents(plan) if not name.startswith("head.")}


class Forgets(Backprop):
    """Saves no optimizer state."""

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])


class LooksAtItsLoss(Backprop):
    """Waits for the device in every step, which no fake tensor can answer."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        report = super().step(batch, plan)
        return StepReport(torch.tensor(report.loss.item()), report.layers_updated, report.samples)


class LooksAndSaysSo(LooksAtItsLoss):
    """Does the same, and says it."""

    not_on_fakes = "it looks at its loss"


class IgnoresTheSeed(Backprop):
    """Starts from zeros whatever the seed, and trains on nothing that a seed orders."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        return super().step(Batch(torch.ones_like(batch.inputs), torch.zeros_like(batch.targets)), plan)

    def prepare(self) -> None:
        for parameter in self.network.parameters():
            torch.nn.init.constant_(parameter, 0.1)
        super().prepare()


class RollsDice(Backprop):
    """Draws from a generator that the seed does not set."""

    draws = 0

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        RollsDice.draws += 1
        return super().step(Batch(batch.inputs * (1 + 0.01 * RollsDice.draws), batch.targets), plan)


class CountsWrong(Backprop):
    """Reports one layer, whatever it updates."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        report = super().step(batch, plan)
        return StepReport(report.loss, 1, report.samples)
