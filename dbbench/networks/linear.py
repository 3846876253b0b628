"""Logistic regression on the raw inputs: the row that any trained network has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from dbbench.errors import BadInput
from dbbench.networks import base
from dbbench.networks.base import InputShape, State, require_kind


class _Readout(nn.Linear):
    def forward(self, features: Tensor, condition: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(features.to(self.weight.dtype))


class LinearClassifier(base.Network):
    """Multinomial logistic regression on flattened pixels; it has no layers to update, only its head."""

    presets: ClassVar[Mapping[str, tuple[int, ...]]] = {"tiny": (0,)}
    fields = ("depth",)

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        require_kind("linear", shape, "images")
        assert shape.image_size is not None and shape.channels is not None
        self.width, self.classes = shape.channels * shape.image_size**2, shape.classes
        self.layers = nn.ModuleList()
        self.head = self.make_head()

    @classmethod
    def build(
        cls,
        size: str,
        shape: InputShape,
        options: base.BaseOptions,
        depth: int | None = None,
        condition_width: int | None = None,
    ) -> Self:
        if depth or condition_width:
            raise BadInput("network.name: 'linear' has no layers, so neither a depth nor blocks")
        return cls(shape)

    def embed(self, inputs: Tensor, target: Tensor | None = None) -> State:
        return State(inputs.flatten(1))

    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        return x

    def make_head(self) -> nn.Module:
        return _Readout(self.width, self.classes)
