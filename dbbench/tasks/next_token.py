"""Prediction of every next token: cross-entropy, whatever the tokens are."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from dbbench.tasks.base import Metric, Task


class NextToken(Task):
    """Targets are token numbers [batch, tokens]; a sample's loss is the mean over its tokens."""

    metrics: ClassVar[tuple[Metric, ...]] = (Metric("cross_entropy", "nats", "lower", 0),)
    causal: ClassVar[bool] = True

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        per_token = F.cross_entropy(outputs.flatten(0, 1).float(), targets.flatten(), reduction="none")
        return per_token.view(targets.shape).mean(dim=1)

    def measure(self, prediction: Tensor, targets: Tensor) -> dict[str, float]:
        per_token = F.nll_loss(prediction.flatten(0, 1), targets.flatten(), reduction="none")
        return {"cross_entropy": per_token.view(targets.shape).mean(dim=1).sum().item()}
