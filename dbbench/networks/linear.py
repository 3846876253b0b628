"""Logistic regression on the raw inputs: the row that any trained network has to beat."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dbbench.networks.base import InputShape, State, require_kind
from dbbench.networks.layerless import Layerless


class _Readout(nn.Linear):
    def forward(self, features: Tensor, condition: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(features.to(self.weight.dtype))


class LinearClassifier(Layerless):
    """Multinomial logistic regression on flattened pixels; it has no layers to update, only its head."""

    called = "linear"

    def __init__(self, shape: InputShape) -> None:
        super().__init__(shape)
        require_kind(self.called, shape, "images")
        assert shape.image_size is not None and shape.channels is not None
        self.width, self.classes = shape.channels * shape.image_size**2, shape.classes
        self.head = self.make_head()

    def embed(self, inputs: Tensor, target: Tensor | None = None) -> State:
        return State(inputs.flatten(1))

    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        return x

    def make_head(self) -> nn.Module:
        return _Readout(self.width, self.classes)
