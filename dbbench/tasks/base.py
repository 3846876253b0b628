"""The contract of what is learnt: batches in a fixed order, a loss, and figures of merit.

Every method of a suite draws the same batches in the same order: a batch is a function of its index and the seed
alone. Under a block-wise method each block walks that order by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dbbench.networks.base import BaseOptions, InputShape
from dbbench.streams import Streams

Split = Literal["validation", "test"]


@dataclass(frozen=True)
class Batch:
    """One batch: ``inputs`` [batch, …] and ``targets`` [batch] of class indices."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Metric:
    """A figure of merit: its name, its unit, and which way is better."""

    name: str
    unit: str
    direction: Literal["higher", "lower"]


class Task(ABC):
    """Data, loss and metrics. ``metrics[0]`` is the headline."""

    Options: ClassVar[type[BaseOptions]] = BaseOptions
    name: str
    metrics: ClassVar[tuple[Metric, ...]]
    shape: InputShape
    dataset_sha256: str

    @classmethod
    @abstractmethod
    def input_shape(cls, options: BaseOptions) -> InputShape:
        """Return the shape of the inputs without loading any data (a dry run needs it)."""

    @abstractmethod
    def __init__(self, options: BaseOptions, streams: Streams, batch_size: int, where: str = "task") -> None:
        """Load the data; ``where`` (file and key) opens the message of a BadInput."""

    @abstractmethod
    def train_batch(self, index: int) -> Batch:
        """Return the training batch number ``index`` (0, 1, …, through as many epochs as it takes)."""

    @abstractmethod
    def evaluation_batches(self, split: Split) -> Iterator[Batch]:
        """Yield every sample of ``split`` once."""

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each sample, [batch]."""

    @abstractmethod
    def measure(self, log_probabilities: Tensor, targets: Tensor) -> dict[str, float]:
        """Return the sum over the batch of each metric, by name."""

    def evaluate(self, split: Split, predict: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, dict[str, float]]:
        """Return ``{way of predicting: {metric: mean over the split}}``.

        ``predict`` maps inputs to log-probabilities [batch, classes] by way of predicting ('' is the method's own).
        """
        sums: dict[str, dict[str, float]] = {}
        count = 0
        with torch.no_grad():
            for batch in self.evaluation_batches(split):
                count += len(batch.targets)
                for way, log_probabilities in predict(batch.inputs).items():
                    totals = sums.setdefault(way, dict.fromkeys((m.name for m in self.metrics), 0.0))
                    for name, value in self.measure(log_probabilities, batch.targets).items():
                        totals[name] += value
        return {way: {name: value / count for name, value in totals.items()} for way, totals in sums.items()}
