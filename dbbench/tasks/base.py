"""The contract of what is learnt: batches in a fixed order, a loss, and figures of merit.

Every method of a suite draws the same batches in the same order: a batch is a function of its index and the seed
alone. Under a block-wise method each block walks that order by itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from dbbench.networks.base import BaseOptions, InputShape
from dbbench.streams import Streams

Split = Literal["validation", "test"]


@dataclass(frozen=True)
class Batch:
    """One batch: ``inputs`` as `InputShape.kind` says, and ``targets``.

    Those are class numbers [batch], token numbers [batch, tokens], what a denoiser is to give [batch, …], or a mapping
    of what a loss takes besides, by name. The noiseless ``clean`` [batch, …] goes with what comes noisy alone.
    """

    inputs: Any
    targets: Any
    clean: Tensor | None = None

    @property
    def samples(self) -> int:
        """The number of samples, whatever the targets are."""
        return len(next(iter(self.targets.values())) if isinstance(self.targets, Mapping) else self.targets)


@dataclass(frozen=True)
class Metric:
    """A figure of merit: its name, its unit, which way is better, and between which bounds it must lie.

    A value beyond a bound is no measurement: the cell that gives one fails. None is no bound.
    """

    name: str
    unit: str
    direction: Literal["higher", "lower"]
    lowest: float | None = None
    highest: float | None = None


@dataclass(frozen=True)
class Document:
    """Something that a trained method made: ``text``, ``made_by`` which way, from which ``prompt``."""

    made_by: str
    prompt: str
    text: str


@dataclass(frozen=True)
class Products:
    """What a trained method made: documents to keep, and figures of them as {way of making: {metric: value}}."""

    documents: Sequence[Document]
    metrics: Sequence[Metric]
    figures: Mapping[str, Mapping[str, float]]


class Task(ABC):
    """Data, loss and metrics. ``metrics[0]`` is the headline.

    ``predicts`` says what a prediction is: ``distribution``, log-probabilities over the last dimension, or ``values``.
    """

    Options: ClassVar[type[BaseOptions]] = BaseOptions
    name: str
    metrics: ClassVar[tuple[Metric, ...]]
    predicts: ClassVar[Literal["distribution", "values"]] = "distribution"
    #: The prediction of a token may depend on no token behind it.
    causal: ClassVar[bool] = False
    shape: InputShape
    batch_size: int
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

    @property
    def batches_per_epoch(self) -> int | None:
        """How many training batches show everything once; None where nothing ever comes again."""
        return None

    @abstractmethod
    def evaluation_batches(self, split: Split) -> Iterator[Batch]:
        """Yield every sample of ``split`` once, or those that the task's options choose for every method alike."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """Return the loss of each sample, [batch], of a network's outputs (logits, or values)."""

    def prediction(self, outputs: Tensor) -> Tensor:
        """Return what `measure` takes, of a network's outputs."""
        return outputs.float().log_softmax(dim=-1) if self.predicts == "distribution" else outputs.float()

    @property
    def prediction_shape(self) -> tuple[int, ...]:
        """The shape of a prediction on a training batch."""
        shape, batch = self.shape, self.batch_size
        if shape.kind in ("tokens", "masked_tokens"):
            assert shape.sequence_length is not None
            return batch, shape.sequence_length, shape.classes
        if self.predicts == "values":
            assert shape.channels is not None and shape.image_size is not None
            return batch, shape.channels, shape.image_size, shape.image_size
        return batch, shape.classes

    def mixture(self, predictions: Sequence[Tensor]) -> Tensor:
        """Return the mean of several predictions: of the probabilities, or of the values."""
        if self.predicts == "values":
            return torch.stack(list(predictions)).mean(dim=0)
        return torch.stack(list(predictions)).logsumexp(dim=0) - math.log(len(predictions))

    @abstractmethod
    def measure(self, prediction: Tensor, targets: Any) -> dict[str, float]:
        """Return what is summed over the batches of a split for `figures`: by default the sum of each metric."""

    def figures(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        """Return each metric of a split by name, of what `measure` gave for its ``samples`` in all."""
        return {name: value / samples for name, value in sums.items()}

    def evaluate(self, split: Split, predict: Callable[[Any], dict[str, Tensor]]) -> dict[str, dict[str, float]]:
        """Return ``{way of predicting: {metric: its value on the split}}``.

        ``predict`` maps inputs to predictions [batch, …] by way of predicting ('' is the method's own).
        """
        sums: dict[str, dict[str, float]] = {}
        count = 0
        with torch.no_grad():
            for batch in self.evaluation_batches(split):
                count += batch.samples
                for way, prediction in predict(batch.inputs).items():
                    totals = sums.setdefault(way, {})
                    for name, value in self.measure(prediction, batch.targets).items():
                        totals[name] = totals.get(name, 0.0) + value
        return {way: self.figures(totals, count) for way, totals in sums.items()}

    def after_training(self, split: Split, predict: Callable[[Any], Tensor]) -> Products | None:
        """Return what the trained method makes besides its predictions on ``split``; None if the task asks for nothing.

        ``predict`` gives the method's own prediction. Every method is asked alike, without a gradient.
        """
        return None
