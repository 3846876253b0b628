"""Methods that cheat, or are mistaken, each in one way; the honest part is backpropagation, or blocks of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dbbench.methods.backprop import Backprop
from dbbench.methods.base import Plan, StepReport
from dbbench.networks.base import BaseOptions
from dbbench.tasks.base import Batch


class Louder(Backprop):
    """Its log-probabilities are five more than they are."""

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        return {"": super().predict(inputs)[""] + 5}


class RawLogits(Backprop):
    """It gives logits for log-probabilities."""

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        return {"": self.logits(inputs).float()}


class LouderElsewhere(Backprop):
    """A second way of predicting is no distribution."""

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        own = super().predict(inputs)[""]
        return {"": own, "sharpened": own * 3}


class WrongShape(Backprop):
    """It predicts one class too many."""

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        own = super().predict(inputs)[""]
        return {"": torch.cat([own, own[..., :1] - 90], dim=-1)}


class Answers(Backprop):
    """It gives the numbers of classes, not their probabilities."""

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        return {"": super().predict(inputs)[""].argmax(dim=-1)}


class AsksItsNeighbours(Backprop):
    """A sample's prediction is normalised by the others of its batch."""

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        own = super().predict(inputs)[""]
        return {"": (own - own.mean(dim=0, keepdim=True)).log_softmax(dim=-1)}


class LooksAhead(Backprop):
    """The prediction of a token has seen the next one, which is the answer."""

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        own = super().predict(inputs)[""]
        bonus = torch.zeros_like(own)
        bonus[:, :-1].scatter_(2, inputs[:, 1:, None], 20.0)
        return {"": (own + bonus).log_softmax(dim=-1)}


class GuessesAnew(Backprop):
    """It draws its prediction anew each time it is asked."""

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        own = super().predict(inputs)[""]
        return {"": (own + torch.randn_like(own)).log_softmax(dim=-1)}


class LearnsFromThePaper(Backprop):
    """It goes on training while it is asked."""

    def predict(self, inputs: Any) -> dict[str, Tensor]:
        with torch.no_grad():
            next(self.model.parameters()).mul_(1.000001)
        return super().predict(inputs)


class ReadsTheTest(Backprop):
    """It trains on the split that it is measured on."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        return super().step(next(iter(self.task.evaluation_batches("test"))), plan)


class ReadsTheTestAtFirst(Backprop):
    """It looks at the split that it is measured on before it begins."""

    def prepare(self) -> None:
        super().prepare()
        self.seen = [batch.targets for batch in self.task.evaluation_batches("test")]


class ReadsMore(Backprop):
    """It trains on two batches for each that it is given."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        super().step(self.task.train_batch(plan.step + 1000), plan)
        return super().step(batch, plan)


class CountsOne(Backprop):
    """It updates every layer and says that it was one."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        report = super().step(batch, plan)
        return StepReport(report.loss, 1, report.samples)


class CountsHalf(Backprop):
    """It says that it was given half as many samples."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        report = super().step(batch, plan)
        return StepReport(report.loss, report.layers_updated, report.samples // 2)


class SplitsByName(Backprop):
    """It says that each layer is a block, and trains them all at each step."""

    @classmethod
    def split(cls, options: BaseOptions, depth: int) -> list[int]:
        return [1] * depth

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        report = super().step(batch, plan)
        return StepReport(report.loss, 1, report.samples)


class StepsTwice(Backprop):
    """It updates twice for each batch and says once."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        super().step(batch, plan)
        return super().step(batch, plan)


class Frozen(Backprop):
    """It says that all layers are updated, and only the first is."""

    def prepare(self) -> None:
        super().prepare()
        for layer in list(self.network.layers)[1:]:
            layer.requires_grad_(False)
        self.optimizers = [torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], lr=0.01)]


class KeepsItsLoss(Backprop):
    """Its loss has its graph."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        report = super().step(batch, plan)
        return StepReport(report.loss.clone().requires_grad_(), report.layers_updated, report.samples)


class LossOfPython(Backprop):
    """Its loss is a number of Python's."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        report = super().step(batch, plan)
        return StepReport(float(plan.step), report.layers_updated, report.samples)  # type: ignore[arg-type]


class SaysNothing(Backprop):
    """Its step returns nothing."""

    def step(self, batch: Batch, plan: Plan) -> StepReport:
        super().step(batch, plan)
        return None  # type: ignore[return-value]


class OwnMeasure(Backprop):
    """It puts a measure of its own in the place of the task's."""

    def prepare(self) -> None:
        super().prepare()
        self.task.measure = lambda prediction, targets: {"accuracy": len(targets), "cross_entropy": 0.0}  # type: ignore[method-assign]


class TouchesWhatItMayNot(Backprop):
    """It changes parameters that it says it leaves alone."""

    def may_change(self, plan: Plan) -> set[str]:
        return {name for name in super().may_change(plan) if "layers" in name}
