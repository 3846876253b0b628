"""Classification: cross-entropy and accuracy, whatever is classified."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from dbbench.tasks.base import Metric, Task


class Classification(Task):
    """One class of several a sample: targets are class numbers [batch]."""

    metrics = (Metric("accuracy", "fraction", "higher", 0, 1), Metric("cross_entropy", "nats", "lower", 0))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.float(), targets, reduction="none")

    def measure(self, prediction: Tensor, targets: Tensor) -> dict[str, float]:
        hits = (prediction.argmax(dim=1) == targets).sum().item()
        return {"accuracy": hits, "cross_entropy": F.nll_loss(prediction, targets, reduction="sum").item()}
